"""Bundles whose hashes are right and whose content is hostile: refused, and cheaply.

Damage, foreign formats, pickled objects, paths and links out of the folder are in
tests/model/test_bundle.py.
"""

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model.bundle import GOLDEN, JSON_MAX_BYTES, MANIFEST, Bundle, read_manifest, seal
from model.errors import BundleError
from service.serving import open_bundle
from service.settings import load_settings
from tests.end_to_end.service_process import ServiceProcess
from tests.model.bundle_copy import copy_bundle, edit_manifest, reseal
from tests.model.test_bundle import refusal


@pytest.fixture
def copy(shop_bundle: Path, tmp_path: Path) -> Path:
    return copy_bundle(shop_bundle, tmp_path / "bundle")


def service_refusal(folder: Path) -> str:
    """Why the service does not start with the bundle, which may be told by its golden cases."""
    with pytest.raises(BundleError) as refused:
        open_bundle(load_settings(bundle=folder))
    return str(refused.value)


def npy(header: str, body: bytes = b"\0" * 64, *, version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode("latin1") + body


def of_shape(shape: str, dtype: str = "'<i8'") -> bytes:
    return npy(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n")


HEADERS = {
    "a terabyte": of_shape("(137438953472,)"),
    "a product that wraps around to nothing": of_shape("(4294967296, 4294967296)"),
    "more than a machine's number": of_shape(f"({10**30},)"),
    "nothing, very often": npy(of_shape(f"(0, {10**30})")[10:-64].decode(), b""),
    "less than nothing": of_shape("(-1,)"),
    "twice less than nothing": of_shape("(-1, -8)"),
    "a truth": npy(of_shape("(True,)")[10:-64].decode(), b"\0" * 8),
    "thousands of axes": of_shape("(" + "1," * 3_000 + "8)"),
    "elements of a gigabyte": of_shape("(1,)", "'V999999999'"),
    "elements that are objects": of_shape("(8,)", "'|O'"),
    "elements that hold objects": of_shape("(4,)", "[('a', '<i8'), ('b', '|O')]"),
    "a deep expression": npy("-" * 9_000 + "1"),
    "a long expression": npy("1" + "+1j" * 2_000),
    "a call": npy("__import__('os').system('true')"),
    "a header longer than the file": npy("{}", version=2)[:8] + struct.pack("<I", 2**32 - 1),
    "an unknown version": npy("{}", version=9),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_the_header_of_an_array_promises_what_follows(copy: Path, kind: str) -> None:
    (copy / "popularity.npy").write_bytes(HEADERS[kind])
    reseal(copy)

    assert "popularity.npy" in refusal(copy)


@pytest.mark.parametrize(
    "name",
    [
        "item_index_numbers.npy",
        "category_index_numbers.npy",
        "category_items_members.npy",
        "item_categories_members.npy",
    ],
)
@pytest.mark.parametrize("number", [-1, 2**31 - 1, "one more than there are"])
def test_numbers_that_point_at_nothing_are_refused(
    copy: Path, name: str, number: int | str
) -> None:
    array = np.load(copy / name)
    bundle = Bundle.open(copy)
    is_item = name in {"item_index_numbers.npy", "category_items_members.npy"}
    end = len(bundle.catalog) if is_item else len(bundle.catalog.categories)
    array[-1] = number if isinstance(number, int) else end
    np.save(copy / name, array)
    reseal(copy)

    assert f"{name.rpartition('_')[0]} points at numbers beyond 0 .. {end - 1}" in refusal(copy)


@pytest.mark.parametrize("dtype", ["U3", "V8", np.float64, np.complex128, np.bool_])
def test_codes_are_integers(copy: Path, dtype: Any) -> None:
    codes = np.load(copy / "codes.npy")
    np.save(copy / "codes.npy", np.zeros(codes.shape, dtype=dtype))
    reseal(copy)

    assert "codes.npy holds" in refusal(copy)


def nested(depth: int) -> object:
    found: object = 1
    for _ in range(depth):
        found = [found]
    return found


def test_a_beam_that_would_take_all_memory_is_refused(copy: Path) -> None:
    for width in (10_001, 10**13, 10**300):

        def widen(manifest: dict[str, Any], width: int = width) -> None:
            manifest["beam_width"] = width

        edit_manifest(copy, widen)
        assert "beam_width: Input should be less than or equal to 10000" in refusal(copy)


def test_deep_facts_are_refused(copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest.update(facts={"x": nested(400)}))

    assert "is not a manifest of this release" in refusal(copy)


def test_a_number_of_thousands_of_digits_is_refused(copy: Path) -> None:
    (copy / MANIFEST).write_text('{"format_version": ' + "9" * 5_000 + "}", encoding="utf-8")

    assert "manifest.json cannot be read" in refusal(copy)


@pytest.mark.parametrize("name", [MANIFEST, GOLDEN])
def test_json_is_only_read_up_to_a_size(copy: Path, name: str) -> None:
    with (copy / name).open("ab") as file:
        file.truncate(JSON_MAX_BYTES + 1)  # a sparse file, as cheap to make as it is to refuse
    if name == GOLDEN:
        reseal(copy)

    assert f"it is larger than {JSON_MAX_BYTES} bytes" in refusal(copy)


def test_a_manifest_that_never_ends_is_refused(copy: Path) -> None:
    (copy / MANIFEST).unlink()
    os.mkfifo(copy / MANIFEST)
    assert "it is not a file" in refusal(copy)

    (copy / MANIFEST).unlink()
    (copy / MANIFEST).symlink_to("/dev/zero")
    assert "it is not a file" in refusal(copy)


def test_names_in_a_manifest_do_not_command_the_terminal(copy: Path, tmp_path: Path) -> None:
    manifest = read_manifest(copy)
    evil = "\x1b[2J\x1b]0;EVIL\x07\u202e.npy"
    files = manifest.files | {evil: manifest.files["trie.npy"]}
    changed = manifest.model_copy(update={"files": files})
    sealed = changed.model_copy(update={"bundle_id": changed.identity()})
    (copy / MANIFEST).write_text(sealed.model_dump_json(exclude_unset=True), encoding="utf-8")
    service = ServiceProcess(copy, tmp_path)
    service.spawn()
    try:
        assert service.wait() == 3
    finally:
        service.kill()

    told = service.stderr.read_text()
    assert "has no \\x1b[2J\\x1b]0;EVIL\\x07\\u202e.npy" in told
    assert told.removesuffix("\n").isprintable()


def encoder(
    nodes: Sequence[onnx.NodeProto], constants: Sequence[TensorProto], width: int
) -> onnx.ModelProto:
    """An encoder of one's own; its items are added up to `total`."""
    axes = numpy_helper.from_array(np.array([0]), "axes")
    total = helper.make_node("ReduceSum", ["items", "axes"], ["total"], keepdims=0)
    items = helper.make_tensor_value_info("items", TensorProto.FLOAT, ["T", width])
    h = helper.make_tensor_value_info("h", TensorProto.FLOAT, None)
    graph = helper.make_graph([total, *nodes], "g", [items], [h], [axes, *constants])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def put_encoder(folder: Path, make: Callable[[int], onnx.ModelProto]) -> None:
    content = make(read_manifest(folder).width).SerializeToString()
    (folder / "encoder.onnx").write_bytes(content)
    seal(folder, read_manifest(folder))


def stored_outside(location: str) -> Callable[[int], onnx.ModelProto]:
    def make(width: int) -> onnx.ModelProto:
        secret = TensorProto(
            name="secret",
            data_type=TensorProto.FLOAT,
            dims=[width],
            data_location=TensorProto.EXTERNAL,
        )
        secret.external_data.add(key="location", value=location)
        return encoder([helper.make_node("Add", ["total", "secret"], ["h"])], [secret], width)

    return make


@pytest.mark.parametrize("location", ["../secret", "{outside}/secret", "codebooks/../../secret"])
def test_a_graph_reads_no_file_beyond_the_bundle(copy: Path, location: str) -> None:
    width = read_manifest(copy).width
    (copy.parent / "secret").write_bytes(b"\0" * 4 * width)
    put_encoder(copy, stored_outside(location.format(outside=copy.parent)))

    assert "encoder.onnx cannot be run" in refusal(copy)


def test_a_graph_reads_no_file_that_the_manifest_does_not_name(copy: Path) -> None:
    put_encoder(copy, stored_outside("weights"))
    (copy / "weights").write_bytes(b"\0" * 4 * read_manifest(copy).width)

    assert "'weights', which the manifest does not name" in refusal(copy)


def filled(size: int) -> Callable[[int], onnx.ModelProto]:
    def make(width: int) -> onnx.ModelProto:
        shape = numpy_helper.from_array(np.array([size]), "shape")
        nodes = [
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"], name="\x1b[31mEVIL"),
            helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
            helper.make_node("Add", ["total", "zero"], ["h"]),
        ]
        return encoder(nodes, [shape], width)

    return make


def misshapen(width: int) -> onnx.ModelProto:
    shape = numpy_helper.from_array(np.array([7, 11, 13]), "shape")
    return encoder([helper.make_node("Reshape", ["items", "shape"], ["h"])], [shape], width)


def unknown_operator(width: int) -> onnx.ModelProto:
    return encoder([helper.make_node("Evil", ["total"], ["h"], domain="evil")], [], width)


def whole_history(width: int) -> onnx.ModelProto:
    return encoder([helper.make_node("Identity", ["items"], ["h"])], [], width)


BAD_GRAPHS: dict[str, Callable[[int], onnx.ModelProto]] = {
    "more memory than there is": filled(10**14),
    "less than no memory": filled(-5),
    "a shape that does not fit": misshapen,
    "an operator of a library of its own": unknown_operator,
    "an answer of another shape": whole_history,
}


@pytest.mark.parametrize("kind", BAD_GRAPHS)
def test_a_graph_that_fails_is_refused_before_the_service_is_ready(
    copy: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    put_encoder(copy, BAD_GRAPHS[kind])

    assert "cannot be" in service_refusal(copy)
    assert capfd.readouterr().err == ""  # ONNX Runtime writes nothing of its own


@pytest.mark.parametrize("name", ["item_ids_blob.npy", "titles_blob.npy", "categories_blob.npy"])
def test_strings_that_are_no_text_are_refused(copy: Path, name: str) -> None:
    np.save(copy / name, np.full_like(np.load(copy / name), 0xFF))
    reseal(copy)

    assert "cannot be answered: UnicodeDecodeError" in service_refusal(copy)


def test_the_copies_are_good_before_they_are_spoilt(copy: Path) -> None:
    """So it is the encoder that the tests above put there which is refused."""
    reseal(copy)

    open_bundle(load_settings(bundle=copy))

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle import (
    GOLDEN,
    MANIFEST,
    Bundle,
    catalog_arrays,
    read_manifest,
    transition_arrays,
    tree_arrays,
)
from model.errors import BundleError
from model.manifest import Manifest
from model.types import AnyArray
from tests.model.bundle_copy import copy_bundle, edit_manifest, reseal

PARTS = [
    "categories_blob.npy",
    "categories_offsets.npy",
    "category_index_hashes.npy",
    "category_index_numbers.npy",
    "category_items_members.npy",
    "category_items_start.npy",
    "codes.npy",
    "decoder.onnx",
    "encoder.onnx",
    "golden.json",
    "item_categories_members.npy",
    "item_categories_start.npy",
    "item_encoder.onnx",
    "item_ids_blob.npy",
    "item_ids_offsets.npy",
    "item_index_hashes.npy",
    "item_index_numbers.npy",
    "node_biases.npy",
    "node_hidden.npy",
    "node_vectors.npy",
    "popularity.npy",
    "query_weights.npy",
    "step.onnx",
    "titles_blob.npy",
    "titles_offsets.npy",
    "transitions_members.npy",
    "transitions_start.npy",
    "transitions_weights.npy",
    "trie.npy",
]
"""What no bundle can do without."""


@pytest.fixture
def copy(shop_bundle: Path, tmp_path: Path) -> Path:
    return copy_bundle(shop_bundle, tmp_path / "bundle")


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as refused:
        Bundle.open(folder)
    return str(refused.value)


def arrays(bundle: Bundle) -> dict[str, AnyArray]:
    found = catalog_arrays(bundle.catalog) | tree_arrays(bundle.tree)
    found |= transition_arrays(bundle.transitions)
    return found | {"popularity.npy": bundle.popularity}


def test_a_bundle_says_what_it_holds(shop_bundle: Path) -> None:
    bundle = Bundle.open(shop_bundle)

    assert len(bundle.catalog) == bundle.manifest.items == bundle.tree.trie.item_count
    assert bundle.bundle_id == bundle.manifest.bundle_id
    assert bundle.catalogue_version == 0
    assert bundle.golden
    assert set(PARTS) <= bundle.manifest.files.keys()
    # Leaves are in the order of their semantic IDs, which the trie was built from.
    codes = bundle.catalog.codes
    assert np.lexsort(codes.T[::-1]).tolist() == list(range(len(codes)))


def test_opening_twice_and_a_copy_give_the_same(shop_bundle: Path, copy: Path) -> None:
    first, second, other = (Bundle.open(path) for path in (shop_bundle, shop_bundle, copy))

    for again in (second, other):
        assert again.bundle_id == first.bundle_id
        assert again.manifest == first.manifest
        assert again.golden == first.golden
        for name, array in arrays(first).items():
            assert np.array_equal(array, arrays(again)[name]), name


def test_arrays_stay_on_disk(shop_bundle: Path) -> None:
    for name, array in arrays(Bundle.open(shop_bundle)).items():
        assert isinstance(array.base, np.memmap) or array.size == 0, name
        assert not array.flags.writeable or array.size == 0, name


def test_the_evaluation_beside_it_is_outside_of_it(copy: Path) -> None:
    before = Bundle.open(copy).bundle_id

    (copy / "evaluation.json").write_text("other", encoding="utf-8")
    (copy / "evaluation.md").unlink(missing_ok=True)

    assert Bundle.open(copy).bundle_id == before


def test_any_other_file_beside_it_is_refused(copy: Path) -> None:
    (copy / "text_encoder" / "evaluation.json").write_text("{}", encoding="utf-8")

    assert "text_encoder/evaluation.json" in refusal(copy)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "grow", "remove"])
def test_damage_of_any_file_is_noticed_and_named(copy: Path, damage: str) -> None:
    for name in read_manifest(copy).files:
        path = copy / name
        whole = path.read_bytes()
        spoiled = {
            "flip": whole[:-1] + bytes([whole[-1] ^ 1]),
            "truncate": whole[:-1],
            "empty": b"",
            "grow": whole + b"\0",
        }
        path.unlink()
        if damage != "remove":
            path.write_bytes(spoiled[damage])

        assert name in refusal(copy)

        path.write_bytes(whole)
    Bundle.open(copy)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_was_never_written_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    reseal(copy)

    assert f"no {name}: export it again" in refusal(copy)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("score", "fusion_weight"), 9.0),
        (("score", "largest_item_norm"), 0.0),
        (("score", "repeat_bias"), 7.0),
        (("score", "evidence_weights", 0), 7.0),
        (("history_length",), 1),
        (("beam_width",), 1),
        (("levels", 0, "name"), "colour"),
        (("facts", "refit"), "yes"),
        (("bundle_id",), "0" * 16),
        (("files", "trie.npy", "sha256"), "0" * 64),
    ],
)
def test_an_edited_manifest_is_refused(
    copy: Path, place: tuple[str | int, ...], value: object
) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        inner: Any = manifest
        for step in place[:-1]:
            inner = inner[step]
        assert inner[place[-1]] != value
        inner[place[-1]] = value

    edit_manifest(copy, edit)

    message = refusal(copy)
    assert "edited" in message
    assert MANIFEST in message


def test_a_manifest_laid_out_anew_is_the_same(copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest.update(sorted(manifest.items())))

    assert Bundle.open(copy).bundle_id


@pytest.mark.parametrize("version", [0, 1, 4, 6, "5", None, [5]])
def test_another_format_is_refused(copy: Path, version: object) -> None:
    edit_manifest(copy, lambda manifest: manifest.update(format_version=version))

    message = refusal(copy)
    assert f"format_version {version!r}, this release reads 5" in message


GOOD_SCORE: dict[str, object] = {
    "fusion_weight": 1.0,
    "largest_item_norm": 1.0,
    "repeat_bias": 0.0,
    "evidence_weights": [0.5] * 6,
}


@pytest.mark.parametrize(
    "change",
    [
        {"nonsense": 1},
        {"items": 0},
        {"items": None},
        {"width": -1},
        {"files": []},
        {"levels": "four"},
        {"score": GOOD_SCORE | {"fusion_weight": -1.0}},
        {"score": GOOD_SCORE | {"fusion_weight": float("inf")}},
        {"score": GOOD_SCORE | {"largest_item_norm": float("nan")}},
        {"score": GOOD_SCORE | {"repeat_bias": float("inf")}},
        {"score": GOOD_SCORE | {"evidence_weights": [float("nan")] * 6}},
        {"score": {name: GOOD_SCORE[name] for name in GOOD_SCORE if name != "repeat_bias"}},
        {"score": {name: GOOD_SCORE[name] for name in GOOD_SCORE if name != "evidence_weights"}},
    ],
)
def test_a_manifest_with_impossible_fields_is_refused(
    copy: Path, change: dict[str, object]
) -> None:
    edit_manifest(copy, lambda manifest: manifest.update(change))

    message = refusal(copy)
    assert "is not a manifest" in message
    assert next(iter(change)) in message


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe{}", b"[" * 200_000, b"[]", b"3", b"null", b'"x"']
)
def test_what_is_no_manifest_at_all_is_refused(copy: Path, content: bytes) -> None:
    (copy / MANIFEST).write_bytes(content)

    assert MANIFEST in refusal(copy)


def test_folders_that_are_no_bundle_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd" / MANIFEST).mkdir(parents=True)

    assert "is not a bundle: it has no manifest.json" in refusal(tmp_path / "missing")
    assert "is not a bundle: it has no manifest.json" in refusal(tmp_path / "empty")
    assert "cannot be read" in refusal(file)
    assert "cannot be read" in refusal(tmp_path / "odd")


def test_a_bundle_may_be_reached_through_a_link(copy: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(copy, target_is_directory=True)

    assert Bundle.open(link).bundle_id == Bundle.open(copy).bundle_id


@pytest.mark.parametrize("name", ["../outside.npy", "/outside.npy", "codebooks/../../outside.npy"])
def test_names_that_lead_out_of_the_folder_are_refused(copy: Path, name: str) -> None:
    shutil.move(copy / "titles_blob.npy", copy.parent / "outside.npy")

    def edit(manifest: dict[str, Any]) -> None:
        name_there = str(copy.parent / "outside.npy") if name.startswith("/") else name
        manifest["files"][name_there] = manifest["files"].pop("titles_blob.npy")
        manifest["bundle_id"] = Manifest.model_validate(manifest).identity()

    edit_manifest(copy, edit)

    assert "outside.npy" in refusal(copy)


def test_links_out_of_the_folder_are_refused(copy: Path) -> None:
    outside = copy.parent / "outside.npy"
    shutil.move(copy / "titles_blob.npy", outside)
    (copy / "titles_blob.npy").symlink_to(outside)

    assert "titles_blob.npy is a link out of" in refusal(copy)


def test_links_to_nothing_and_pipes_are_missing_files(copy: Path) -> None:
    (copy / "trie.npy").unlink()
    (copy / "trie.npy").symlink_to("nowhere")
    assert "no trie.npy" in refusal(copy)

    (copy / "trie.npy").unlink()
    os.mkfifo(copy / "trie.npy")
    assert "no trie.npy" in refusal(copy)


def change_array(copy: Path, name: str, change: Callable[[AnyArray], AnyArray]) -> None:
    array = np.load(copy / name)
    np.save(copy / name, change(array))
    reseal(copy)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("codes.npy", lambda array: array[:-1]),
        ("codes.npy", lambda array: array[:, :-1]),
        ("popularity.npy", lambda array: array[:-1]),
        ("popularity.npy", lambda array: array.astype(np.float64)),
        ("node_vectors.npy", lambda array: array[:, :-1]),
        ("node_vectors.npy", lambda array: array.astype(np.float64)),
        ("node_biases.npy", lambda array: array[None]),
        ("node_hidden.npy", lambda array: array[:-1]),
        ("node_hidden.npy", lambda array: array[:, :-1]),
        ("node_hidden.npy", lambda array: array.astype(np.float16)),
        ("query_weights.npy", lambda array: array[:-1]),
        ("query_weights.npy", lambda array: array.swapaxes(1, 2)),
        ("query_weights.npy", lambda array: array.astype(np.float64)),
        ("query_weights.npy", lambda array: array[0, 0, 0]),
        ("trie.npy", lambda array: array.astype(np.int64)),
        ("trie.npy", lambda array: array[:-1]),
        ("trie.npy", lambda array: array[:0]),
        ("item_ids_offsets.npy", lambda array: array[:-1]),
        ("item_ids_offsets.npy", lambda array: array + 1),
        ("item_ids_offsets.npy", lambda array: array[::-1]),
        ("titles_offsets.npy", lambda array: array[0]),
        ("titles_blob.npy", lambda array: array[:-1]),
        ("titles_blob.npy", lambda array: array.view(np.int8)),
        ("item_index_hashes.npy", lambda array: array[:-1]),
        ("item_index_numbers.npy", lambda array: array[:0]),
        ("category_items_start.npy", lambda array: array[:-1]),
        ("category_items_members.npy", lambda array: array[:-1]),
        ("item_categories_start.npy", lambda array: array[:0]),
        ("category_index_hashes.npy", lambda array: array[1:]),
        ("transitions_start.npy", lambda array: array[:-1]),
        ("transitions_start.npy", lambda array: array[::-1]),
        ("transitions_start.npy", lambda array: array + 1),
        ("transitions_start.npy", lambda array: array.astype(np.int32)),
        ("transitions_members.npy", lambda array: array[:-1]),
        ("transitions_members.npy", lambda array: array + len(array)),
        ("transitions_members.npy", lambda array: -1 - array),
        ("transitions_members.npy", lambda array: array.astype(np.int64)),
        ("transitions_members.npy", lambda array: array[0]),
        ("transitions_weights.npy", lambda array: array[:-1]),
        ("transitions_weights.npy", lambda array: -1 - array),
        ("transitions_weights.npy", lambda array: array * np.float32(np.nan)),
        ("transitions_weights.npy", lambda array: array + np.float32(1e30)),
        ("transitions_weights.npy", lambda array: array[:, None]),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(
    copy: Path, name: str, change: Callable[[AnyArray], AnyArray]
) -> None:
    change_array(copy, name, change)

    part = name.removesuffix(".npy").rsplit("_", maxsplit=1)[0]
    assert part in refusal(copy)


def test_a_part_of_another_bundle_is_refused(copy: Path) -> None:
    change_array(copy, "popularity.npy", lambda array: array[::-1])
    other = copy_bundle(copy, copy.parent / "other")
    change_array(other, "popularity.npy", lambda array: array[::-1])
    assert Bundle.open(copy).bundle_id != Bundle.open(other).bundle_id

    shutil.copy(other / "popularity.npy", copy / "popularity.npy")

    assert "popularity.npy is damaged" in refusal(copy)


def test_pickled_objects_are_refused(copy: Path) -> None:
    np.save(copy / "popularity.npy", np.array([{"a": 1}, print], dtype=object), allow_pickle=True)
    reseal(copy)
    assert "popularity.npy" in refusal(copy)

    np.save(copy / "popularity.npy", np.array([], dtype=object), allow_pickle=True)
    reseal(copy)
    assert "popularity.npy" in refusal(copy)


@pytest.mark.parametrize("kind", ["text", "zip", "short", "nothing"])
def test_arrays_that_are_none_are_refused(copy: Path, kind: str) -> None:
    path = copy / "popularity.npy"
    if kind == "zip":
        with path.open("wb") as file:
            np.savez(file, np.zeros(3))
    else:
        whole = path.read_bytes()
        path.write_bytes({"text": b"no array", "short": whole[:-9], "nothing": b""}[kind])
    reseal(copy)

    assert "popularity.npy is not an array that can be used" in refusal(copy)


GOOD = {"history": ["a"], "items": ["b"], "scores": [-1.0]}


@pytest.mark.parametrize(
    "golden",
    [
        {},
        None,
        3,
        [3],
        ["abc"],
        [{}],
        [{"history": ["a"], "items": ["b"]}],
        [GOOD | {"history": None}],
        [GOOD | {"history": [1]}],
        [GOOD | {"items": "b"}],
        [GOOD | {"scores": ["high"]}],
        [GOOD | {"scores": [-1.0, -2.0]}],
        [GOOD | {"items": []}],
        [GOOD, [GOOD]],
    ],
)
def test_golden_cases_of_another_shape_are_refused(copy: Path, golden: object) -> None:
    (copy / GOLDEN).write_text(json.dumps(golden), encoding="utf-8")
    reseal(copy)

    assert "golden.json does not hold golden cases" in refusal(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_golden_cases_that_are_no_json_are_refused(copy: Path, content: bytes) -> None:
    (copy / GOLDEN).write_bytes(content)
    reseal(copy)

    assert "golden.json does not hold golden cases" in refusal(copy)


def test_a_file_that_is_no_graph_is_refused(copy: Path) -> None:
    (copy / "step.onnx").write_bytes(b"no graph")
    reseal(copy)

    assert "step.onnx cannot be run" in refusal(copy)


def test_exchanged_graphs_are_refused(copy: Path) -> None:
    shutil.copy(copy / "encoder.onnx", copy / "step.onnx")
    reseal(copy)

    assert "step.onnx takes ['items'] instead of" in refusal(copy)


def test_graphs_of_another_width_are_refused(copy: Path) -> None:
    manifest = read_manifest(copy)
    asked, levels = len(np.load(copy / "node_hidden.npy")), len(manifest.levels)
    np.save(copy / "node_vectors.npy", np.zeros((manifest.nodes, 5), np.float32))
    np.save(copy / "node_hidden.npy", np.zeros((asked, 10), np.float32))
    np.save(copy / "query_weights.npy", np.zeros((levels + 1, 5, 10), np.float32))
    reseal(copy, width=5)

    message = refusal(copy)
    assert f"with {manifest.width} columns but the manifest says 5" in message


def test_weights_of_the_evidence_of_other_levels_are_refused(copy: Path) -> None:
    manifest = read_manifest(copy)
    weights = manifest.score.evidence_weights[:-1]
    reseal(copy, score=manifest.score.model_copy(update={"evidence_weights": weights}))

    assert f"the {len(manifest.levels) + 2} evidence_weights" in refusal(copy)


def test_empty_arrays_open(copy: Path) -> None:
    """No item has a title: NumPy maps no empty file."""
    bundle = Bundle.open(copy)
    offsets = np.zeros(len(bundle.catalog) + 1, np.int64)
    np.save(copy / "titles_blob.npy", np.empty(0, np.uint8))
    np.save(copy / "titles_offsets.npy", offsets)
    reseal(copy)

    untitled = Bundle.open(copy)

    assert {untitled.catalog.title(leaf) for leaf in range(len(offsets) - 1)} == {""}
    assert untitled.bundle_id != bundle.bundle_id

"""Bundles damaged, mixed up or cut short by a full disk: refused with the reason, never served.

That flipping, cutting, emptying, lengthening and removing any one file is noticed, and that other
format versions are, tests/model/test_bundle.py asserts; that a service refuses to start on such a
bundle with one line, tests/end_to_end/test_process.py.
"""

import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from model.bundle import MANIFEST, Bundle, read_manifest
from model.errors import BundleError
from tests.end_to_end.service_process import environment
from tests.faults.findings import Findings
from tests.model.bundle_copy import copy_bundle, reseal
from tests.required import skip_for_want_of

FLIPS = 5
SEED = 8


@pytest.fixture
def copy(shop_bundle: Path, tmp_path: Path) -> Path:
    return copy_bundle(shop_bundle, tmp_path / "bundle")


def refusal(folder: Path) -> str | None:
    """Why the bundle cannot be used, None when it can."""
    try:
        Bundle.open(folder)
    except BundleError as refused:
        return str(refused)
    return None


def test_a_flipped_bit_anywhere_is_noticed(copy: Path, findings: Findings) -> None:
    manifest, flipped = read_manifest(copy), random.Random(SEED)  # noqa: S311
    names = [*manifest.files, MANIFEST]
    for name in names:
        path = copy / name
        whole = path.read_bytes()
        for bit in flipped.sample(range(len(whole) * 8), FLIPS):
            spoiled = bytearray(whole)
            spoiled[bit // 8] ^= 1 << bit % 8
            path.write_bytes(spoiled)
            reason = refusal(copy)
            assert reason is not None, f"bit {bit} of {name}"
            assert name in reason
        path.write_bytes(whole)
    assert refusal(copy) is None
    outcome = f"refused with the file's name, {FLIPS} times in each of {len(names)} files"
    findings.other.append(("a bit of a bundle's file flipped, anywhere", outcome))


def test_a_file_cut_in_half_is_noticed(copy: Path, findings: Findings) -> None:
    names = [*read_manifest(copy).files, MANIFEST]
    for name in names:
        path = copy / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        assert name in (refusal(copy) or ""), name
        path.write_bytes(whole)
    findings.other.append(
        ("a file cut in half", f"refused with the file's name, each of {len(names)}")
    )


def test_a_file_of_another_bundle_is_noticed(
    copy: Path, other_bundle: Path, findings: Findings
) -> None:
    ours, theirs = read_manifest(copy).files, read_manifest(other_bundle).files
    different = [
        name for name in ours if name in theirs and ours[name].sha256 != theirs[name].sha256
    ]
    assert len(different) > len(ours) // 2
    for name in different:
        whole = (copy / name).read_bytes()
        shutil.copy(other_bundle / name, copy / name)
        assert name in (refusal(copy) or ""), name
        (copy / name).write_bytes(whole)
    shutil.copy(other_bundle / MANIFEST, copy / MANIFEST)
    assert refusal(copy) is not None
    outcome = f"refused with the file's name, each of {len(different)} that differ, and manifest"
    findings.other.append(("a file exchanged with another bundle's", outcome))


def run_cofine(*arguments: object, file_max_bytes: int | None = None) -> "Ended":
    """Run the command; no file may grow beyond `file_max_bytes`, as on a disk that is full."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    limits = (hard if file_max_bytes is None else file_max_bytes, hard)
    return subprocess.run(
        [sys.executable, "-B", "-m", "model", *map(str, arguments)],
        env={**environment(), "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, limits),
    )


Ended = subprocess.CompletedProcess[str]


def contents(folder: Path) -> Mapping[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def check_refusal(ended: Ended, reason: str) -> None:
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert reason in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def check_untouched(bundle: Path, before: Mapping[Path, bytes]) -> None:
    """The bundle is as it was, and nothing beside it passes for one."""
    assert contents(bundle) == before
    assert refusal(bundle) is None
    folders = [path for path in bundle.parent.iterdir() if path.is_dir() and not path.is_symlink()]
    beside = [path for path in folders if path != bundle]
    assert [path for path in beside if refusal(path) is None] == []


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own of so many bytes; skips where none may be mounted."""
    folder.mkdir()
    size = f"size={size_bytes}"
    command = ["mount", "-t", "tmpfs", "-o", size, "cofine", str(folder)]
    if shutil.which("mount") is None or os.geteuid() != 0 or subprocess.call(command) != 0:
        skip_for_want_of("mount", "run as root where file systems may be mounted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


def test_an_export_that_cannot_write_leaves_the_bundle_that_is_there(
    shop_bundle: Path, copy: Path, findings: Findings
) -> None:
    before, workspace = contents(copy), shop_bundle.parent / "run"

    ended = run_cofine("export", workspace, copy, file_max_bytes=1_024)

    check_refusal(ended, ".bundle.partial cannot be written")
    check_untouched(copy, before)
    outcome = "refused in one line; the bundle there is byte for byte as before, nothing beside it"
    findings.other.append(("`cofine export`, files of 1024 bytes at most", outcome))


def test_an_export_to_a_full_disk_leaves_the_bundle_that_is_there(
    shop_bundle: Path, tmp_path: Path, findings: Findings
) -> None:
    size = sum(len(content) for content in contents(shop_bundle).values())
    with small_disk(tmp_path / "disk", round(1.7 * size)) as disk:
        bundle = copy_bundle(shop_bundle, disk / "bundle")
        before, workspace = contents(bundle), shop_bundle.parent / "run"

        check_refusal(run_cofine("export", workspace, bundle), "No space left on device")
        check_untouched(bundle, before)

        subprocess.run(["mount", "-o", f"remount,size={4 * size}", str(disk)], check=True)  # noqa: S607
        ended = run_cofine("export", workspace, bundle)
        assert ended.returncode == 0, ended.stderr
        assert refusal(bundle) is None
        assert sorted(path.name for path in disk.iterdir()) == ["bundle"]
    outcome = "refused in one line, the bundle there untouched; with space again the export is done"
    findings.other.append(("`cofine export` to a full disk", outcome))


def test_publishing_to_a_full_disk_leaves_the_current_bundle(
    shop_bundle: Path, copy: Path, tmp_path: Path, findings: Findings
) -> None:
    shelf, workspace = tmp_path / "shelf", shop_bundle.parent / "run"
    publish = ("publish", shop_bundle, shelf, "--workspace", workspace, "--users", 50)
    reseal(copy, facts={"of": "yesterday"})
    former = read_manifest(copy).bundle_id
    shutil.copytree(copy, shelf / former)
    (shelf / "current").symlink_to(former)
    before = contents(shelf / former)

    # 64 KiB are too few for two of the graphs and enough for everything else.
    check_refusal(run_cofine(*publish, file_max_bytes=64 * 1_024), "File too large")

    assert (shelf / "current").readlink() == Path(former)
    check_untouched(shelf / former, before)
    findings.other.append(
        ("`cofine publish`, files of 65536 bytes at most", "refused; `current` stays as it was")
    )

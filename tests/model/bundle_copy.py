"""Copies of a bundle to spoil: damaged, or changed and then sealed again as if exported so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.bundle import MANIFEST, read_manifest, seal


def copy_bundle(bundle: Path, folder: Path) -> Path:
    """A copy in `folder`, which must not exist yet."""
    shutil.copytree(bundle, folder)
    return folder


def reseal(folder: Path, **changes: object) -> None:
    """Make the manifest right for the files as they are now, with `changes` in other fields."""
    seal(folder, read_manifest(folder).model_copy(update=changes))


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest's JSON by hand."""
    path = folder / MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")

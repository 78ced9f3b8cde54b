"""How a stage writes its output folder, so that half a folder is never taken for a whole one.

Every file is written under a temporary name and renamed; the stage's marker (its report or meta
file) is removed first and written last, so a folder without it is unfinished. Knows nothing of
what the files mean.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import StageError
from model.types import AnyArray


def begin_stage(folder: Path, marker: str) -> None:
    """Create `folder` and remove the marker of an earlier run: from here on it is unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / marker).unlink(missing_ok=True)


def require_stage(folder: Path, marker: str, stage: str) -> None:
    """Refuse a stage's folder that is missing or unfinished.

    Raises:
        StageError: `folder` does not hold `marker`, which `stage` writes last.
    """
    if not (folder / marker).is_file():
        raise StageError(f"{folder} holds no {marker}: run `cofine {stage}` into this folder first")


def save_array(path: Path, array: AnyArray) -> None:
    """Write `array` as .npy; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    temporary.replace(path)


def save_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Write `value` as indented UTF-8 JSON; the file appears whole or not at all."""
    save_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def save_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

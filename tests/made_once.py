"""What is costly to make is made once for all processes that share one run of the tests."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of this run, filled by `make` in whichever process asks first."""
    folder = _shared_by_all_workers(factory) / name
    whole = folder / ".whole"
    with FileLock(f"{folder}.lock"):
        if not whole.is_file():
            shutil.rmtree(folder, ignore_errors=True)  # what a failed attempt left
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder


def _shared_by_all_workers(factory: pytest.TempPathFactory) -> Path:
    """The run's folder: pytest-xdist gives each of its workers a folder of its own inside."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

"""Where the research datasets lie: beside the project, or in $COFINE_TEST_DATA. Never shipped."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


def research_data(name: str) -> Path:
    """The folder of a dataset; the test that asks is skipped, loudly, where it is absent."""
    folder = Path(os.environ.get("COFINE_TEST_DATA", PROJECT.parent / "shared" / "data")) / name
    if not folder.is_dir():
        pytest.skip(f"NOT TESTED ON REAL DATA: {folder} is absent; set COFINE_TEST_DATA")
    return folder

import numpy as np
import pytest

from model.history import truncate


@pytest.mark.parametrize(
    ("length", "kept"), [(0, []), (1, [3]), (2, [2, 3]), (3, [1, 2, 3]), (9, [1, 2, 3])]
)
def test_the_newest_entries_are_kept(length: int, kept: list[int]) -> None:
    assert truncate(np.array([1, 2, 3]), length).tolist() == kept

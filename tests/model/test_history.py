import numpy as np
import pytest

from model.catalog import build_catalog
from model.history import known_leaves, truncate


def test_unknown_ids_are_skipped_and_order_and_repeats_kept() -> None:
    catalog = build_catalog(["a", "b", "c"], [""] * 3, [[]] * 3, np.zeros((3, 1), np.int32))

    leaves = known_leaves(["c", "?", "a", "\ud800", "c", ""], catalog)

    assert leaves.tolist() == [2, 0, 2]
    assert leaves.dtype == np.int64
    assert known_leaves(["?"], catalog).dtype == np.int64


@pytest.mark.parametrize(
    ("length", "kept"), [(0, []), (1, [3]), (2, [2, 3]), (3, [1, 2, 3]), (9, [1, 2, 3])]
)
def test_the_newest_entries_are_kept(length: int, kept: list[int]) -> None:
    assert truncate(np.array([1, 2, 3]), length).tolist() == kept

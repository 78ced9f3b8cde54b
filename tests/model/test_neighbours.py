import numpy as np
import pytest

from model import neighbours as subject
from model.neighbours import neighbours

ANGLES = np.radians([0, 10, 90, 30, 180])
VECTORS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)


def test_the_most_alike_come_first_whatever_their_length() -> None:
    longer = VECTORS * np.array([[1], [5], [1], [0.1], [2]], np.float32)
    found = neighbours(longer, 0, 3)
    assert [each.leaf for each in found] == [1, 3, 2]
    wanted = np.cos(np.radians([10, 30, 90]))
    assert [each.likeness for each in found] == pytest.approx(wanted, abs=1e-6)


def test_an_item_is_no_neighbour_of_itself_and_there_are_only_so_many_others() -> None:
    assert {each.leaf for each in neighbours(VECTORS, 2, 50)} == {0, 1, 3, 4}
    assert neighbours(VECTORS[:1], 0, 5) == []


def test_a_vector_of_zeros_is_like_nothing() -> None:
    vectors = np.vstack([VECTORS, np.zeros((1, 2), np.float32)])
    assert [each.likeness for each in neighbours(vectors, 5, 5)] == [0] * 5


@pytest.mark.parametrize(("leaf", "looked_at"), [(0, {0, 1, 2}), (2, {1, 2, 3}), (4, {2, 3, 4})])
def test_a_large_catalogue_is_read_around_the_item_only(
    monkeypatch: pytest.MonkeyPatch, leaf: int, looked_at: set[int]
) -> None:
    monkeypatch.setattr(subject, "CANDIDATES_MAX", 3)
    assert {each.leaf for each in neighbours(VECTORS, leaf, 5)} == looked_at - {leaf}

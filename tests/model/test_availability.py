import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.availability import Availability, legal_below
from model.trie import Trie
from model.types import AnyArray, BoolArray, IntArray
from tests.model.table_decoder import TableDecoder, filtered_decoders


def counted(trie: Trie, legal: BoolArray) -> AnyArray:
    """Legal items below every node, one item at a time."""
    counts = np.zeros(trie.node_count, np.int32)
    for leaf in np.flatnonzero(legal):
        counts[trie.paths(np.array([leaf]))[0]] += 1
    return counts


@given(case=filtered_decoders())
def test_counts_are_the_legal_items_below(case: tuple[TableDecoder, BoolArray]) -> None:
    trie, legal = case[0].trie, case[1]

    assert legal_below(trie, legal).tolist() == counted(trie, legal).tolist()
    leaves = np.arange(trie.item_count)
    assert Availability(trie, legal).legal(leaves).tolist() == legal.tolist()


@given(
    case=filtered_decoders(),
    outer=st.lists(st.integers(0, 100)),
    inner=st.lists(st.integers(0, 100)),
)
def test_items_are_taken_out_and_put_back(
    case: tuple[TableDecoder, BoolArray], outer: list[int], inner: list[int]
) -> None:
    trie, legal = case[0].trie, case[1]
    availability = Availability(trie, legal)

    def leaves(numbers: list[int]) -> IntArray:
        return np.array([number % trie.item_count for number in numbers], np.int64)

    def expected(*excluded: IntArray) -> list[int]:
        left = legal.copy()
        for some in excluded:
            left[some] = False
        return list(counted(trie, left).tolist())

    # Repeats and items that are hidden or out already change nothing.
    with availability.without(leaves(outer)):
        assert availability.counts.tolist() == expected(leaves(outer))
        with availability.without(leaves(inner)):
            assert availability.counts.tolist() == expected(leaves(outer), leaves(inner))
        assert availability.counts.tolist() == expected(leaves(outer))
    assert availability.counts.tolist() == expected()


def test_counts_are_restored_after_an_error() -> None:
    trie, _ = Trie.build(np.array([[0, 0], [0, 1], [1, 0]]))
    availability = Availability(trie, np.array([True, True, False]))
    before = availability.counts.tolist()

    def fail() -> None:
        with availability.without(np.array([1, 2, 1])):
            assert availability.counts.tolist() == [1, 1, 0, 1, 0, 0, 1, 0, 0]
            message = "the request ran out of time"
            raise TimeoutError(message)

    with pytest.raises(TimeoutError):
        fail()

    assert availability.counts.tolist() == before


def test_nothing_and_everything_may_be_taken_out() -> None:
    trie, _ = Trie.build(np.array([[0], [1]]))
    availability = Availability(trie, np.ones(2, dtype=bool))

    with availability.without(np.array([], np.int64)):
        assert availability.counts[0] == 2
    with availability.without(np.array([1, 0, 1])):
        assert not availability.counts.any()

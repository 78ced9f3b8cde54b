import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.availability import legal_below
from model.beam_search import BeamResult, beam_search
from model.certificate import Headroom, is_certified
from model.types import BoolArray
from tests.model.table_decoder import NOTHING, TableDecoder, filtered_decoders

TERMS = np.array([-5.0, -1.0, -3.0, -2.0], np.float32)
ALL = np.ones(4)


def test_only_legal_items_that_were_not_reached_count() -> None:
    assert Headroom(TERMS, ALL, 0.0).beyond(np.array([], np.int64)) == -1
    assert Headroom(TERMS, ALL, 0.0).beyond(np.array([1])) == -2
    assert Headroom(TERMS, np.array([3, 1, 1, 0]), 0.0).beyond(np.array([1])) == -3
    assert Headroom(TERMS, ALL, 0.5).beyond(np.array([1, 3])) == -2.5
    assert Headroom(TERMS, ALL, 0.5).beyond(np.arange(4)) == -np.inf
    assert Headroom(None, ALL, 0.5).beyond(np.arange(4)) == 0.5


def test_one_query_can_be_searched_again() -> None:
    headroom = Headroom(TERMS, ALL, 0.0)

    assert [headroom.beyond(np.array(each)) for each in ([1], [0], [1])] == [-2, -1, -2]
    assert TERMS.tolist() == [-5, -1, -3, -2]


def test_a_list_of_nothing_is_proven_whatever_was_left_behind() -> None:
    found = BeamResult(np.array([2]), np.array([[-9.0]], np.float32), -0.5)

    assert is_certified(found, np.array([-9.0], np.float32), 1, headroom=lambda: -1.0) is False
    assert is_certified(found, np.array([-9.0], np.float32), 0, headroom=lambda: -1.0) is True


@given(
    case=filtered_decoders(),
    width=st.integers(1, 30),
    k=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
    weight=st.sampled_from([0.0, 0.3, 3.0]),
    bonus=st.sampled_from([0.0, 1.0]),
)
def test_a_certified_list_is_the_best_of_all(
    case: tuple[TableDecoder, BoolArray], width: int, k: int, seed: int, weight: float, bonus: float
) -> None:
    decoder, legal = case
    random = np.random.default_rng(seed)
    terms = (weight * random.uniform(-2, 0, len(legal))).astype(np.float32)
    extra = bonus * random.integers(0, 2, len(legal)).astype(np.float32)
    scores = decoder.steps().sum(axis=1) + terms + extra
    counts = legal_below(decoder.trie, legal)
    found = beam_search(decoder, decoder.trie, NOTHING, counts, width)
    headroom = Headroom(terms, legal, bonus).beyond(found.leaves)

    is_exact = is_certified(found, scores[found.leaves], k, headroom=lambda: headroom)

    best = np.sort(scores[legal])[::-1][:k]
    served = np.sort(scores[found.leaves])[::-1][:k]
    if is_exact:
        assert served == pytest.approx(best, abs=1e-5)
    # The tighter bound certifies whatever the looser one does.
    looser = Headroom(None, legal, bonus).beyond(found.leaves)
    assert is_exact or not is_certified(found, scores[found.leaves], k, headroom=lambda: looser)

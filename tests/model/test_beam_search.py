import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.availability import legal_below
from model.beam_search import BeamResult, beam_search
from model.certificate import is_certified
from model.trie import Trie
from model.types import BoolArray, FloatArray
from tests.model.table_decoder import NOTHING, TableDecoder, filtered_decoders

CASES = filtered_decoders()
WIDTHS = st.integers(1, 30)


def search(decoder: TableDecoder, legal: BoolArray, width: int) -> BeamResult:
    return beam_search(decoder, decoder.trie, NOTHING, legal_below(decoder.trie, legal), width)


@given(case=CASES)
def test_exhaustive_search_ranks_all_legal_items(case: tuple[TableDecoder, BoolArray]) -> None:
    decoder, legal = case
    found = search(decoder, legal, decoder.trie.item_count)

    steps = decoder.steps()
    assert sorted(found.leaves.tolist()) == np.flatnonzero(legal).tolist()
    assert found.log_probs.tolist() == steps[found.leaves].tolist()
    assert (np.diff(found.totals()) <= 1e-6).all()
    assert found.pruned == -np.inf


@given(case=CASES, width=WIDTHS)
def test_as_many_legal_items_as_the_width_allows(
    case: tuple[TableDecoder, BoolArray], width: int
) -> None:
    decoder, legal = case
    found = search(decoder, legal, width)

    assert len(found.leaves) == min(width, int(legal.sum()))
    assert len(set(found.leaves.tolist())) == len(found.leaves)
    assert legal[found.leaves].all()
    assert found.log_probs.tolist() == decoder.steps()[found.leaves].tolist()
    assert (np.diff(found.totals()) <= 1e-6).all()


@given(case=CASES, width=WIDTHS)
def test_log_probabilities_only_fall_along_a_path(
    case: tuple[TableDecoder, BoolArray], width: int
) -> None:
    found = search(*case, width)

    assert (np.diff(np.cumsum(found.log_probs, axis=1), axis=1) <= 1e-6).all()


@given(case=CASES, width=WIDTHS)
def test_pruned_bounds_every_legal_item_that_is_not_returned(
    case: tuple[TableDecoder, BoolArray], width: int
) -> None:
    decoder, legal = case
    found = search(decoder, legal, width)

    assert found.pruned is not None
    left = legal.copy()
    left[found.leaves] = False
    totals = decoder.steps().sum(axis=1)
    assert (totals[left] <= found.pruned + 1e-5).all()
    # Something was pruned exactly if something is missing.
    assert (found.pruned > -np.inf) == bool(left.any())


@given(case=CASES, width=WIDTHS, hidden=st.integers(0, 100))
def test_hiding_an_item_does_not_change_the_others(
    case: tuple[TableDecoder, BoolArray], width: int, hidden: int
) -> None:
    decoder, legal = case
    before = search(decoder, np.ones_like(legal), decoder.trie.item_count)
    fewer = legal.copy()
    fewer[hidden % len(legal)] = False
    after = search(decoder, fewer, width)

    scores = dict(zip(before.leaves.tolist(), before.log_probs.tolist(), strict=True))
    for leaf, log_probs in zip(after.leaves.tolist(), after.log_probs.tolist(), strict=True):
        assert log_probs == scores[leaf]


@given(
    case=CASES,
    width=WIDTHS,
    k=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
    weight=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
)
def test_a_certified_answer_is_the_exact_one(
    case: tuple[TableDecoder, BoolArray], width: int, k: int, seed: int, weight: float
) -> None:
    decoder, legal = case
    penalties = np.random.default_rng(seed).uniform(-1, 0, len(legal)).astype(np.float32)
    fused: FloatArray = decoder.steps().sum(axis=1) + np.float32(weight) * penalties
    found = search(decoder, legal, width)

    if is_certified(found, fused[found.leaves], k, headroom=lambda: 0.0):
        exact = np.sort(fused[legal])[::-1][:k]
        served = np.sort(fused[found.leaves])[::-1][:k]
        np.testing.assert_allclose(served, exact, atol=1e-5)


def test_certificates_are_given_and_withheld() -> None:
    result = BeamResult(np.arange(3), np.array([[-1.0], [-2.0], [-3.0]], np.float32), -2.5)
    fused = result.totals()

    assert is_certified(result, fused, 2, headroom=lambda: 0.0)
    assert not is_certified(result, fused, 3, headroom=lambda: 0.0)
    assert not is_certified(result, fused, 4, headroom=lambda: 0.0)
    # On the border float32 sums could deceive: no certificate.
    border = BeamResult(result.leaves, result.log_probs, -2.0)
    assert not is_certified(border, fused, 2, headroom=lambda: 0.0)
    everything = BeamResult(result.leaves, result.log_probs, -np.inf)
    assert is_certified(everything, fused, 100, headroom=lambda: 0.0)
    broken = BeamResult(result.leaves, result.log_probs, np.nan)
    assert not is_certified(broken, fused, 1, headroom=lambda: 0.0)


@pytest.mark.parametrize("width", [1, 3])
def test_a_narrow_beam_may_miss_the_best_item_and_says_so(width: int) -> None:
    # The likelier branch falls apart into many items, the other holds a single one.
    codes = np.array([[0, code] for code in range(6)] + [[1, 0]])
    trie, _ = Trie.build(codes)
    log_probs = np.zeros(trie.node_count, np.float32)
    log_probs[1:3] = np.log([0.6, 0.4])
    log_probs[3:9] = np.log(1 / 6)
    decoder = TableDecoder(trie, log_probs)

    found = search(decoder, np.ones(7, dtype=bool), width)

    # The best prefix left behind: the other branch, or one of six equal items.
    assert found.pruned == pytest.approx(np.log(0.4 if width == 1 else 0.1))
    best = int(found.leaves[0])
    assert best == (0 if width == 1 else 6)
    assert is_certified(found, found.totals(), 1, headroom=lambda: 0.0) == (width == 3)


def test_nothing_legal_gives_nothing() -> None:
    trie, _ = Trie.build(np.array([[0, 1], [2, 3]]))
    found = search(TableDecoder.random(trie, 0), np.zeros(2, dtype=bool), 5)

    assert found.leaves.shape == (0,)
    assert found.log_probs.shape == (0, 3)
    assert found.pruned == -np.inf

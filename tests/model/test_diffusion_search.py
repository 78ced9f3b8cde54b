"""The readable search against brute force over all items and all orders of their codes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.beam_search import BeamResult
from model.diffusion_search import (
    ANY_ORDER_ITEMS_MAX,
    MASKED,
    CodeTable,
    Unmasking,
    complete,
    diversity_penalty,
    largest_range,
    ordered_levels,
)
from model.trie import Trie
from model.types import BoolArray
from tests.model.masked_table import MaskedTable, tables
from tests.model.table_decoder import NOTHING

Case = tuple[MaskedTable, BoolArray, Unmasking]
SOME = settings(max_examples=60, deadline=None)
ENOUGH = 10_000
"""Beams that no small catalogue can fill."""


@SOME
@given(case=tables())
def test_an_unpruned_search_gives_every_item_the_best_score_of_all_orders(case: Case) -> None:
    table, legal, way = case
    found = table.search().search(NOTHING, legal, ENOUGH, Unmasking(way.ordered_levels))

    assert sorted(found.leaves.tolist()) == np.flatnonzero(legal).tolist()
    best = [max(table.scores(leaf, way.ordered_levels)) for leaf in found.leaves.tolist()]
    np.testing.assert_allclose(found.totals(), best, atol=1e-4)
    assert (np.diff(found.totals()) <= 0).all()


@SOME
@given(case=tables())
def test_an_unpruned_search_by_a_schedule_is_a_distribution(case: Case) -> None:
    table, legal, way = case
    order = way.in_order(table.codes.shape[1])
    found = table.search().search(
        NOTHING, np.ones_like(legal), ENOUGH, replace(order, diversity=False)
    )

    np.testing.assert_allclose(np.exp(found.totals()).sum(), 1, atol=1e-4)
    expected = [table.scores(leaf, table.codes.shape[1])[0] for leaf in found.leaves.tolist()]
    np.testing.assert_allclose(found.totals(), expected, atol=1e-4)


@SOME
@given(case=tables(), width=st.integers(1, 16))
def test_any_search_finds_as_many_legal_items_as_its_width(case: Case, width: int) -> None:
    table, legal, way = case
    found = table.search().search(NOTHING, legal, width, way)

    assert len(found.leaves) == min(width, int(legal.sum()))
    assert len(set(found.leaves.tolist())) == len(found.leaves)
    assert legal[found.leaves].all()
    assert (np.diff(found.totals()) <= 0).all()
    assert found.pruned is None
    for leaf, total in zip(found.leaves.tolist(), found.totals().tolist(), strict=True):
        scores = table.scores(leaf, way.ordered_levels)
        assert np.isfinite(total)
        assert total <= max(scores) + 1e-4
        if not way.diversity:
            assert min(abs(total - score) for score in scores) <= 1e-4


@SOME
@given(case=tables(), hidden=st.integers(0, 13))
def test_hiding_an_item_from_an_unpruned_search_does_not_change_the_others(
    case: Case, hidden: int
) -> None:
    table, legal, way = case
    way = replace(way, diversity=False)
    fewer = legal.copy()
    fewer[hidden % len(legal)] = False
    before = table.search().search(NOTHING, legal, ENOUGH, way)
    after = table.search().search(NOTHING, fewer, ENOUGH, way)

    scores = dict(zip(before.leaves.tolist(), before.totals().tolist(), strict=True))
    for leaf, total in zip(after.leaves.tolist(), after.totals().tolist(), strict=True):
        assert total == pytest.approx(scores[leaf], abs=1e-5)


@SOME
@given(case=tables())
def test_evidence_only_moves_probability_among_what_is_real(case: Case) -> None:
    table, legal, way = case
    everything, order = np.ones_like(legal), way.in_order(table.codes.shape[1])
    order = replace(order, diversity=False)

    known = table.search().search(NOTHING, everything, ENOUGH, order)
    plain = table.without_evidence().search().search(NOTHING, everything, ENOUGH, order)

    assert set(known.leaves.tolist()) == set(plain.leaves.tolist())
    np.testing.assert_allclose(np.exp(known.totals()).sum(), 1, atol=1e-4)


def test_evidence_of_an_item_is_that_of_its_codes_while_it_agrees() -> None:
    """Its first code leads to both items alike; below, evidence is of the second one alone."""
    codes = np.array([[0, 0, 0], [0, 1, 1], [1, 1, 2]])
    own, given = np.zeros((3, 3), np.float32), np.zeros((3, 3, 3, 3), np.float32)
    none, weights = np.zeros(3, np.float32), np.array([0, 0.5, 0], np.float32)
    evidence = np.array([0, 0.06, 5], np.float32)  # what the third has is not the second's
    table = MaskedTable(codes, own, given, none, evidence, weights)

    found = table.search().search(NOTHING, np.ones(3, bool), 3, Unmasking(1, schedule=(1, 2)))

    odds = (1 + 0.06 / 0.02) ** 0.5
    expected = {2: 1 / 2, 1: odds / (1 + odds) / 2, 0: 1 / (1 + odds) / 2}
    for leaf, total in zip(found.leaves.tolist(), found.totals().tolist(), strict=True):
        assert np.exp(total) == pytest.approx(expected[leaf], rel=1e-5)


def test_beams_that_stand_for_the_same_item_do_not_cost_another_its_place() -> None:
    """Two beams, two items; the likeliest two half-unmasked IDs are both of the first item."""
    codes = np.array([[0, 0, 0], [0, 1, 1]])
    likely = np.array([[0, 0], [3, 0], [3, 0]], np.float32)
    given, none = np.zeros((3, 2, 3, 2), np.float32), np.zeros(2, np.float32)
    table = MaskedTable(codes, likely, given, none, none, np.zeros(3, np.float32))
    everything = np.ones(2, bool)

    alone = table.search()._search(NOTHING, everything, 2, Unmasking(1))
    found = table.search().search(NOTHING, everything, 2, Unmasking(1))

    assert alone.leaves.tolist() == [0]
    assert found.leaves.tolist() == [0, 1]


def test_completing_keeps_the_better_score_and_asks_only_when_needed() -> None:
    few = BeamResult(np.array([4, 7]), np.array([[-1.0], [-3.0]], np.float32), None)
    more = BeamResult(np.array([7, 2]), np.array([[-2.0], [-2.5]], np.float32), None)

    found = complete(few, lambda: more, 3)

    assert found.leaves.tolist() == [4, 7, 2]
    assert found.totals().tolist() == [-1.0, -2.0, -2.5]
    assert complete(few, lambda: pytest.fail("nothing is missing"), 2) is few


def test_the_penalty_grows_with_the_overlap_and_stays_finite() -> None:
    states = np.array([[1, 2], [1, 2], [1, 5], [1, MASKED], [9, MASKED], [MASKED, 5]])

    penalty = diversity_penalty(states, 2)

    whole, half = np.log(1 - np.log(2)), np.log(1 - np.log(1.5))
    np.testing.assert_allclose(penalty, [0, whole, half, whole, 0, 0], atol=1e-6)
    assert np.isfinite(diversity_penalty(np.full((3, 2), MASKED), 3)).all()
    assert (diversity_penalty(states, 0) == 0).all()


def test_the_penalty_lets_other_items_in() -> None:
    """Four near-copies crowd a third item out of two beams unless the copies are kept apart."""
    codes = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 2]])
    own = np.array([[0, 0, 0], [1.0, 0, 0], [0.1, 0, 0]], np.float32)
    given, none = np.zeros((3, 3, 3, 3), np.float32), np.zeros(3, np.float32)
    table = MaskedTable(codes, own, given, none, none, none)
    everything = np.ones(3, bool)
    order = Unmasking(1, schedule=(1, 2))

    plain = table.search().search(NOTHING, everything, 2, order)
    diverse = table.search().search(NOTHING, everything, 2, replace(order, diversity=True))

    assert plain.leaves.tolist() == [0, 1]
    assert diverse.leaves.tolist() == [0, 2]


def test_positions_are_taken_in_any_order_up_to_a_size_of_category() -> None:
    within = np.stack([np.arange(ANY_ORDER_ITEMS_MAX) // 256, np.arange(ANY_ORDER_ITEMS_MAX) % 256])
    codes = np.concatenate([np.zeros((1, ANY_ORDER_ITEMS_MAX), int), within]).T
    small, _ = Trie.build(codes)
    large, _ = Trie.build(np.concatenate([codes, codes[:1]]))

    assert largest_range(small, 1) == ANY_ORDER_ITEMS_MAX
    assert (ordered_levels(small, 1), ordered_levels(large, 1)) == (1, 3)
    assert ordered_levels(large, 2) == 2
    assert ordered_levels(small, 0) == 1  # without a taxonomy the first level stands for it


def test_a_code_that_nobody_had_is_the_mean_of_the_items_that_come_with_it() -> None:
    """A dead code's vector was never trained; others keep theirs, whoever comes."""
    codes = np.array([[0, 0], [0, 1], [1, 1]])
    table = CodeTable(
        codes,
        np.full((2, 4, 3), 7, np.float32),
        np.full((2, 4), -5, np.float32),
        np.ones(3, np.float32),
    )
    now = np.array([[0, 0], [0, 1], [0, 3], [1, 1], [2, 3]])
    items = np.arange(15, dtype=np.float32).reshape(5, 3)

    grown = table.over(now, items, np.array([2, 4]))

    assert grown.vectors[0, 2].tolist() == items[4].tolist()
    assert grown.vectors[1, 3].tolist() == ((items[2] + items[4]) / 2).tolist()
    assert grown.biases[0, 2] == 0
    assert grown.biases[1, 3] == np.float32(np.log(2))
    grown.vectors[0, 2] = grown.vectors[1, 3] = 7
    grown.biases[0, 2] = grown.biases[1, 3] = -5
    assert (grown.vectors == 7).all()
    assert (grown.biases == -5).all()
    assert (table.vectors == 7).all()
    assert grown.codes is now


def test_openings_say_what_may_be_unmasked_when() -> None:
    assert Unmasking(1).openings(3).astype(int).tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 1]]
    order = Unmasking(1, schedule=(2, 1)).openings(3).astype(int).tolist()
    assert order == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_buckets_start_at_the_first_item_with_the_same_codes() -> None:
    codes = np.array([[0, 1], [0, 1], [0, 2], [1, 2], [1, 2]])
    nothing = np.zeros((2, 3), np.float32)

    assert CodeTable(codes, nothing, nothing, nothing[:, 0]).first_of_bucket.tolist() == [
        0,
        0,
        2,
        3,
        3,
    ]

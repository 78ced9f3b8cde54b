"""Explanations can be checked: sums along a way, differences between two histories."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.beam_search import BeamResult
from model.bundle import Bundle
from model.decoder import SearchTree
from model.explain import HISTORY_EXPLAINED, leaf_log_probs
from model.query import Query, Recommendation
from model.recent_times import RecentTimes
from model.recommender import Recommender
from model.types import AnyArray, FloatArray, IntArray
from tests.model.table_decoder import NOTHING, TableDecoder, decoders
from tests.model.test_recent_times import Clock
from tests.model.training.evaluation.toy_bundle import ToyGraphs, toy_bundle


@pytest.fixture(scope="module")
def recommender(shop_bundle: Path) -> Recommender:
    return Recommender(Bundle.open(shop_bundle))


@given(decoder=decoders(), data=st.data())
def test_leaves_are_scored_as_brute_force_scores_them(
    decoder: TableDecoder, data: st.DataObject
) -> None:
    leaf = st.integers(0, decoder.trie.item_count - 1)
    leaves = np.array(data.draw(st.lists(leaf, min_size=1, max_size=6)))

    found = leaf_log_probs(decoder, decoder.trie, NOTHING, leaves)

    np.testing.assert_array_equal(found, decoder.steps()[leaves])


def test_the_way_narrows_down_to_the_items_probability(recommender: Recommender) -> None:
    bundle = recommender.bundle
    history = [bundle.catalog.item_id(leaf) for leaf in (7, 90, 200)]

    answer = recommender.recommend(Query(history, k=5, explain=True))

    for item in answer.items:
        assert item.explanation is not None
        assert item.level_log_probs is not None
        steps = item.explanation.way
        probabilities = [step.probability for step in steps]
        assert probabilities == sorted(probabilities, reverse=True)
        expected = np.exp(sum(item.level_log_probs))
        assert probabilities[-1] == pytest.approx(expected, rel=1e-3)
        leaf = bundle.catalog.known_leaf(item.item_id)
        assert steps[-1].place.first_leaf == leaf
        for step in steps:
            explored = recommender.recommend(
                Query(history, exclude_seen=False, path=step.place.path, choices=0)
            )
            assert explored.place is not None
            assert explored.place.probability == pytest.approx(step.probability, rel=1e-3)


def test_the_drop_is_the_difference_to_the_history_without_the_item(
    recommender: Recommender,
) -> None:
    catalog = recommender.bundle.catalog
    history = [catalog.item_id(leaf) for leaf in (7, 90, 7, 200)]

    answer = recommender.recommend(Query(history, k=3, explain=True))

    def log_probs(leaves: list[int]) -> dict[int, float]:
        with recommender.reading(np.array(leaves)) as h:
            every = recommender.search_exhaustively(h, excluded=np.empty(0, np.int64))
        return dict(zip(every.leaves.tolist(), every.totals().tolist(), strict=True))

    whole = log_probs([7, 90, 7, 200])
    for left_out, rest in ((200, [7, 90, 7]), (7, [90, 200]), (90, [7, 7, 200])):
        without = log_probs(rest)
        for item in answer.items:
            assert item.explanation is not None
            influences = {each.item_id: each for each in item.explanation.influences}
            assert [*influences] == [catalog.item_id(leaf) for leaf in (200, 7, 90)]
            leaf = catalog.known_leaf(item.item_id)
            drop = influences[catalog.item_id(left_out)].log_prob_drop
            assert drop == pytest.approx(whole[leaf] - without[leaf], abs=1e-3)


def test_a_single_item_cannot_be_left_out() -> None:
    answer = Recommender(toy_bundle()).recommend(Query("a", k=2, explain=True))

    assert all(item.explanation and not item.explanation.influences for item in answer.items)
    assert all(item.explanation and item.explanation.way for item in answer.items)


def test_popular_items_are_explained_by_their_share() -> None:
    bundle = toy_bundle()
    answer = Recommender(bundle).recommend(Query(k=2, explain=True))

    shares = (bundle.popularity + 1) / (bundle.popularity + 1).sum()
    for item, leaf in zip(answer.items, (0, 1), strict=True):
        assert item.explanation is not None
        assert item.explanation.influences == ()
        room, *_, last = item.explanation.way
        assert room.place.name == "Kitchen"
        assert room.probability == pytest.approx(shares[:4].sum())
        assert last.probability == pytest.approx(shares[leaf])


def test_only_the_newest_items_are_left_out(recommender: Recommender) -> None:
    catalog = recommender.bundle.catalog
    length = recommender.bundle.manifest.history_length
    history = [catalog.item_id(leaf) for leaf in range(length + 9)]

    (item,) = recommender.recommend(Query(history, k=1, explain=True)).items

    assert item.explanation is not None
    told = [each.item_id for each in item.explanation.influences]
    assert told == history[::-1][: min(HISTORY_EXPLAINED, length)]


def test_nothing_is_explained_unasked() -> None:
    answer = Recommender(toy_bundle()).recommend(Query("ab", k=2))

    assert [item.explanation for item in answer.items] == [None, None]


STEP_SECONDS = 2**-6


class TimedGraphs(ToyGraphs):
    """Take time of a clock of their own for a search, and for the children of some nodes."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def search(self, h: FloatArray, tree: SearchTree, counts: AnyArray, width: int) -> BeamResult:
        self.clock.passes(STEP_SECONDS)
        return super().search(h, tree, counts, width)

    def child_log_probs(
        self, h: FloatArray, nodes: IntArray, depth: int, tree: SearchTree
    ) -> FloatArray:
        self.clock.passes(STEP_SECONDS)
        return super().child_log_probs(h, nodes, depth, tree)


WAYS_SECONDS, INFLUENCE_SECONDS = 4 * STEP_SECONDS, 3 * STEP_SECONDS
"""The coarse nodes and three levels; three levels for each item that is left out."""


class TimedShop:
    """The toy bundle, which has explained and been explored once, without haste."""

    def __init__(self) -> None:
        self.clock = Clock()
        bundle = replace(toy_bundle(), graphs=TimedGraphs(self.clock))
        self.recommender = Recommender(bundle, RecentTimes(self.clock))
        self.explain(math.inf)
        self.explore(math.inf)

    def explain(self, seconds: float) -> Recommendation:
        query = Query("abcd", k=2, explain=True, deadline=self.clock() + seconds)
        return self.recommender.recommend(query)

    def explore(self, seconds: float) -> Recommendation:
        query = Query("abcd", k=2, choices=2, deadline=self.clock() + seconds)
        return self.recommender.recommend(query)


def told(answer: Recommendation) -> set[int]:
    """How many influences the items have."""
    return {len(item.explanation.influences) for item in answer.items if item.explanation}


def test_as_many_influences_are_told_as_there_is_time_for() -> None:
    shop = TimedShop()
    whole, begun = shop.explain(math.inf), shop.clock()
    seconds = STEP_SECONDS + WAYS_SECONDS + 4.5 * INFLUENCE_SECONDS

    answer = shop.explain(seconds)

    assert shop.clock() - begun <= seconds
    assert (told(whole), whole.is_partly_explained) == ({4}, False)
    assert (told(answer), answer.is_partly_explained) == ({2}, True)
    assert answer.levels is None
    for some, every in zip(answer.items, whole.items, strict=True):
        assert some.explanation is not None
        assert every.explanation is not None
        assert some.explanation.way == every.explanation.way
        assert some.explanation.influences == every.explanation.influences[:2]


def test_without_time_the_way_is_told_by_shares() -> None:
    shop = TimedShop()
    begun = shop.clock()

    answer = shop.explain(WAYS_SECONDS)

    assert shop.clock() - begun <= WAYS_SECONDS
    assert answer.levels is None
    assert answer.is_partly_explained
    shares = shop.recommender.bundle.shares_before
    for item in answer.items:
        assert item.explanation is not None
        assert item.explanation.influences == ()
        place, probability = item.explanation.way[-1].place, item.explanation.way[-1].probability
        assert probability == shares[place.end_leaf] - shares[place.first_leaf]


def test_a_search_leaves_time_for_the_choices_after_it() -> None:
    shop = TimedShop()
    begun = shop.clock()
    shop.explore(math.inf)
    whole = shop.clock() - begun
    choosing = whole - STEP_SECONDS

    begun = shop.clock()
    assert shop.explore(whole).levels is None
    assert shop.clock() - begun <= whole
    begun = shop.clock()
    hurried = shop.explore(choosing - STEP_SECONDS / 2)
    assert hurried.levels == 0
    assert shop.clock() - begun <= choosing
    shares = shop.recommender.bundle.shares_before
    for choice in hurried.choices:
        share = shares[choice.place.end_leaf] - shares[choice.place.first_leaf]
        assert choice.probability == share

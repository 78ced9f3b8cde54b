"""Probabilities of places: sums over items, equal to brute force, shared out among the choices."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.availability import Availability
from model.browse import Place
from model.bundle import Bundle
from model.explore import Explorer, node_log_probs
from model.query import Query
from model.recommender import Recommender
from model.transitions import EvidenceBiases
from model.types import BoolArray, IntArray
from tests.model.table_decoder import NOTHING, TableDecoder, decoders
from tests.model.training.evaluation.toy_bundle import toy_bundle

MANY = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def recommender(shop_bundle: Path) -> Recommender:
    return Recommender(Bundle.open(shop_bundle))


@given(decoder=decoders(), data=st.data())
def test_the_probability_of_nodes_is_the_sum_over_their_items(
    decoder: TableDecoder, data: st.DataObject
) -> None:
    trie = decoder.trie
    depth = data.draw(st.integers(0, trie.levels + 1))
    bounds = st.integers(trie.depth_start[depth], trie.depth_start[depth + 1])
    first, end = data.draw(
        st.tuples(bounds, bounds).map(sorted).filter(lambda pair: pair[0] < pair[1])
    )

    found = node_log_probs(decoder, trie, NOTHING, depth, (first, end))

    items = np.exp(decoder.steps().sum(axis=1))
    starts, ends = trie.leaf_ranges(np.arange(first, end), depth)
    expected = [items[a:b].sum() for a, b in zip(starts, ends, strict=True)]
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-4)


@st.composite
def walks(draw: st.DrawFn, bundle: Bundle) -> Place:
    """A place that is reached by some clicks."""
    place = bundle.browse.root
    for _ in range(draw(st.integers(0, 5))):
        choices = [each for each in bundle.browse.choices(place) if each.kind != "item"]
        if choices:
            place = draw(st.sampled_from(choices))
    return place


@MANY
@given(data=st.data())
def test_choices_share_out_the_probability_of_their_place(
    recommender: Recommender, data: st.DataObject
) -> None:
    bundle = recommender.bundle
    ids = [bundle.catalog.item_id(leaf) for leaf in range(len(bundle.catalog))]
    history = data.draw(st.lists(st.sampled_from(ids), max_size=6))
    place = data.draw(walks(bundle))

    answer = recommender.recommend(
        Query(history, k=3, exclude_seen=False, path=place.path, choices=2)
    )

    assert answer.place is not None
    assert answer.place.place == place
    total = sum(choice.probability for choice in answer.choices)
    assert total == pytest.approx(answer.place.probability, rel=1e-5)
    assert sum(choice.live_items for choice in answer.choices) == answer.place.live_items
    assert answer.place.live_items == place.items
    for one, other in pairwise(answer.choices):
        assert one.probability >= other.probability
    for choice in answer.choices:
        assert len(choice.best) == min(2, choice.live_items)
        assert len(set(choice.best)) == len(choice.best)
        for leaf in choice.best:
            assert choice.place.first_leaf <= leaf < choice.place.end_leaf
    for item in answer.items:
        leaf = bundle.catalog.known_leaf(item.item_id)
        assert place.first_leaf <= leaf < place.end_leaf
    assert len(answer.items) == min(3, place.items)


def test_probabilities_equal_exhaustive_search(recommender: Recommender) -> None:
    bundle = recommender.bundle
    history = [bundle.catalog.item_id(leaf) for leaf in (3, 50, 120)]
    with recommender.reading(np.array([3, 50, 120])) as h:
        every = recommender.search_exhaustively(h, excluded=np.empty(0, np.int64))
    of_leaf = np.zeros(len(bundle.catalog))
    of_leaf[every.leaves] = np.exp(every.totals())
    assert of_leaf.sum() == pytest.approx(1, rel=1e-5)

    for choice in recommender.recommend(Query(history, exclude_seen=False, choices=0)).choices:
        place = choice.place
        expected = of_leaf[place.first_leaf : place.end_leaf].sum()
        assert choice.probability == pytest.approx(expected, rel=1e-4)
        assert choice.best == ()


def test_the_best_items_of_a_choice_are_those_a_search_there_finds_first() -> None:
    recommender = Recommender(toy_bundle())

    answer = recommender.recommend(Query("ae", choices=2, exclude=["c"]))

    for choice in answer.choices:
        there = recommender.recommend(Query("ae", k=2, path=choice.place.path, exclude=["c"]))
        names = [recommender.bundle.catalog.item_id(leaf) for leaf in choice.best]
        assert names == [item.item_id for item in there.items]
        assert not {"a", "c", "e"} & set(names)


def test_without_a_history_the_shares_of_the_training_events_count() -> None:
    bundle = toy_bundle()
    answer = Recommender(bundle).recommend(Query(choices=1))

    assert answer.place is not None
    assert answer.place.probability == pytest.approx(1)
    shares = (bundle.popularity + 1) / (bundle.popularity + 1).sum()
    expected = {"Kitchen": shares[:4].sum(), "Bath": shares[4:8].sum(), "Garden": shares[8:].sum()}
    assert {choice.place.name: choice.probability for choice in answer.choices} == pytest.approx(
        expected
    )
    assert [choice.best for choice in answer.choices] == [(0,), (4,), (8,)]


def test_choices_without_items_that_pass_are_left_out() -> None:
    recommender = Recommender(toy_bundle())

    answer = recommender.recommend(Query("a", choices=9, exclude=list("efgh")))

    assert {choice.place.name: choice.live_items for choice in answer.choices} == {
        "Kitchen": 3,  # "a" has been seen
        "Garden": 4,
    }


def test_an_item_has_no_choices() -> None:
    bundle = toy_bundle()
    place = bundle.browse.way(5)[-1]
    answer = Recommender(bundle).recommend(Query("a", path=place.path, choices=3))

    assert answer.choices == ()
    assert [item.item_id for item in answer.items] == ["f"]
    biases = EvidenceBiases(bundle.tree, bundle.transitions, bundle.manifest.score.evidence_weights)
    with biases.after(np.array([0])):
        (probability,) = Explorer(bundle, biases.tree).probabilities(
            [place], Recommender(bundle).encode(np.array([0]))
        )
    assert answer.place is not None
    assert answer.place.probability == pytest.approx(probability)


class CountedAvailability(Availability):
    """Tells of how many items it was asked at once."""

    asked: tuple[int, ...] = ()

    def legal(self, leaves: IntArray) -> BoolArray:
        self.asked = (*self.asked, np.size(leaves))
        return super().legal(leaves)


@pytest.mark.parametrize(("ranked", "asked"), [(range(12), ()), (range(8), (4,)), ((), (4, 4, 4))])
def test_items_are_read_only_where_a_search_has_found_too_few(
    ranked: Iterable[int], asked: tuple[int, ...]
) -> None:
    bundle = toy_bundle()
    availability = CountedAvailability(bundle.tree.trie, np.arange(12) != 9)
    found = np.array([*ranked], np.int64)

    choices = Explorer(bundle, bundle.tree).choices(
        bundle.browse.root, None, found[found != 9], availability, 2
    )

    assert availability.asked == asked
    assert [choice.live_items for choice in choices] == [4, 4, 3]
    assert [choice.best for choice in choices] == [(0, 1), (4, 5), (8, 10)]

"""Boosts and pins, against every item's score worked out."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.attributes import AnyOf, Range
from model.boosts import Boost, BoostSums
from model.errors import FilterError, UnknownCategoryError
from model.query import Query
from model.recommender import Recommender
from tests.model.training.evaluation.toy_bundle import ITEMS, toy_bundle

SOME = settings(max_examples=40, deadline=None)


BUNDLE = toy_bundle(beam_width=2)
"""So narrow that what is boosted has to be searched for."""


def shifted(boost: Boost) -> str:
    sums = BoostSums(BUNDLE.catalog, BUNDLE.attributes).of([boost])
    return "" if sums is None else "".join(np.array(ITEMS)[sums == np.float32(boost.shift)])


def test_a_boost_is_of_the_items_that_fulfil_all_its_conditions() -> None:
    bath = (("Home", "Bath"),)
    cheap = (("price", Range(None, 5)),)

    assert shifted(Boost(1, items=("a", "?", "l"))) == "al"
    assert shifted(Boost(1, categories=bath)) == "efgh"
    assert shifted(Boost(1, filters=cheap)) == "abcdef"
    assert shifted(Boost(-2, categories=bath, filters=cheap)) == "ef"
    assert shifted(Boost(1, items=("a", "e"), categories=bath)) == "e"
    assert shifted(Boost(1, items=("?",))) == ""


def test_shifts_add_up_and_none_is_no_boost() -> None:
    sums = BoostSums(BUNDLE.catalog, BUNDLE.attributes)

    both = sums.of([Boost(1, items=("a",)), Boost(2, items=("a", "b"))])

    assert both is not None
    assert both[:3].tolist() == [3, 2, 0]
    assert sums.of([]) is None
    assert sums.of([Boost(1, items=("a",)), Boost(-1, items=("a",))]) is None


def test_boosts_of_what_there_is_not_are_refused() -> None:
    sums = BoostSums(BUNDLE.catalog, BUNDLE.attributes)

    with pytest.raises(UnknownCategoryError):
        sums.of([Boost(1, categories=(("Attic",),))])
    with pytest.raises(FilterError):
        sums.of([Boost(1, filters=(("colour", AnyOf(("red",))),))])


@SOME
@given(
    history=st.text(alphabet="abcdefghijkl", max_size=3),
    boosted=st.sets(st.sampled_from(ITEMS), min_size=1),
    shift=st.sampled_from([-15.0, -1.0, 1.0, 15.0]),
    k=st.integers(1, 5),
)
def test_the_best_items_by_the_shifted_score_are_answered(
    history: str, boosted: set[str], shift: float, k: int
) -> None:
    recommender = Recommender(BUNDLE)
    everything = Query(history, k=12, beam=12, exclude_seen=False)
    plain = {item.item_id: item.score for item in recommender.recommend(everything).items}
    wanted = {item: score + shift * (item in boosted) for item, score in plain.items()}
    boosts = (Boost(shift, items=tuple(sorted(boosted))),)

    answer = recommender.recommend(replace(everything, k=k, beam=None, boosts=boosts))

    found = {item.item_id: item.score for item in answer.items}
    # Without a history the answer is the fallback chain: "l", which no event has, comes last in it.
    ranked = {item: score for item, score in wanted.items() if history or item != "l"}
    best = sorted(ranked.values(), reverse=True)[:k]
    np.testing.assert_allclose(list(found.values()), best, atol=1e-4)
    for item in answer.items:
        np.testing.assert_allclose(item.score, wanted[item.item_id], atol=1e-4)
        assert (item.source == "boosted") is (item.item_id in boosted and shift > 0)
    assert answer.certified is None


@SOME
@given(
    history=st.text(alphabet="abcdefghijkl", max_size=3),
    pins=st.dictionaries(st.integers(1, 8), st.sampled_from([*ITEMS, "?"]), max_size=4),
    exclude=st.text(alphabet="abcdefghijkl", max_size=8),
    price=st.integers(0, 11),
    k=st.integers(0, 8),
)
def test_pins_stand_at_their_positions_unless_they_may_not_be_answered(
    history: str, pins: dict[int, str], exclude: str, price: int, k: int
) -> None:
    pins = {place: item for place, item in pins.items() if [*pins.values()].count(item) == 1}
    recommender = Recommender(BUNDLE)
    query = Query(history, k=k, exclude=exclude, filters={"price": Range(None, price)})
    legal = set(ITEMS[: price + 1]) - set(exclude) - set(history)

    answer = recommender.recommend(replace(query, pins=pins))

    ids = [item.item_id for item in answer.items]
    assert len(set(ids)) == len(ids) == min(k, len(legal))
    assert set(ids) <= legal
    assert [item.rank for item in answer.items] == list(range(1, len(ids) + 1))
    placed = {place: item for place, item in pins.items() if item in legal and place <= k}
    assert {i.item_id for i in answer.items if i.source == "pinned"} == set(placed.values())
    for place, item in placed.items():
        if place <= len(ids) - sum(other > place for other in placed):
            assert ids[place - 1] == item
    others = [item for item in ids if item not in placed.values()]
    rest = replace(query, exclude=[*exclude, *placed.values()], k=k - len(placed))
    assert others == [item.item_id for item in recommender.recommend(rest).items]
    if placed:
        assert answer.certified is None

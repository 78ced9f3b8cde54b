"""Boosts and pins, against every item's score worked out."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.attributes import AnyOf, Range
from model.boosts import POOLS_MOST, Boost, Boosted, BoostSums, bands
from model.errors import BoostError
from model.query import Query
from model.recommender import Recommender
from tests.model.training.evaluation.toy_bundle import ITEMS, toy_bundle

SOME = settings(max_examples=40, deadline=None)


BUNDLE = toy_bundle(beam_width=2)
"""So narrow that what is boosted has to be searched for."""


def shifted(boost: Boost) -> str:
    sums = BoostSums(BUNDLE.catalog, BUNDLE.attributes).of([boost])
    return "" if sums is None else "".join(np.array(ITEMS)[sums.sums == np.float32(boost.shift)])


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
    assert both.sums[:3].tolist() == [3, 2, 0]
    assert both.different.tolist() == [3, 2, 0]
    assert sums.of([]) is None
    assert sums.of([Boost(1, items=("a",)), Boost(-1, items=("a",))]) is None


def test_boosts_of_what_there_is_not_are_refused() -> None:
    sums = BoostSums(BUNDLE.catalog, BUNDLE.attributes)

    with pytest.raises(BoostError, match="Attic") as attic:
        sums.of([Boost(1, categories=(("Attic",),))])
    with pytest.raises(BoostError, match="'colour' is no attribute") as colour:
        sums.of([Boost(1, items=("a",)), Boost(1, filters=(("colour", AnyOf(("red",))),))])
    assert (attic.value.place, colour.value.place) == (0, 1)


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
    shifts=st.dictionaries(
        st.sampled_from(ITEMS), st.sampled_from([-15.0, -5.0, -0.5, 0.5, 5.0, 15.0]), min_size=6
    ),
    k=st.integers(1, 2),
)
def test_a_strong_boost_is_not_missed_beside_many_weak_ones(
    history: str, shifts: dict[str, float], k: int
) -> None:
    recommender = Recommender(BUNDLE)
    everything = Query(history, k=12, beam=12, exclude_seen=False, exclude="l")
    plain = {item.item_id: item.score for item in recommender.recommend(everything).items}
    boosts = tuple(Boost(shift, items=(item,)) for item, shift in shifts.items())

    answer = recommender.recommend(replace(everything, k=k, beam=None, boosts=boosts))

    best = sorted((score + shifts.get(item, 0) for item, score in plain.items()), reverse=True)[:k]
    np.testing.assert_allclose([item.score for item in answer.items], best, atol=1e-4)


@SOME
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    gaps=st.lists(st.sampled_from([0.01, 0.1, 1.0, 10.0]), min_size=30, max_size=30),
    found=st.integers(1, 20),
)
def test_bands_are_few_and_put_together_only_what_they_have_to(
    sizes: list[int], gaps: list[float], found: int
) -> None:
    sums = -np.cumsum(gaps[: len(sizes)]).astype(np.float32)

    cut = bands(sums, np.array(sizes), found)

    assert [place for first, end in cut for place in range(first, end)] == [*range(len(sizes))]
    assert 1 <= len(cut) <= POOLS_MOST
    missed = [sums[i] - sums[j - 1] for i, j in cut if sum(sizes[i:j]) > found]
    least = _least_spread(sums.tolist(), sizes, found)
    assert max(missed, default=0.0) <= max(2 * least, 0.05 if least else 0.0) + 1e-5


def _least_spread(sums: list[float], sizes: list[int], found: int) -> float:
    """How far apart the sums of a band have to be, that one search does not find whole."""
    # worst[j][b]: over all ways to cut the first j sums into b bands.
    worst = [[0.0] + [np.inf] * POOLS_MOST]
    for j in range(1, len(sums) + 1):
        spreads = [0.0 if sum(sizes[i:j]) <= found else sums[i] - sums[j - 1] for i in range(j)]
        row = [min(max(worst[i][b], spreads[i]) for i in range(j)) for b in range(POOLS_MOST)]
        worst.append([np.inf, *row])
    return min(worst[-1])


def test_what_boosts_cost_is_bounded_and_nothing_illegal_is_searched_for() -> None:
    sums = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    few = np.zeros(20_000, bool)
    few[[3, 5]] = True

    many = [*Boosted.by(sums).pools(np.ones(20_000, bool), found=40)]
    higher, *others = [*Boosted.by(sums).pools(few, found=40)]

    assert len(many) <= POOLS_MOST
    assert np.sum(many, axis=0).max() == 1
    assert not np.sum(many, axis=0)[sums.argmin()]
    assert [pool[sums.argmax()] for pool in many] == [True] + [False] * (len(many) - 1)
    assert not others
    assert higher[[3, 5]].tolist() == [sums[3] > sums[5], sums[5] > sums[3]]


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

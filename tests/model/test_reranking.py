"""Orders that are not the score's alone, against brute force and by their frequencies."""

from collections import Counter
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from model.bundle import Bundle
from model.query import Query
from model.recommender import Recommender
from model.reranking import SMOOTHING, calibrated_order, drawn_order, lacking_groups
from model.types import FloatArray, IntArray
from tests.model.training.evaluation.toy_bundle import toy_bundle

SCORES = st.floats(-9, 0, width=32).map(lambda score: round(score, 2))


def value(
    chosen: list[int], scores: FloatArray, groups: IntArray, history: IntArray, diversity: float
) -> float:
    """What the greedy choice maximises with each item, written out."""
    spread = scores.max() - scores.min() or 1
    relevance = sum(float(scores[place] - scores.min()) / spread for place in chosen)
    divergence = 0.0
    for group in set(history.tolist()):
        wanted = float((history == group).mean())
        got = sum(int(groups[place] == group) for place in chosen) / len(chosen)
        divergence += wanted * np.log(wanted / ((1 - SMOOTHING) * got + SMOOTHING * wanted))
    return float((1 - diversity) * relevance - diversity * divergence)


@given(data=st.data(), diversity=st.floats(0, 1), count=st.integers(1, 12))
def test_every_item_chosen_is_the_best_one_to_add(
    data: st.DataObject, diversity: float, count: int
) -> None:
    codes = st.integers(0, 3)
    scores = data.draw(npst.arrays(np.float32, count, elements=SCORES))
    groups = data.draw(npst.arrays(np.int64, count, elements=codes))
    history = data.draw(npst.arrays(np.int64, st.integers(1, 5), elements=codes))

    order = calibrated_order(scores, groups, history, 6, diversity).tolist()

    assert len(set(order)) == len(order) == min(6, count)
    for end in range(1, len(order) + 1):
        values = {
            place: value([*order[: end - 1], place], scores, groups, history, diversity)
            for place in set(range(count)) - set(order[: end - 1])
        }
        assert values[order[end - 1]] == pytest.approx(max(values.values()), abs=1e-5)


def test_shares_of_the_history_come_back_in_the_list() -> None:
    scores = -np.arange(20, dtype=np.float32)
    groups = np.repeat([0, 1], 10)  # the best ten are of one group
    history = np.array([0, 0, 1, 1])

    assert groups[calibrated_order(scores, groups, history, 4, 0.0)].tolist() == [0, 0, 0, 0]
    assert sorted(groups[calibrated_order(scores, groups, history, 4, 1.0)]) == [0, 0, 1, 1]


def test_draws_come_as_often_as_their_propensities_say() -> None:
    log_probs = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    chance = np.random.default_rng(5)
    draws = 6_000
    seen: Counter[tuple[int, ...]] = Counter()
    told: dict[tuple[int, ...], float] = {}
    for _ in range(draws):
        order, propensities = drawn_order(log_probs, 2, 1.0, chance)
        seen[tuple(order.tolist())] += 1
        told[tuple(order.tolist())] = float(propensities.prod())

    assert set(told) == set(permutations(range(3), 2))
    assert told[0, 1] == pytest.approx(0.5 * 0.3 / 0.5, rel=1e-5)
    assert sum(told.values()) == pytest.approx(1, rel=1e-5)
    for order_, propensity in told.items():
        deviation = (draws * propensity * (1 - propensity)) ** 0.5
        assert abs(seen[order_] - draws * propensity) < 5 * deviation


def test_a_low_temperature_orders_by_probability() -> None:
    log_probs = np.array([-3.0, -1.0, -2.0], np.float32)

    order, propensities = drawn_order(log_probs, 9, 1e-3, np.random.default_rng(0))

    assert order.tolist() == [1, 2, 0]
    np.testing.assert_allclose(propensities, 1)


@pytest.mark.parametrize("temperature", [1e-5, 1e-12, 5e-324])
def test_no_temperature_is_too_low_for_a_propensity(temperature: float) -> None:
    log_probs = np.array([-3.0, -1.0, -400.0, -2.0], np.float32)

    order, propensities = drawn_order(log_probs, 9, temperature, np.random.default_rng(0))

    assert order.tolist() == [1, 3, 0, 2]
    np.testing.assert_allclose(propensities, 1)


def test_diversity_mixes_the_rooms_of_the_history() -> None:
    recommender = Recommender(toy_bundle(beam_width=12))
    history = "aei"  # one item of each room

    plain = recommender.recommend(Query(history, k=6))
    mixed = recommender.recommend(Query(history, k=6, diversity=1.0))

    assert Counter(item.path[1] for item in mixed.items) == {"Kitchen": 2, "Bath": 2, "Garden": 2}
    assert mixed.certified is None
    assert plain.certified is not None
    assert recommender.recommend(Query(history, k=6, diversity=0.0)).items == plain.items


def test_a_calibrated_list_has_what_the_search_alone_would_not_find(shop_bundle: Path) -> None:
    """Where one category has nearly all probability, the beam holds nothing of the others."""
    bundle = Bundle.open(shop_bundle)
    recommender = Recommender(bundle)
    groups: dict[int, list[str]] = {}
    for leaf in bundle.by_popularity:
        code = int(bundle.catalog.codes[leaf, 0])
        groups.setdefault(code, []).append(bundle.catalog.item_id(int(leaf)))
    for often, rare in pairwise(groups):
        history = [groups[rare][0], *groups[often][:5]]
        query = Query(history, k=6, diversity=1.0, exclude_seen=False)
        items = recommender.recommend(query).items
        assert Counter(item.semantic_id[0] for item in items) == {often: 5, rare: 1}


def test_groups_with_fewer_items_than_places_lack_some() -> None:
    history = np.array([7, 7, 7, 2])
    assert lacking_groups(np.array([7, 7, 7, 2]), history, 4).tolist() == []
    assert lacking_groups(np.array([7, 7, 9, 2]), history, 4).tolist() == [7]
    assert lacking_groups(np.array([7, 7, 7, 7]), history, 4).tolist() == [2]
    assert lacking_groups(history, history[:0], 4).tolist() == []


def test_exploration_draws_legal_items_and_tells_their_propensities() -> None:
    recommender = Recommender(toy_bundle())

    answers = [recommender.recommend(Query("a", k=4, exploration=1.0)) for _ in range(30)]

    assert len({tuple(item.item_id for item in answer.items) for answer in answers}) > 1
    for answer in answers:
        assert answer.certified is None
        assert len({item.item_id for item in answer.items} - {"a"}) == 4
        assert all(item.propensity and 0 < item.propensity <= 1 for item in answer.items)
    plain = recommender.recommend(Query("a", k=4))
    assert [item.propensity for item in plain.items] == [None] * 4

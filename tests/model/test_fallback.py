"""Every link of the fallback chain, on a bundle whose numbers are known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.attributes import Range
from model.availability import Availability
from model.beam_search import BeamResult
from model.bundle import Bundle
from model.decoder import SearchTree
from model.fallback import LIKELY_MASS, FallbackChain
from model.query import Query, Recommendation
from model.recommender import Recommender
from model.types import AnyArray, FloatArray
from tests.model.training.evaluation.toy_bundle import ITEMS, ToyGraphs, toy_bundle

SOME = settings(max_examples=40, deadline=None)


class ForgetfulGraphs(ToyGraphs):
    """A search that comes back with one item."""

    def search(self, h: FloatArray, tree: SearchTree, counts: AnyArray, width: int) -> BeamResult:
        found = super().search(h, tree, counts, width)
        return BeamResult(found.leaves[:1], found.log_probs[:1], None)


class UnorderedGraphs(ForgetfulGraphs):
    """One that cannot score level by level, like a diffusion decoder."""

    can_step = False


def bundle_with(graphs: ToyGraphs | None = None, default_list: tuple[str, ...] = ()) -> Bundle:
    """Three rooms of four items: only the first two of each room have ever been looked at."""
    popularity = np.array([9, 8, 0, 0, 7, 6, 0, 0, 5, 4, 0, 0])
    made = graphs or ToyGraphs()
    return replace(toy_bundle(), popularity=popularity, graphs=made, default_list=default_list)


def by_source(answer: Recommendation) -> dict[str, str]:
    """The ids that each source gave, in their order."""
    sources = dict.fromkeys(item.source for item in answer.items)
    return {
        source: "".join(item.item_id for item in answer.items if item.source == source)
        for source in sources
    }


def scores_fall(answer: Recommendation) -> bool:
    scores = [item.score for item in answer.items]
    return scores == sorted(scores, reverse=True)


def test_generated_is_followed_by_likely_categories_by_popular_and_by_the_default_list() -> None:
    recommender = Recommender(bundle_with(graphs=ForgetfulGraphs()))

    answer = recommender.recommend(Query("l", k=12, exclude_seen=False))

    chain = by_source(answer)
    assert list(chain) == ["generated", "popular_in_category", "popular", "default"]
    assert sorted("".join(chain.values())) == sorted(ITEMS)
    seen = set("abefij") - set(chain["generated"])
    assert set(chain["popular_in_category"] + chain["popular"]) == seen
    # What is likely is what the generator says of the coarse codes.
    h = recommender.encode(np.array([11]))
    likely = recommender.search_exhaustively(h, excluded=np.empty(0, np.int64))
    mass = np.zeros(3)
    np.add.at(mass, likely.leaves // 4, np.exp(likely.totals()))
    order = np.argsort(-mass)
    rooms = order[: 1 + int(np.searchsorted(np.cumsum(mass[order]), LIKELY_MASS))]
    assert {ITEMS.index(item) // 4 for item in chain["popular_in_category"]} <= set(rooms)
    assert not {ITEMS.index(item) // 4 for item in chain["popular"]} & set(rooms)
    assert scores_fall(answer)


def test_without_steps_the_categories_of_the_history_are_likely() -> None:
    recommender = Recommender(bundle_with(graphs=UnorderedGraphs()))

    answer = recommender.recommend(Query("iij", k=12, exclude="ij", exclude_seen=False))
    mixed = recommender.recommend(Query("efie", k=6, exclude_seen=False, exclude="cdghkl"))

    chain = by_source(answer)
    assert "popular_in_category" not in chain  # both popular ones of the room are excluded
    in_rooms = by_source(mixed)["popular_in_category"]
    assert set(in_rooms) | set(by_source(mixed)["generated"]) >= set("ef")
    assert in_rooms[0] in "ef"  # three of four visits were to this room


def test_with_no_time_for_any_level_popular_items_of_the_historys_categories_come_first() -> None:
    recommender = Recommender(bundle_with())
    recommender.recommend(Query("g"))  # so that it knows how long a search takes

    answer = recommender.recommend(Query("g", k=8, deadline=0.0))

    assert answer.levels == 0
    assert by_source(answer) == {
        "popular_in_category": "ef",
        "popular": "abij",
        "default": "ck",
    }
    assert scores_fall(answer)
    assert answer.certified is None


def test_a_cold_start_gets_popular_items_and_then_the_default_list() -> None:
    plain = Recommender(bundle_with()).recommend(Query(k=12))
    chosen = Recommender(bundle_with(default_list=("l", "a", "g"))).recommend(Query(k=12))

    # By turns: the third of each room, then the fourth.
    assert by_source(plain) == {"popular": "abefij", "default": "cgkdhl"}
    assert by_source(chosen) == {"popular": "abefij", "default": "lgckdh"}
    assert scores_fall(plain)


def test_without_any_event_the_default_list_is_the_answer() -> None:
    bundle = bundle_with(default_list=("k", "b"))
    unseen = replace(bundle, popularity=np.zeros(12, np.int64))

    answer = Recommender(unseen).recommend(Query(k=5))

    assert by_source(answer) == {"default": "kbaei"}


@SOME
@given(
    history=st.text(alphabet="abcdefghijkl?", max_size=4),
    exclude=st.text(alphabet="abcdefghijkl", max_size=10),
    price=st.integers(0, 11),
    k=st.integers(0, 13),
    hurried=st.booleans(),
    graphs=st.sampled_from([ToyGraphs(), ForgetfulGraphs(), UnorderedGraphs()]),
)
def test_k_items_come_back_while_k_legal_ones_exist_and_all_pass_the_filters(
    history: str, exclude: str, price: int, k: int, hurried: bool, graphs: ToyGraphs
) -> None:
    recommender = Recommender(bundle_with(graphs=graphs))
    if hurried:
        recommender.recommend(Query("a"))
    filters = {"price": Range(None, price)}  # an item's price is its place
    deadline = 0.0 if hurried else np.inf

    answer = recommender.recommend(
        Query(history, k=k, exclude=exclude, filters=filters, deadline=deadline)
    )

    legal = set(ITEMS[: price + 1]) - set(exclude) - set(history)
    ids = [item.item_id for item in answer.items]
    assert len(set(ids)) == len(ids) == min(k, len(legal))
    assert set(ids) <= legal
    assert scores_fall(answer)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [((0.9, 0.1, 0.0), "ab"), ((0.5, 0.4, 0.1), "abef"), ((0.0, 1.0, 0.0), "ef")],
)
def test_likely_are_the_fewest_categories_that_hold_most_of_the_probability(
    probabilities: tuple[float, ...], expected: str
) -> None:
    bundle = bundle_with()
    recommender = Recommender(bundle)
    with recommender._legal(Query(), np.empty(0, np.int64)) as availability:
        first, *_ = FallbackChain(bundle, bundle.tree).links(
            4, availability, np.empty(0, np.int64), np.array(probabilities)
        )

    assert first.source == "popular_in_category"
    assert sorted(ITEMS[leaf] for leaf in first.leaves.tolist()) == sorted(expected)
    assert np.diff(first.log_probs).max(initial=-1) <= 0
    # The share of the category times the share in it: 10 of the 21 smoothed events of the room.
    if expected == "ab":
        np.testing.assert_allclose(first.log_probs[0], np.log(0.9 * 10 / 21))


@SOME
@given(
    popularity=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    shifts=st.lists(st.sampled_from([-9.0, -0.1, 0.0, 0.1, 9.0]), min_size=12, max_size=12),
    excluded=st.sets(st.integers(0, 11)),
    likely=st.none() | st.permutations([0.6, 0.3, 0.1]),
    wanted=st.integers(0, 12),
)
def test_boosts_order_every_link_and_no_boosted_item_is_missed(
    popularity: list[int],
    shifts: list[float],
    excluded: set[int],
    likely: list[float] | None,
    wanted: int,
) -> None:
    bundle = replace(bundle_with(), popularity=np.array(popularity))
    exclude = [ITEMS[leaf] for leaf in excluded]
    with Recommender(bundle)._legal(Query(exclude=exclude), np.empty(0, np.int64)) as availability:
        links = FallbackChain(bundle, bundle.tree).links(
            wanted,
            availability,
            np.empty(0, np.int64),
            None if likely is None else np.array(likely),
            np.array(shifts, np.float32),
        )

    left = set(range(12)) - excluded
    for link in links:
        inside = _leaves_of(link.source, popularity, likely) & left
        assert {*link.leaves.tolist()} <= inside
        scores = {leaf: np.log(popularity[leaf] + 1) + shifts[leaf] for leaf in inside}
        if link.source == "popular_in_category":
            assert likely is not None
            room = [sum(popularity[start : start + 4]) + 4 for start in (0, 4, 8)]
            for leaf in inside:
                scores[leaf] += np.log(likely[leaf // 4] / room[leaf // 4])
        best = sorted(scores.values(), reverse=True)[:wanted]
        np.testing.assert_allclose([scores[leaf] for leaf in link.leaves.tolist()], best, atol=1e-5)
        left -= {*link.leaves.tolist()}
        wanted -= len(link.leaves)
    assert wanted == 0 or not left


def _leaves_of(source: str, popularity: list[int], likely: list[float] | None) -> set[int]:
    """The leaves that a link chooses from."""
    popular = {leaf for leaf in range(12) if popularity[leaf]}
    if source == "popular_in_category":
        assert likely is not None
        return {leaf for leaf in popular if likely[leaf // 4] > 0.1}
    return popular if source == "popular" else set(range(12))


class Watched(np.ndarray[Any, Any]):
    """Popularity that tells how many items were looked up at once."""

    looked_up: list[int]

    def __getitem__(self, places: Any) -> Any:
        self.looked_up.append(np.size(places))
        return np.asarray(self)[places]

    def __array_finalize__(self, source: Any) -> None:
        self.looked_up = []


def test_a_category_is_not_read_as_a_whole_for_its_most_popular_item() -> None:
    bundle = bundle_with()
    popularity = bundle.popularity.view(Watched)
    bundle = replace(bundle, popularity=popularity)
    chain = FallbackChain(bundle, bundle.tree)
    everything = Availability(bundle.tree.trie, np.ones(12, dtype=bool))
    popularity.looked_up.clear()

    (link,) = chain.links(1, everything, np.empty(0, np.int64), np.array([0.1, 0.8, 0.1]))

    assert link.leaves.tolist() == [4]
    assert max(popularity.looked_up) == 1

"""What is like an anchor comes first, on a bundle whose vectors are known."""

import numpy as np
import pytest

from model.likeness import LIKENESS_WEIGHT, Likeness
from model.query import Query
from model.recommender import Recommender
from model.types import AnyArray
from tests.model.training.evaluation.toy_bundle import ITEMS, toy_bundle

BUNDLE = toy_bundle(beam_width=2)


def cosines(anchor: str) -> AnyArray:
    vectors = BUNDLE.tree.item_vectors
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found: AnyArray = unit @ unit[ITEMS.index(anchor)]
    return found


def test_terms_fall_with_the_angle_to_the_nearest_anchor() -> None:
    likeness = Likeness(BUNDLE.tree, np.array([0, 4]))
    nearest = np.maximum(cosines("a"), cosines("e"))

    terms = likeness.terms(np.arange(12))

    np.testing.assert_allclose(terms, LIKENESS_WEIGHT * (nearest - 1), atol=1e-5)
    np.testing.assert_allclose(terms[[0, 4]], 0, atol=1e-5)


@pytest.mark.parametrize(("least", "around"), [(2, "cd"), (4, "abcd"), (5, "abcdefghijkl")])
def test_around_is_the_finest_node_with_enough_items(least: int, around: str) -> None:
    trie = BUNDLE.tree.trie
    counts = Recommender(BUNDLE)._everything.counts  # c and d share their semantic ID

    found = Likeness(BUNDLE.tree, np.array([2])).around(counts, least)

    assert trie.item_count == 12
    assert "".join(np.array(ITEMS)[found]) == around


@pytest.mark.parametrize("anchor", ITEMS)
@pytest.mark.parametrize("history", ["", "c", "lh"])
def test_anchors_are_never_answered_and_raise_what_is_like_them(anchor: str, history: str) -> None:
    recommender = Recommender(BUNDLE)
    legal = set(ITEMS) - {anchor, *history}

    answer = recommender.recommend(Query(history, k=12, anchors=[anchor]))
    only_newest = recommender.recommend(Query([*history, anchor], k=12))

    scores = {item.item_id: item.score for item in answer.items}
    assert set(scores) == legal
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert answer.certified is None
    like = cosines(anchor)
    for item in only_newest.items:
        term = LIKENESS_WEIGHT * (like[ITEMS.index(item.item_id)] - 1)
        assert scores[item.item_id] == pytest.approx(item.score + term, abs=1e-3)


def test_unknown_anchors_are_counted_and_change_nothing() -> None:
    recommender = Recommender(BUNDLE)

    answer = recommender.recommend(Query("c", k=4, anchors=["?"]))

    assert answer.unknown_history_items == 1
    assert [item.item_id for item in answer.items] == [
        item.item_id for item in recommender.recommend(Query("c", k=4, beam=16)).items
    ]

"""Transitions against their definition, and biases that leave no trace of a history."""

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoder import SearchTree
from model.node_hidden import NodeHidden
from model.transitions import FOLLOWERS_MOST, READ_MOST, EvidenceBiases, Transitions
from model.trie import Trie
from model.types import FloatArray

ITEMS = 8
HISTORIES = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=9), max_size=6)
LEAVES = st.lists(st.integers(0, ITEMS - 1), max_size=30)

FEW = settings(max_examples=30, deadline=None)


def counted(histories: list[list[int]]) -> Transitions:
    return Transitions.count([np.array(history, np.int64) for history in histories], ITEMS)


def weights_by_definition(histories: list[list[int]]) -> dict[tuple[int, int], float]:
    events: dict[int, int] = defaultdict(int)
    sums: dict[tuple[int, int], float] = defaultdict(float)
    for history in histories:
        for place, item in enumerate(history):
            events[item] += 1
            for distance in range(1, 5):
                if place + distance < len(history):
                    sums[item, history[place + distance]] += 0.7 ** (distance - 1)
    return {
        (i, j): total / math.sqrt((events[i] + 2) * (events[j] + 2))
        for (i, j), total in sums.items()
    }


def evidence_by_definition(histories: list[list[int]], read: list[int]) -> FloatArray:
    weights, found = weights_by_definition(histories), np.zeros(ITEMS, np.float32)
    for age, item in enumerate(read[::-1][:READ_MOST]):
        for follower in range(ITEMS):
            found[follower] += 0.7**age * weights.get((item, follower), 0.0)
    return found


@FEW
@given(HISTORIES, LEAVES)
def test_evidence_is_what_its_definition_says(histories: list[list[int]], read: list[int]) -> None:
    leaves, amounts = counted(histories).evidence(np.array(read, np.int64))
    expected = evidence_by_definition(histories, read)
    assert leaves.tolist() == np.flatnonzero(expected).tolist()
    np.testing.assert_allclose(amounts, expected[leaves], rtol=1e-5)


def test_only_the_heaviest_followers_are_kept() -> None:
    items = FOLLOWERS_MOST + 10
    # Item 0 is followed once by each other item, by the last ones twice.
    histories = [np.array([0, item]) for item in range(1, items)]
    histories += [np.array([0, item]) for item in range(items - 5, items)]
    table = Transitions.count(histories, items)
    leaves, _ = table.evidence(np.array([0]))
    assert len(leaves) == FOLLOWERS_MOST
    assert set(range(items - 5, items)) <= set(leaves.tolist())


@FEW
@given(HISTORIES, LEAVES, st.permutations(range(ITEMS + 3)))
def test_moving_leaves_changes_nothing_but_their_numbers(
    histories: list[list[int]], read: list[int], places: list[int]
) -> None:
    table, now = counted(histories), np.array(places[:ITEMS])
    moved = table.moved(now, ITEMS + 3)
    leaves, amounts = table.evidence(np.array(read, np.int64))
    found, weights = moved.evidence(now[np.array(read, np.int64)])
    order = np.argsort(now[leaves])
    assert found.tolist() == now[leaves][order].tolist()
    np.testing.assert_allclose(weights, amounts[order], rtol=1e-6)


def test_items_that_came_later_have_no_evidence_but_keep_their_place_in_time() -> None:
    table = counted([[0, 1], [0, 1], [2, 3]])
    # Twice: leaves 0 .. 7 become 1 .. 8, and then 2 .. 9.
    moved = table.moved(np.arange(ITEMS) + 1, ITEMS + 1).moved(np.arange(ITEMS + 1) + 1, ITEMS + 2)
    _, fresh = table.evidence(np.array([0]))
    leaves, amounts = moved.evidence(np.array([2, 0, 1]))  # two strangers came after item 0
    assert leaves.tolist() == [3]
    np.testing.assert_allclose(amounts, 0.7**2 * fresh, rtol=1e-6)
    assert not len(moved.evidence(np.array([0, 1]))[0])


def tree_of_items() -> SearchTree:
    generator = np.random.default_rng(0)
    trie, _ = Trie.build(generator.integers(3, size=(ITEMS, 2)))
    biases = generator.normal(size=trie.node_count).astype(np.float32)
    vectors = np.zeros((trie.node_count, 2), np.float32)
    hidden = NodeHidden.build(trie, vectors, np.zeros((3, 2, 4), np.float32))
    return SearchTree(trie, vectors, biases, hidden=hidden)


@FEW
@given(HISTORIES, LEAVES, LEAVES)
def test_biases_have_the_evidence_below_each_node_and_of_one_history_only(
    histories: list[list[int]], read: list[int], inner: list[int]
) -> None:
    tree, weights = tree_of_items(), (0.4, 0.7, 0.5, 0.6)
    before = tree.biases.copy()
    followed = EvidenceBiases(tree, counted(histories), weights)

    def expected(of: list[int]) -> FloatArray:
        below = np.zeros(tree.trie.node_count)
        amounts = evidence_by_definition(histories, of)
        for leaf, path in enumerate(tree.trie.paths(np.arange(ITEMS))):
            below[path] += amounts[leaf]
        depths = np.repeat(np.arange(4), np.diff(tree.trie.depth_start))
        beta = np.array([0.0, *weights[:-1]])[depths]
        return before + (beta * np.log1p(below / 0.02)).astype(np.float32)

    with followed.after(np.array(read, np.int64)):
        np.testing.assert_allclose(followed.tree.biases, expected(read), rtol=1e-4, atol=1e-5)
        amounts = evidence_by_definition(histories, read)
        np.testing.assert_allclose(followed.tree.evidence, amounts, rtol=1e-5)
        with followed.after(np.array(inner, np.int64)):
            np.testing.assert_allclose(followed.tree.biases, expected(inner), rtol=1e-4, atol=1e-5)
            terms = weights[-1] * np.log1p(evidence_by_definition(histories, inner) / 0.02)
            every = np.arange(ITEMS)
            np.testing.assert_allclose(followed.evidence.term(every), terms, rtol=1e-4, atol=1e-6)
            assert followed.evidence.most == pytest.approx(terms.max(initial=0), rel=1e-4)
        np.testing.assert_allclose(followed.tree.biases, expected(read), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(followed.tree.evidence, amounts, rtol=1e-5)
    assert followed.tree.biases.tolist() == before.tolist()
    assert not followed.tree.evidence.any()
    assert tree.biases.tolist() == before.tolist()
    assert followed.tree.hidden is tree.hidden


@pytest.mark.parametrize(
    "change",
    [
        {"start": np.zeros(3, np.int64)},
        {"followers": np.array([99], np.int32)},
        {"followers": np.array([-1], np.int32)},
        {"weights": np.array([np.nan], np.float32)},
        {"weights": np.array([-1], np.float32)},
        {"weights": np.array([1, 1], np.float32)},
        {"weights": np.array([3e38], np.float32)},
        {"weights": np.array([np.inf], np.float32)},
        {"followers": np.array([[3]], np.int32), "weights": np.array([[1]], np.float32)},
        {"followers": np.array(3, np.int32), "weights": np.array(1, np.float32)},
        {"start": np.array([1, *[1] * ITEMS])},
        {"start": np.array([0, *[2] * ITEMS])},
        {"start": np.array([0, 1, 0, *[1] * (ITEMS - 2)])},
        # The differences of these overflow, and are not negative.
        {"start": np.array([0, 2**63 - 1, -(2**63), *[1] * (ITEMS - 2)])},
    ],
)
def test_a_damaged_table_is_not_sound(change: dict[str, Any]) -> None:
    parts: dict[str, Any] = {
        "start": np.array([0, 1, *[1] * (ITEMS - 1)]),
        "followers": np.array([3], np.int32),
        "weights": np.array([0.5], np.float32),
    }
    assert Transitions(**parts).is_sound(ITEMS)
    assert not Transitions(**{**parts, **change}).is_sound(ITEMS)

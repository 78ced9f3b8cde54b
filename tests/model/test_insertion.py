from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import insertion
from model.beam_search import beam_search
from model.decoder import SearchTree
from model.insertion import Insertion, NewItems, NodeSums, insert
from model.node_hidden import NodeHidden, asked_nodes
from model.trie import Trie
from model.types import FloatArray, IntArray
from tests.model.table_decoder import semantic_ids

WIDTH = 3
WEIGHTS = np.random.default_rng(7).normal(size=(5, WIDTH, 2 * WIDTH)).astype(np.float32)
"""Of the queries at every depth."""


@dataclass(frozen=True)
class Catalogue:
    """Items by leaf."""

    tree: SearchTree
    codes: IntArray
    item_ids: list[str]


@dataclass(frozen=True)
class DotDecoder:
    """The generator without its perceptron: softmax of h . v + b over a node's children."""

    tree: SearchTree

    def child_log_probs(self, h: FloatArray, nodes: IntArray, depth: int) -> FloatArray:
        trie = self.tree.trie
        table = np.full((len(nodes), trie.branching[depth]), -np.inf, np.float32)
        for row, node in enumerate(nodes):
            below = slice(trie.child_start[node], trie.child_start[node + 1])
            # Parents count too: their vectors are what a level's query is made from.
            logits = self.tree.vectors[below] @ (h + self.tree.vectors[node])
            logits = logits + self.tree.biases[below]
            table[row, : len(logits)] = logits - np.log(np.exp(logits).sum())
        return table


def prefixes(trie: Trie, codes: IntArray, item_ids: list[str]) -> list[tuple[object, ...]]:
    """What each node stands for, by number."""
    names: list[tuple[object, ...]] = []
    for depth, (here, after) in enumerate(pairwise(trie.depth_start)):
        first, _ = trie.leaf_ranges(np.arange(here, after), depth)
        for leaf in first.tolist():
            is_item = depth == trie.levels + 1
            names.append((*codes[leaf, :depth].tolist(), *([item_ids[leaf]] if is_item else [])))
    return names


def build(
    codes: IntArray, item_ids: list[str], vectors: FloatArray, learned: set[tuple[object, ...]]
) -> Catalogue:
    """The definition: means plus offsets, counts plus deviations, of the nodes in `learned`."""
    rows = sorted(range(len(codes)), key=lambda row: (*codes[row].tolist(), item_ids[row]))
    codes, item_ids, vectors = codes[rows], [item_ids[row] for row in rows], vectors[rows]
    trie, order = Trie.build(codes)
    assert order.tolist() == list(range(len(rows)))
    node_vectors, biases = [], []
    names = prefixes(trie, codes, item_ids)
    for node, name in enumerate(names):
        depth = int(np.searchsorted(trie.depth_start, node, side="right")) - 1
        first, end = trie.leaf_ranges(np.array([node]), depth)
        own = vectors[first[0] : end[0]]
        drawn = np.random.default_rng([*map(ord, repr(name))]).normal(size=WIDTH + 1)
        known = name in learned
        is_item = depth == trie.levels + 1
        node_vectors.append(own.mean(axis=0) + (drawn[:WIDTH] if known and not is_item else 0))
        biases.append(np.log(len(own)) + (drawn[WIDTH] if known else 0))
    of_nodes = np.array(node_vectors, np.float32)
    hidden = NodeHidden.build(trie, of_nodes, WEIGHTS[: trie.levels + 1])
    tree = SearchTree(trie, of_nodes, np.array(biases, np.float32), hidden=hidden)
    return Catalogue(tree, codes, item_ids)


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[IntArray, list[str], FloatArray, int]:
    """Codes, ids and vectors of some items, and how many of them were there first."""
    codes = draw(semantic_ids())
    count = len(codes)
    names = [f"item{number}" for number in range(count)]
    item_ids = list(draw(st.permutations(names)))
    vectors = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(count, WIDTH))
    return codes, item_ids, vectors.astype(np.float32), draw(st.integers(1, count))


def start(codes: IntArray, item_ids: list[str], vectors: FloatArray, count: int) -> Catalogue:
    rows = sorted(range(count), key=lambda row: (*codes[row].tolist(), item_ids[row]))
    trie, _ = Trie.build(codes[rows])
    names = prefixes(trie, codes[rows], [item_ids[row] for row in rows])
    return build(codes[:count], item_ids[:count], vectors[:count], set(names))


def added(found: Catalogue, new: NewItems) -> tuple[Catalogue, Insertion]:
    done = insert(found.tree, found.codes, found.item_ids, new)
    item_ids = [""] * len(done.codes)
    for leaf, item_id in zip(done.kept.tolist(), found.item_ids, strict=True):
        item_ids[leaf] = item_id
    for leaf, item_id in zip(done.added.tolist(), new.item_ids, strict=True):
        item_ids[leaf] = item_id
    return Catalogue(done.tree, done.codes, item_ids), done


def assert_same(found: Catalogue, expected: Catalogue) -> None:
    assert found.item_ids == expected.item_ids
    assert np.array_equal(found.codes, expected.codes)
    assert np.array_equal(found.tree.trie.child_start, expected.tree.trie.child_start)
    assert found.tree.trie.depth_start == expected.tree.trie.depth_start
    assert found.tree.vectors.dtype == found.tree.biases.dtype == np.float32
    assert np.allclose(found.tree.vectors, expected.tree.vectors, atol=1e-4)
    assert np.allclose(found.tree.biases, expected.tree.biases, atol=1e-4)
    assert found.tree.hidden is not None
    assert expected.tree.hidden is not None
    assert found.tree.hidden.table.dtype == found.tree.vectors.dtype
    assert np.array_equal(found.tree.hidden.rows, expected.tree.hidden.rows)
    assert np.allclose(found.tree.hidden.table, expected.tree.hidden.table, atol=1e-3)
    assert np.array_equal(found.tree.hidden.weights, expected.tree.hidden.weights)


@given(catalogues(), st.integers(1, 4))
@settings(deadline=None)
def test_inserted_items_are_as_if_they_had_always_been_there(
    catalogue: tuple[IntArray, list[str], FloatArray, int], width: int
) -> None:
    codes, item_ids, vectors, count = catalogue
    before = start(*catalogue)
    learned = set(prefixes(before.tree.trie, before.codes, before.item_ids))
    expected = build(codes, item_ids, vectors, learned)

    found, _ = added(before, NewItems(item_ids[count:], codes[count:], vectors[count:]))

    assert_same(found, expected)
    h = np.ones(WIDTH, np.float32)
    counts = np.ones(found.tree.trie.node_count, np.int32)
    one, other = (
        beam_search(DotDecoder(each.tree), each.tree.trie, h, width=width, counts=counts)
        for each in (found, expected)
    )
    assert np.allclose(np.sort(one.totals()), np.sort(other.totals()), atol=1e-3)


@given(catalogues(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_insertions_does_not_matter(
    catalogue: tuple[IntArray, list[str], FloatArray, int], random: Random
) -> None:
    codes, item_ids, vectors, count = catalogue
    before = start(*catalogue)
    at_once, _ = added(before, NewItems(item_ids[count:], codes[count:], vectors[count:]))
    rows = list(range(count, len(codes)))
    random.shuffle(rows)

    found = before
    for row in rows:
        one = NewItems([item_ids[row]], codes[row : row + 1], vectors[row : row + 1])
        found, _ = added(found, one)

    assert_same(found, at_once)


@given(catalogues(), st.data())
@settings(deadline=None)
def test_items_taken_out_are_as_if_they_had_never_been_there(
    catalogue: tuple[IntArray, list[str], FloatArray, int], data: st.DataObject
) -> None:
    """Some go, some come, and some come back with other codes."""
    codes, item_ids, vectors, count = catalogue
    before = start(*catalogue)
    learned = set(prefixes(before.tree.trie, before.codes, before.item_ids))
    gone = data.draw(st.sets(st.integers(0, count - 1)))
    back = {row for row in gone if data.draw(st.booleans())}
    left = [row for row in range(len(codes)) if row not in gone or row in back]
    if not left:
        return
    coming = [row for row in left if row >= count or row in back]
    shifted = codes.copy()
    shifted[sorted(back), -1] = np.roll(codes[:, -1], 1)[sorted(back)]
    expected = build(
        shifted[left],
        [item_ids[row] for row in left],
        vectors[left],
        {name for name in learned if name[-1:] not in [(item_ids[row],) for row in back]},
    )
    new = NewItems([item_ids[row] for row in coming], shifted[coming], vectors[coming])
    removed = [before.item_ids.index(item_ids[row]) for row in gone]

    done = insert(before.tree, before.codes, before.item_ids, new, removed=removed)

    names = [""] * len(done.codes)
    for was, leaf in enumerate(done.kept.tolist()):
        if leaf >= 0:
            names[leaf] = before.item_ids[was]
    for item_id, leaf in zip(new.item_ids, done.added.tolist(), strict=True):
        names[leaf] = item_id
    assert_same(Catalogue(done.tree, done.codes, names), expected)


@given(catalogues())
@settings(deadline=None)
def test_what_is_known_of_nodes_without_new_items_is_not_computed_again(
    catalogue: tuple[IntArray, list[str], FloatArray, int],
) -> None:
    codes, item_ids, vectors, count = catalogue
    before = start(*catalogue)
    trie, hidden = before.tree.trie, before.tree.hidden
    assert hidden is not None
    marked = replace(hidden, table=np.full_like(hidden.table, 1e6))
    new = NewItems(item_ids[count:], codes[count:], vectors[count:])

    done = insert(
        replace(before.tree, hidden=marked), before.codes, before.item_ids, new, removed=[]
    )

    found, now = done.tree.hidden, done.inner.moved
    assert found is not None
    same = [
        np.array_equal(done.tree.vectors[now[node]], before.tree.vectors[node])
        for node in asked_nodes(trie).tolist()
    ]
    kept = now[asked_nodes(trie)[same]]
    assert (found.table[found.rows[kept]] == 1e6).all()
    assert int((found.table == 1e6).all(axis=1).sum()) == len(kept)


def test_a_tree_whose_nodes_are_not_asked_stays_one() -> None:
    before = start(np.array([[0, 1], [1, 0]]), ["a", "b"], np.eye(2, WIDTH, dtype=np.float32), 2)
    new = NewItems(["c"], np.array([[0, 1]]), np.ones((1, WIDTH), np.float32))

    done = insert(replace(before.tree, hidden=None), before.codes, before.item_ids, new)

    assert done.tree.hidden is None


def test_what_is_given_stays_as_it_is() -> None:
    before = start(np.array([[0, 1], [1, 0]]), ["a", "b"], np.eye(2, WIDTH, dtype=np.float32), 2)
    vectors, biases = before.tree.vectors.copy(), before.tree.biases.copy()
    assert before.tree.hidden is not None
    table = before.tree.hidden.table.copy()

    new = NewItems(["c"], np.array([[0, 1]]), np.ones((1, WIDTH), np.float32))
    insert(before.tree, before.codes, before.item_ids, new)

    assert np.array_equal(before.tree.vectors, vectors)
    assert np.array_equal(before.tree.biases, biases)
    assert np.array_equal(before.tree.hidden.table, table)


@pytest.mark.parametrize(
    ("item_ids", "levels", "width", "message"),
    [
        (["a"], 2, WIDTH, "'a' is in the catalogue already"),
        (["x", "x"], 2, WIDTH, "twice"),
        (["x"], 3, WIDTH, r"codes of new items are \(1, 3\) instead of \(1, 2\)"),
        (["x"], 2, WIDTH + 1, r"vectors of new items are \(1, 4\) instead of \(1, 3\)"),
    ],
)
def test_misfits_are_refused(item_ids: list[str], levels: int, width: int, message: str) -> None:
    before = start(np.array([[0, 0], [1, 0]]), ["a", "b"], np.eye(2, WIDTH, dtype=np.float32), 2)
    count = len(item_ids)
    new = NewItems(
        item_ids, np.zeros((count, levels), np.int32), np.zeros((count, width), np.float32)
    )

    with pytest.raises(ValueError, match=message):
        insert(before.tree, before.codes, before.item_ids, new)


def test_no_more_sums_are_kept_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items come and go for months, and touch one node after another."""
    codes = np.array([[first, second] for first in range(4) for second in range(5)])
    vectors = np.random.default_rng(0).normal(size=(len(codes), WIDTH)).astype(np.float32)
    names = [f"{row:02}" for row in range(len(codes))]
    tree = start(codes, names, vectors, len(codes)).tree
    sums, kept = NodeSums(tree), 3
    monkeypatch.setattr(insertion, "SUMS_MAX_BYTES", kept * WIDTH * np.float64().nbytes)

    for depth, count in ((0, 1), (1, 4), (2, 20), (1, 4)):
        nodes = np.arange(count) + tree.trie.depth_start[depth]
        expected = tree.item_vectors.astype(np.float64).reshape(count, -1, WIDTH).sum(axis=1)
        assert np.allclose(sums.of(nodes, depth), expected)
        assert len(sums._known) <= kept

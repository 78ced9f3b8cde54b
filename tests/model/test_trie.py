import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import BundleError
from model.trie import Trie
from model.types import AnyArray, IntArray
from tests.model.table_decoder import semantic_ids


@given(codes=semantic_ids())
def test_leaves_are_the_items_in_order_of_their_ids(codes: IntArray) -> None:
    trie, order = Trie.build(codes)

    assert sorted(order.tolist()) == list(range(len(codes)))
    ids = [tuple(row) for row in codes.tolist()]
    # Items that share an ID keep their order.
    assert order.tolist() == sorted(range(len(codes)), key=lambda row: (ids[row], row))
    assert trie.item_count == len(codes)
    assert trie.levels == codes.shape[1]


@given(codes=semantic_ids())
def test_nodes_are_the_distinct_prefixes(codes: IntArray) -> None:
    trie, order = Trie.build(codes)
    ids = [tuple(row) for row in codes[order].tolist()]
    paths = trie.paths(np.arange(len(ids)))

    for depth in range(trie.levels + 1):
        numbered = {
            (leaf_id[:depth], int(node)) for leaf_id, node in zip(ids, paths[:, depth], strict=True)
        }
        prefixes = sorted({leaf_id[:depth] for leaf_id in ids})
        start = trie.depth_start[depth]
        assert numbered == {(prefix, start + at) for at, prefix in enumerate(prefixes)}


@given(codes=semantic_ids())
def test_walking_down_reaches_every_leaf_once(codes: IntArray) -> None:
    trie, _ = Trie.build(codes)
    nodes = [0]
    for depth in range(trie.levels + 1):
        children = [
            list(range(trie.child_start[node], trie.child_start[node + 1])) for node in nodes
        ]
        assert trie.branching[depth] == max(map(len, children))
        nodes = [child for family in children for child in family]
        assert nodes == list(range(trie.depth_start[depth + 1], trie.depth_start[depth + 2]))

    assert nodes == list(range(trie.item_start, trie.node_count))


@given(codes=semantic_ids(), numbers=st.lists(st.integers(0, 100)))
def test_nodes_above_leaves_are_those_of_their_paths(codes: IntArray, numbers: list[int]) -> None:
    trie, _ = Trie.build(codes)
    leaves = np.array(sorted({number % trie.item_count for number in numbers}), np.int64)

    nodes, below = trie.above(leaves)

    expected = np.bincount(trie.paths(leaves).ravel(), minlength=trie.node_count)
    found = np.zeros(trie.node_count, int)
    found[nodes] = below
    assert len(set(nodes.tolist())) == len(nodes)
    assert found.tolist() == expected.tolist()


@given(codes=semantic_ids())
def test_leaf_ranges_are_the_leaves_that_pass_through_a_node(codes: IntArray) -> None:
    trie, _ = Trie.build(codes)
    paths = trie.paths(np.arange(trie.item_count))

    for depth in range(trie.levels + 2):
        nodes = np.arange(trie.depth_start[depth], trie.depth_start[depth + 1])
        first, end = trie.leaf_ranges(nodes, depth)
        for node, low, high in zip(nodes, first, end, strict=True):
            assert np.flatnonzero(paths[:, depth] == node).tolist() == list(range(low, high))


@given(codes=semantic_ids(), chosen=st.lists(st.integers(0, 100)))
def test_paths_lead_from_parent_to_child_down_to_the_leaf(
    codes: IntArray, chosen: list[int]
) -> None:
    trie, _ = Trie.build(codes)
    leaves = np.array([number % len(codes) for number in chosen], np.int64)

    paths = trie.paths(leaves)

    assert paths.shape == (len(leaves), trie.levels + 2)
    assert (paths[:, 0] == 0).all()
    assert (paths[:, -1] == leaves + trie.item_start).all()
    assert (trie.child_start[paths[:, :-1]] <= paths[:, 1:]).all()
    assert (paths[:, 1:] < trie.child_start[paths[:, :-1] + 1]).all()


@given(codes=semantic_ids())
def test_one_array_describes_all_of_it(codes: IntArray) -> None:
    trie, _ = Trie.build(codes)

    restored = Trie.from_child_start(trie.child_start)

    assert restored.depth_start == trie.depth_start
    assert restored.branching == trie.branching


def test_one_item_is_a_chain() -> None:
    trie, order = Trie.build(np.array([[7, 0, 9]]))

    assert order.tolist() == [0]
    assert trie.child_start.tolist() == [1, 2, 3, 4, 5]
    assert trie.branching == (1, 1, 1, 1)
    assert trie.paths(np.array([0])).tolist() == [[0, 1, 2, 3, 4]]


def test_one_bucket_holds_items_of_one_id() -> None:
    trie, order = Trie.build(np.array([[3, 1]] * 5))

    assert order.tolist() == [0, 1, 2, 3, 4]
    assert trie.branching == (1, 1, 5)


@pytest.mark.parametrize("codes", [np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(3)])
def test_no_items_or_no_levels_are_refused(codes: AnyArray) -> None:
    with pytest.raises(ValueError, match="codes must be"):
        Trie.build(codes.astype(np.int32))


@pytest.mark.parametrize(
    "child_start",
    [
        np.array([], np.int32),
        np.array([1], np.int32),
        np.array([1, 4], np.int32),  # items right below the root: no level of codes
        np.array([0, 1, 2], np.int32),  # the root is its own child
        np.array([1, 2, 2], np.int32),  # a node without children
        np.array([1, 3, 2, 5], np.int32),
        np.array([1, 2, 4, 6], np.int32),  # levels end inside a family
        np.array([1, 2, 3], np.float32),
        np.array([[1, 2, 3]], np.int32),
        np.array(3, np.int32),
    ],
)
def test_an_array_that_is_no_trie_is_refused(child_start: AnyArray) -> None:
    with pytest.raises(BundleError, match=r"trie\.npy"):
        Trie.from_child_start(child_start)


@given(
    codes=semantic_ids(),
    at=st.integers(0, 200),
    change=st.integers(-5, 5).filter(lambda change: change != 0),
)
def test_a_changed_array_is_refused_or_another_trie(codes: IntArray, at: int, change: int) -> None:
    trie, _ = Trie.build(codes)
    changed = trie.child_start.copy()
    changed[at % len(changed)] += change

    try:
        other = Trie.from_child_start(changed)
    except BundleError:
        return
    # Whatever is accepted can be walked: every leaf has one path, from the root.
    paths = other.paths(np.arange(other.item_count))
    assert (paths[:, 0] == 0).all()
    assert (changed[paths[:, :-1]] <= paths[:, 1:]).all()
    assert (paths[:, 1:] < changed[paths[:, :-1] + 1]).all()

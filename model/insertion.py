"""Items into a search tree and out of it, as if the others had been there from the start.

Trie and vectors are inputs of the graphs, so no export is needed. A node keeps what it has learned
beyond its items: its vector stays the mean of the item vectors below it plus the same offset, its
bias the logarithm of their number plus the same deviation. A node that comes into being has neither
offset nor deviation. So it does not matter in which order items are inserted.

Shapes: N items, R of them taken out, K put in, L levels, D width, M nodes.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.decoder import SearchTree
from model.splice import Splice
from model.trie import Trie
from model.types import AnyArray, BoolArray, FloatArray, IntArray

Positions = npt.NDArray[np.int64]
SUMS_MAX_BYTES = 128 * 2**20
"""Of node sums that are kept: those of ten thousand items of width 256, on five levels."""


class ItemIds(Protocol):
    """Item ids by leaf."""

    def __getitem__(self, leaf: int, /) -> str:
        """The id of a leaf."""


@dataclass(frozen=True)
class NewItems:
    """K items that have codes and vectors already."""

    item_ids: Sequence[str]
    codes: IntArray
    """[K, L]"""
    vectors: FloatArray
    """[K, D]"""
    biases: FloatArray | None = None
    """[K], what was learned of how often each is chosen; 0 where not given."""


@dataclass(frozen=True)
class Insertion:
    """A tree of N - R + K items."""

    tree: SearchTree
    codes: AnyArray
    """[N - R + K, L], leaf order."""
    order: Positions
    """[K] the new items in leaf order."""
    leaves: Splice
    """How the leaves have changed; its new rows are in `order`."""
    inner: Splice
    """How the inner nodes have changed."""

    @property
    def kept(self) -> IntArray:
        """[N] leaf that each former leaf has now, -1 for those taken out."""
        return self.leaves.moved

    @property
    def added(self) -> IntArray:
        """[K] leaf of each new item."""
        added = np.empty(len(self.order), dtype=np.int64)
        added[self.order] = self.leaves.added
        return added


class NodeSums:
    """Sums of the item vectors below the nodes of one tree; the ones used last are kept."""

    def __init__(self, tree: SearchTree) -> None:
        self._tree = tree
        self._known: dict[int, AnyArray] = {}

    def of(self, nodes: IntArray, depth: int) -> AnyArray:
        """Sums [nodes, D] for nodes of one depth, float64."""
        first, end = self._tree.trie.leaf_ranges(nodes, depth)
        for node, start, stop in zip(nodes.tolist(), first.tolist(), end.tolist(), strict=True):
            known = self._known.pop(node, None)
            if known is None:
                known = self._tree.item_vectors[start:stop].sum(axis=0, dtype=np.float64)
            self._known[node] = known  # the last of all
        width = self._tree.vectors.shape[1]
        found = np.array([self._known[node] for node in nodes.tolist()]).reshape(-1, width)
        most = SUMS_MAX_BYTES // (width * found.itemsize)
        for node in list(self._known)[: max(0, len(self._known) - most)]:
            del self._known[node]
        return found


def insert(
    tree: SearchTree,
    codes: AnyArray,
    item_ids: ItemIds,
    new: NewItems,
    *,
    removed: Sequence[int] = (),
    sums: NodeSums | None = None,
) -> Insertion:
    """Return the tree with `new` in it and without `removed`; what is given stays as it is.

    Costs a copy of the arrays, and little for each item.

    Args:
        tree: of N items.
        codes: [N, L], leaf order.
        item_ids: by leaf.
        new: K items, none of which the tree holds but among those taken out.
        removed: R leaves to take out.
        sums: of `tree`, kept from one call to the next.

    Raises:
        ValueError: the shapes do not fit, an id comes twice or is there already, or nothing is
            left.
    """
    _refuse_misfits(tree, codes, new)
    keys = [(*map(int, row), name) for row, name in zip(new.codes, new.item_ids, strict=True)]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    gone = np.unique(np.asarray(removed, dtype=np.int64))
    sorted_codes = np.asarray(new.codes)[order].astype(codes.dtype)
    first, end = _prefix_ranges(codes, sorted_codes)
    taken_out = frozenset(gone.tolist())
    ids = [new.item_ids[row] for row in order]
    bounds = zip(first[-1].tolist(), end[-1].tolist(), strict=True)
    places = [
        _place(name, low, high, item_ids, taken_out)
        for name, (low, high) in zip(ids, bounds, strict=True)
    ]
    leaves = Splice(len(codes), gone, np.array(places, dtype=np.int64))
    merged = leaves.rows(codes, sorted_codes)
    if len(merged) == 0:
        message = "no item would be left: a tree holds one or more"
        raise ValueError(message)
    biases = np.zeros(len(order)) if new.biases is None else new.biases
    come = _Coming(sorted_codes, new.vectors[order], biases[order], first, end)
    tree, inner = _edited_tree(tree, Trie.of_sorted(merged), leaves, come, sums or NodeSums(tree))
    return Insertion(tree, merged, order, leaves, inner)


def _prefix_ranges(codes: AnyArray, wanted: AnyArray) -> tuple[Positions, Positions]:
    """First and end leaf with each prefix of `wanted` [K, L]: two of [L + 1, K], by its length.

    Where no leaf has it, both are the leaf before which it belongs.
    """
    first = np.zeros((codes.shape[1] + 1, len(wanted)), dtype=np.int64)
    end = np.full_like(first, len(codes))
    for level in range(codes.shape[1]):
        within = (codes[:, level], first[level], end[level], wanted[:, level])
        first[level + 1] = _bisect(*within, is_right=False)
        end[level + 1] = _bisect(*within, is_right=True)
    return first, end


def _bisect(
    column: AnyArray, low: Positions, high: Positions, wanted: AnyArray, *, is_right: bool
) -> Positions:
    """Where `wanted` [K] belongs in `column` [N], which ascends from `low` to `high` [K] each."""
    low, high = low.copy(), high.copy()
    while bool((low < high).any()):
        middle = (low + high) // 2
        found = column[np.minimum(middle, len(column) - 1)]
        is_before = (found <= wanted) if is_right else (found < wanted)
        is_open = low < high
        low = np.where(is_open & is_before, middle + 1, low)
        high = np.where(is_open & ~is_before, middle, high)
    return low


def _place(item_id: str, first: int, end: int, item_ids: ItemIds, removed: frozenset[int]) -> int:
    """The leaf before which an item of a bucket belongs: order is (semantic ID, item id)."""
    place = bisect_left(range(first, end), item_id, key=item_ids.__getitem__) + first
    if place < end and item_ids[place] == item_id and place not in removed:
        message = f"item_id {item_id!r} is in the catalogue already: remove it first"
        raise ValueError(message)
    return place


@dataclass(frozen=True)
class _Coming:
    """The new items in leaf order."""

    codes: AnyArray
    """[K, L]"""
    vectors: FloatArray
    """[K, D]"""
    biases: AnyArray
    """[K]"""
    first: Positions
    """[L + 1, K] first leaf with each prefix, or the one before which it belongs."""
    end: Positions
    """[L + 1, K] end of those leaves."""

    def groups(self, depth: int) -> Positions:
        """First of each run of items with the same prefix."""
        is_first = np.ones(len(self.codes), dtype=bool)
        prefixes = self.codes[:, :depth]
        is_first[1:] = (prefixes[1:] != prefixes[:-1]).any(axis=1)
        return np.flatnonzero(is_first)


@dataclass(frozen=True)
class _Level:
    """What becomes of the inner nodes of one depth; F come into being."""

    places: Positions
    """[F] node before which each comes."""
    vectors: AnyArray
    """[F, D]"""
    biases: AnyArray
    """[F]"""
    dead: IntArray
    """Nodes that have no items any more."""
    changed: IntArray
    """Nodes that have other items."""
    changed_vectors: AnyArray
    changed_biases: AnyArray


def _edited_tree(
    tree: SearchTree, trie: Trie, leaves: Splice, come: _Coming, sums: NodeSums
) -> tuple[SearchTree, Splice]:
    """The tree over the new `trie`, and how its inner nodes have changed."""
    levels = [_level(tree, leaves, come, depth, sums) for depth in range(trie.levels + 1)]
    start = tree.trie.item_start
    dead = np.concatenate([level.dead for level in levels])
    places = np.concatenate([level.places for level in levels])
    inner = Splice(start, dead, places)
    nodes = Splice(
        tree.trie.node_count,
        np.concatenate([dead, leaves.removed + start]),
        np.concatenate([places, leaves.places + start]),
    )
    fresh = np.concatenate([*(level.vectors for level in levels), come.vectors])
    vectors = nodes.rows(tree.vectors, fresh)
    biases = nodes.rows(
        tree.biases, np.concatenate([*(level.biases for level in levels), come.biases])
    )
    changed = inner.moved[np.concatenate([level.changed for level in levels])]
    vectors[changed] = np.concatenate([level.changed_vectors for level in levels])
    biases[changed] = np.concatenate([level.changed_biases for level in levels])
    hidden = tree.hidden and tree.hidden.edited(trie, vectors, inner, changed)
    return SearchTree(trie, vectors, biases, hidden=hidden), inner


def _level(tree: SearchTree, leaves: Splice, come: _Coming, depth: int, sums: NodeSums) -> _Level:
    groups = come.groups(depth)
    sizes = np.diff(np.append(groups, len(come.codes)))
    totals = _sums_of_runs(come.vectors, groups)
    nodes, is_there = _nodes(tree.trie, come, groups, depth)
    fresh = ~is_there
    gone_nodes = tree.trie.paths(leaves.removed)[:, depth]
    gone_first = np.flatnonzero(np.diff(gone_nodes, prepend=-1))
    gone_sizes = np.diff(np.append(gone_first, len(gone_nodes)))
    changed = np.unique(np.concatenate([nodes[is_there], gone_nodes[gone_first]]))
    first, end = tree.trie.leaf_ranges(changed, depth)
    was, before = end - first, sums.of(changed, depth)
    count, after = was.astype(np.int64), before.copy()
    at = np.searchsorted(changed, nodes[is_there])
    count[at] += sizes[is_there]
    after[at] += totals[is_there]
    at = np.searchsorted(changed, gone_nodes[gone_first])
    count[at] -= gone_sizes
    after[at] -= _sums_of_runs(tree.item_vectors[leaves.removed], gone_first)
    alive = count > 0
    kept, left, had = changed[alive], count[alive], was[alive]
    step = after[alive] / left[:, None] - before[alive] / had[:, None]
    return _Level(
        places=nodes[fresh],
        vectors=totals[fresh] / sizes[fresh][:, None],
        biases=np.log(sizes[fresh]),
        dead=changed[~alive],
        changed=kept,
        changed_vectors=tree.vectors[kept] + step,
        changed_biases=tree.biases[kept] + np.log(left / had),
    )


def _nodes(trie: Trie, come: _Coming, groups: Positions, depth: int) -> tuple[Positions, BoolArray]:
    """The node of each group's prefix, and whether there is one; else that before which it comes.

    A prefix that no leaf has belongs at the boundary between two nodes.
    """
    first = come.first[depth][groups]
    is_inside = first < trie.item_count
    nodes = np.full(len(groups), trie.depth_start[depth + 1], dtype=np.int64)
    nodes[is_inside] = trie.paths(first[is_inside])[:, depth]
    return nodes, first < come.end[depth][groups]


def _sums_of_runs(vectors: FloatArray, starts: Positions) -> AnyArray:
    """Sums [runs, D] of the runs of `vectors` [K, D] that begin at `starts`, float64."""
    if len(starts) == 0:
        return np.empty((0, vectors.shape[1]))
    return np.add.reduceat(vectors.astype(np.float64), starts, axis=0)


def _refuse_misfits(tree: SearchTree, codes: AnyArray, new: NewItems) -> None:
    count = len(new.item_ids)
    wanted = {
        "codes": (new.codes.shape, (count, codes.shape[1])),
        "vectors": (new.vectors.shape, (count, tree.vectors.shape[1])),
    }
    for name, (found, shape) in wanted.items():
        if found != shape:
            message = f"{name} of new items are {found} instead of {shape}"
            raise ValueError(message)
    if len(set(new.item_ids)) != count:
        message = "new items hold an item_id twice: give each once"
        raise ValueError(message)

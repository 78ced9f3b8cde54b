"""New items into a search tree, as if they had been there from the start.

Trie and vectors are inputs of the graphs, so no export is needed. A node keeps what it has learned
beyond its items: its vector stays the mean of the item vectors below it plus the same offset, its
bias the logarithm of their number plus the same deviation. A node that comes into being has neither
offset nor deviation. So it does not matter in which order items are inserted.

Shapes: N items, K new ones, L levels, D width, M nodes.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model.decoder import SearchTree
from model.trie import Trie
from model.types import AnyArray, FloatArray, IntArray

Positions = npt.NDArray[np.int64]


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


@dataclass(frozen=True)
class Insertion:
    """A tree of N + K items."""

    tree: SearchTree
    codes: AnyArray
    """[N + K, L], leaf order."""
    kept: IntArray
    """[N] leaf that each former leaf has now."""
    added: IntArray
    """[K] leaf of each new item."""


def insert(tree: SearchTree, codes: AnyArray, item_ids: ItemIds, new: NewItems) -> Insertion:
    """Return the tree with `new` in it; what is given stays as it is.

    Costs a copy of the arrays, and for each new item a walk down the trie.

    Args:
        tree: of N items.
        codes: [N, L], leaf order.
        item_ids: by leaf.
        new: K items, none of which the tree holds.

    Raises:
        ValueError: the shapes do not fit, an id comes twice, or the catalogue's bucket has it.
    """
    _refuse_misfits(tree, codes, new)
    if len(new.item_ids) == 0:
        return Insertion(tree, codes, np.arange(len(codes)), np.empty(0, dtype=np.int64))
    keys = [(*map(int, row), name) for row, name in zip(new.codes, new.item_ids, strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    sorted_codes = np.asarray(new.codes)[order].astype(codes.dtype)
    ids = [new.item_ids[row] for row in order]
    places = np.array(
        [_place(row, name, codes, item_ids) for row, name in zip(sorted_codes, ids, strict=True)]
    )
    leaves = places + np.arange(len(places))
    merged = np.insert(codes, places, sorted_codes, axis=0)
    trie = Trie.of_sorted(merged)
    vectors, biases = _node_values(tree, trie, leaves, new.vectors[order])
    before = np.searchsorted(places, np.arange(len(codes)), side="right")
    added = np.empty(len(order), dtype=np.int64)
    added[order] = leaves
    kept = np.arange(len(codes)) + before
    return Insertion(SearchTree(trie, vectors, biases), merged, kept, added)


def _place(row: AnyArray, item_id: str, codes: AnyArray, item_ids: ItemIds) -> int:
    """The leaf before which an item belongs: order is (semantic ID, item id)."""
    first, end = 0, len(codes)
    for level, code in enumerate(row):
        column = codes[first:end, level]
        low, high = np.searchsorted(column, code), np.searchsorted(column, code, side="right")
        first, end = first + int(low), first + int(high)
    place = bisect_left(range(first, end), item_id, key=item_ids.__getitem__) + first
    if place < end and item_ids[place] == item_id:
        message = f"item_id {item_id!r} is in the catalogue already: remove it first"
        raise ValueError(message)
    return place


@dataclass(frozen=True)
class _Below:
    """What lies below one node, as ranges: of former leaves, and of the sorted new items."""

    node: int
    old: slice
    new: slice

    @property
    def was(self) -> int:
        """Former items below it."""
        return int(self.old.stop - self.old.start)

    @property
    def come(self) -> int:
        """New items below it."""
        return int(self.new.stop - self.new.start)


def _touched(trie: Trie, leaves: Positions) -> Iterator[_Below]:
    """Every node of the new `trie` that has new leaves (ascending) at or below it, ascending."""
    for depth, column in enumerate(trie.paths(leaves).T):
        nodes = np.unique(column)
        first, end = trie.leaf_ranges(nodes, depth)
        low, high = np.searchsorted(leaves, first), np.searchsorted(leaves, end)
        ranges = zip(nodes, first - low, end - high, low, high, strict=True)
        for node, was_first, was_end, new_first, new_end in ranges:
            yield _Below(
                int(node),
                slice(int(was_first), int(was_end)),
                slice(int(new_first), int(new_end)),
            )


def _node_values(
    tree: SearchTree, trie: Trie, leaves: Positions, added: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Vectors [M, D] and biases [M] of the new trie's nodes."""
    touched = list(_touched(trie, leaves))
    fresh = [below for below in touched if not below.was]
    nodes = np.array([below.node for below in fresh], dtype=np.int64)
    means = np.stack([added[below.new].mean(axis=0) for below in fresh])
    counts = np.array([float(below.come) for below in fresh])
    vectors = _spliced(tree.vectors, nodes, means)
    biases = _spliced(tree.biases, nodes, np.log(counts).astype(np.float32))
    for below in touched:
        if below.was:
            mean = tree.item_vectors[below.old].mean(axis=0)
            total = below.was + below.come
            vectors[below.node] += (added[below.new].sum(axis=0) - below.come * mean) / total
            biases[below.node] += np.log(total / below.was)
    return vectors, biases


def _spliced(values: FloatArray, nodes: Positions, fresh: FloatArray) -> FloatArray:
    """`values` [M, ...] with `fresh` [F, ...] put in, to stand at `nodes` [F] (ascending)."""
    bounds = [0, *(nodes - np.arange(len(nodes))).tolist(), len(values)]
    parts = [values[bounds[0] : bounds[1]]]
    for number in range(len(nodes)):
        parts += [fresh[number : number + 1], values[bounds[number + 1] : bounds[number + 2]]]
    return np.concatenate(parts)


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

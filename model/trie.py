"""The trie of real items: which codes may follow which, and which items lie below a node.

Nodes are numbered breadth first, so that the children of a node, and the items below it, are
contiguous: the root is node 0, then come the nodes of depth 1, ..., depth L (the full semantic
IDs, called buckets), and last the N items themselves, which are the children of their buckets.
One array describes all of it (compressed sparse rows, as in STATIC, arXiv 2602.22647): the
children of node n are `child_start[n] .. child_start[n + 1] - 1`.

Shapes: N items, L levels, M nodes (items included), I = M - N inner nodes.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from model.errors import BundleError
from model.types import AnyArray, IntArray


@dataclass(frozen=True)
class Trie:
    """A trie over semantic IDs with the items as leaves."""

    child_start: IntArray
    """int32 [I + 1]: first child of every inner node, then M."""
    depth_start: tuple[int, ...]
    """First node of depth 0 .. L + 1 (the items), then M: L + 3 numbers."""

    @classmethod
    def build(cls, codes: IntArray) -> tuple["Trie", IntArray]:
        """Build the trie of `codes` [N, L] in any order, duplicates allowed.

        Returns:
            The trie, and `order` int64 [N]: row of `codes` that became leaf 0, 1, ...; items that
            share a semantic ID keep their order.

        Raises:
            ValueError: `codes` has no rows or no levels.
        """
        if codes.ndim != 2 or 0 in codes.shape:
            message = f"codes must be [N >= 1, L >= 1], got shape {codes.shape}"
            raise ValueError(message)
        order = np.lexsort(codes.T[::-1])
        return cls.of_sorted(codes[order]), order

    @classmethod
    def of_sorted(cls, codes: AnyArray) -> "Trie":
        """Build the trie of `codes` [N >= 1, L >= 1] in leaf order."""
        starts = _node_starts(codes)
        depth_start = np.cumsum([0, *map(len, starts)])
        child_start = [
            np.searchsorted(below, here) + first
            for (here, below), first in zip(pairwise(starts), depth_start[1:-1], strict=True)
        ]
        rows = np.concatenate([*child_start, depth_start[-1:]]).astype(np.int32)
        return cls(rows, tuple(int(start) for start in depth_start))

    @classmethod
    def from_child_start(cls, child_start: IntArray) -> "Trie":
        """Restore a trie from its array, checking that it is one.

        Raises:
            BundleError: the array does not describe a trie.
        """
        if child_start.ndim != 1 or child_start.dtype.kind != "i":
            message = (
                f"trie.npy does not describe a trie: it is {child_start.dtype} of shape "
                f"{child_start.shape} instead of one row of integers"
            )
            raise BundleError(message)
        depth_start = [0, 1]
        inner = len(child_start) - 1
        total = int(child_start[-1]) if inner > 0 else 0
        while 0 < depth_start[-1] < inner:
            following = int(child_start[depth_start[-1]])
            if following <= depth_start[-1]:
                break
            depth_start.append(following)
        # Fewer than two inner nodes: not even one level of codes.
        grows = inner > 1 and int(child_start[0]) == 1 and bool(np.all(np.diff(child_start) > 0))
        if not grows or depth_start[-1] != inner or total <= inner:
            message = "trie.npy does not describe a trie: its rows do not grow level by level"
            raise BundleError(message)
        return cls(child_start, (*depth_start, total))

    @property
    def levels(self) -> int:
        """Number of code levels L."""
        return len(self.depth_start) - 3

    @property
    def node_count(self) -> int:
        """Number of nodes M, items included."""
        return self.depth_start[-1]

    @property
    def item_start(self) -> int:
        """Node number of leaf 0."""
        return self.depth_start[-2]

    @property
    def item_count(self) -> int:
        """Number of items N."""
        return self.node_count - self.item_start

    @cached_property
    def branching(self) -> tuple[int, ...]:
        """Largest number of children of a node at depth 0 .. L."""
        counts = np.diff(self.child_start)
        return tuple(
            int(counts[here:after].max()) for here, after in pairwise(self.depth_start[:-1])
        )

    def leaf_ranges(self, nodes: IntArray, depth: int) -> tuple[IntArray, IntArray]:
        """First leaf and end leaf (exclusive) below each of `nodes` of one depth, [len(nodes)]."""
        first, end = nodes, nodes + 1
        for _ in range(self.levels + 1 - depth):
            first, end = self.child_start[first], self.child_start[end]
        return first - self.item_start, end - self.item_start

    def paths(self, leaves: IntArray) -> IntArray:
        """Nodes on the way from depth 0 to each leaf: int64 [len(leaves), L + 2]."""
        columns = [np.asarray(leaves, dtype=np.int64) + self.item_start]
        for _ in range(self.levels + 1):
            columns.append(self._parents[columns[-1]].astype(np.int64))
        return np.stack(columns[::-1], axis=1)

    def above(self, leaves: IntArray) -> tuple[IntArray, IntArray]:
        """Nodes on the ways to `leaves` (distinct and ascending), the leaves' own included.

        Returns:
            The nodes, each once, and how many of `leaves` are below each.
        """
        nodes = [np.asarray(leaves) + self.item_start]
        below = [np.ones(len(leaves), dtype=np.int32)]
        for _ in range(self.levels + 1):
            parents = self._parents[nodes[-1]]
            firsts = np.flatnonzero(np.diff(parents, prepend=-1))
            nodes.append(parents[firsts])
            below.append(np.add.reduceat(below[-1], firsts))
        return np.concatenate(nodes), np.concatenate(below)

    @cached_property
    def _parents(self) -> IntArray:
        """Parent of every node, int32 [M]; the root's is itself.

        Kept, because searching for each among the first children reads memory all over the place.
        """
        inner = np.arange(len(self.child_start) - 1, dtype=np.int32)
        return np.concatenate([np.zeros(1, np.int32), np.repeat(inner, np.diff(self.child_start))])


def _node_starts(codes: AnyArray) -> list[IntArray]:
    """First leaf of every node, by depth 0 .. L + 1, for sorted `codes` [N, L]."""
    items = len(codes)
    differs = np.ones(items, dtype=bool)
    differs[1:] = False
    starts = [np.array([0])]
    for level in range(codes.shape[1]):
        differs[1:] |= codes[1:, level] != codes[:-1, level]
        starts.append(np.flatnonzero(differs))
    return [*starts, np.arange(items)]

"""How many legal items lie below every trie node: what keeps a search from dead ends.

One set of counts stands for the live catalogue, one more for each category filter in use. A worker
takes the items that a request excludes out of them, searches, and puts them back.
Shapes: N items, M nodes, R excluded items.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from model.trie import Trie
from model.types import AnyArray, BoolArray, IntArray


class Availability:
    """Counts of legal items below each node, int32 [M]; owned by one thread."""

    def __init__(self, trie: Trie, legal: BoolArray) -> None:
        """Count from `legal` [N], leaf order."""
        self._trie = trie
        self.counts = legal_below(trie, legal)

    def legal(self, leaves: IntArray) -> BoolArray:
        """Which of `leaves` may be recommended now."""
        allowed: BoolArray = self.counts[np.asarray(leaves) + self._trie.item_start] > 0
        return allowed

    @contextmanager
    def without(self, leaves: IntArray) -> Iterator[None]:
        """Take `leaves` (any order, repeats allowed) out while the block runs."""
        excluded = np.sort(np.asarray(leaves, dtype=np.int64))
        excluded = excluded[np.diff(excluded, prepend=-1) > 0]
        nodes, items = self._trie.above(excluded[self.legal(excluded)])
        self.counts[nodes] -= items
        try:
            yield
        finally:
            self.counts[nodes] += items


def legal_below(trie: Trie, legal: BoolArray) -> AnyArray:
    """Number of `legal` [N] items below every node, int32 [M]."""
    # running[n] is the number of legal items before node n of a depth, and after its last one.
    running = np.concatenate([[0], np.cumsum(legal, dtype=np.int32)]).astype(np.int32)
    counts = [np.diff(running)]
    for depth in range(trie.levels, -1, -1):
        here, below = trie.depth_start[depth], trie.depth_start[depth + 1]
        running = running[trie.child_start[here : below + 1] - below]
        counts.append(np.diff(running))
    return np.concatenate(counts[::-1])

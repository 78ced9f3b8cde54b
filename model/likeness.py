"""How much items are like the ones being looked at.

The score of an item falls with the angle between its vector and that of the anchor it is most like.
So that like items are there to be ranked, they are searched for as well: below the finest node of
the trie around each anchor that has enough legal items.
Shapes: N items, D width, A anchors, R items, M nodes.
"""

from typing import Final

import numpy as np

from model.decoder import SearchTree
from model.types import AnyArray, BoolArray, FloatArray, IntArray

LIKENESS_WEIGHT: Final = 16.0
"""What an item at a right angle to every anchor loses: `tests/benchmarks/anchors.py` measures what
other weights do."""


class Likeness:
    """Likeness to the anchors of one query."""

    def __init__(self, tree: SearchTree, anchors: IntArray) -> None:
        """Compare with `anchors`, leaves [A >= 1]."""
        self._tree = tree
        self._anchors = anchors
        self._directions = _unit(tree.item_vectors[anchors])

    def terms(self, leaves: IntArray) -> FloatArray:
        """What is added to the score of each of `leaves` [R]; never positive."""
        cosines = _unit(self._tree.item_vectors[leaves]) @ self._directions.T
        terms: FloatArray = np.float32(LIKENESS_WEIGHT) * (cosines.max(axis=1) - 1)
        return np.minimum(terms, 0)

    def around(self, counts: AnyArray, least: int) -> BoolArray:
        """Which items [N] lie around an anchor, so that `least` legal ones do if possible.

        Args:
            counts: legal items below each node [M].
            least: how many are wanted around each anchor.
        """
        trie = self._tree.trie
        around = np.zeros(trie.item_count, dtype=bool)
        for path in trie.paths(self._anchors):
            depth = int(np.flatnonzero(counts[path] >= least).max(initial=0))
            first, end = trie.leaf_ranges(path[depth : depth + 1], depth)
            around[int(first[0]) : int(end[0])] = True
        return around


def _unit(vectors: FloatArray) -> FloatArray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: FloatArray = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit

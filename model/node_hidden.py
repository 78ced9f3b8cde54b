"""What the vector of a trie node adds to the query for its children, computed once per catalogue.

At every node the generator asks, with weights of its depth (`model.training.network.LevelQuery`),

    query = h + outer gelu(inner_h h + inner_v v + b) + c,     h the history, v the node's vector,

and inner_v v is the same for every request: `decoder.onnx` reads it from a table instead of
multiplying for every beam. Nodes with one child are not asked, so they have no row, but the root is
always asked.

Shapes: A nodes that are asked, M nodes, I inner nodes, L levels, D width.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from model.splice import Splice
from model.trie import Trie
from model.types import AnyArray, FloatArray, IntArray

NODES_AT_ONCE = 65_536
"""Nodes whose vectors are copied together to be multiplied; bounds memory."""


@dataclass(frozen=True)
class NodeHidden:
    """The table of one tree."""

    table: FloatArray
    """inner_v v of each node that is asked, in the order of nodes [A, 2 D]."""
    rows: IntArray
    """Row of each inner node, int32 [I]; 0, which is the root's, for nodes that are not asked."""
    weights: FloatArray
    """inner_v by depth, transposed: [L + 1, D, 2 D]."""

    @classmethod
    def build(cls, trie: Trie, vectors: FloatArray, weights: FloatArray) -> "NodeHidden":
        """Compute the table.

        Args:
            trie: of the catalogue.
            vectors: of its nodes [M, D].
            weights: as above.
        """
        return cls.known(trie, _products(trie, vectors, weights, asked_nodes(trie)), weights)

    @classmethod
    def known(cls, trie: Trie, table: FloatArray, weights: FloatArray) -> "NodeHidden":
        """A table that has been computed before."""
        nodes = asked_nodes(trie)
        rows = np.zeros(trie.item_start, dtype=np.int32)
        rows[nodes] = np.arange(len(nodes))
        return cls(table, rows, weights)

    def edited(
        self, trie: Trie, vectors: FloatArray, inner: Splice, changed: IntArray
    ) -> "NodeHidden":
        """The table of an edited tree; rows of nodes that are as they were are copied.

        Args:
            trie: after the edit.
            vectors: after it [M, D].
            inner: how the inner nodes have changed.
            changed: all former inner nodes that have another vector or other children, by the
                numbers that they have now.
        """
        is_new = np.zeros(trie.item_start, dtype=np.bool_)
        is_new[changed] = is_new[inner.added] = True
        now = inner.moved[np.append(0, np.flatnonzero(self.rows))]  # of each row, -1 where it goes
        is_kept = (now >= 0) & ~is_new[now]
        kept = np.flatnonzero(is_kept)
        nodes = asked_nodes(trie)
        nodes = nodes[is_new[nodes]]
        places = np.append(kept, len(now))[np.searchsorted(now[kept], nodes)]
        spliced = Splice(len(now), np.flatnonzero(~is_kept), places)
        products = _products(trie, vectors, self.weights, nodes)
        return self.known(trie, spliced.rows(self.table, products), self.weights)


def asked_nodes(trie: Trie) -> IntArray:
    """The root, and the inner nodes with several children, ascending [A]."""
    is_asked = np.diff(trie.child_start) > 1
    is_asked[0] = True
    return np.flatnonzero(is_asked)


def _products(trie: Trie, vectors: FloatArray, weights: AnyArray, nodes: IntArray) -> FloatArray:
    """inner_v v of ascending inner `nodes` [A] -> [A, 2 D]."""
    products = np.empty((len(nodes), weights.shape[2]), dtype=np.float32)
    bounds = np.searchsorted(nodes, trie.depth_start[: trie.levels + 2])
    for depth, (first, end) in enumerate(pairwise(bounds.tolist())):
        for start in range(first, end, NODES_AT_ONCE):
            some = slice(start, min(start + NODES_AT_ONCE, end))
            products[some] = vectors[nodes[some]] @ weights[depth]
    return products

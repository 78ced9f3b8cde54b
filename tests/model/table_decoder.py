"""A generator that is nothing but a table, and what a search over it must find, by brute force."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from model.trie import Trie
from model.types import BoolArray, FloatArray, IntArray

NOTHING = np.zeros(1, np.float32)
"""The encoded history, which a table does not read."""


@dataclass(frozen=True)
class TableDecoder:
    """Log-probability of every node given its parent, whatever the history."""

    trie: Trie
    log_probs: FloatArray
    """[M]"""

    @classmethod
    def random(cls, trie: Trie, seed: int, *, spread: float = 2.0) -> "TableDecoder":
        generator = np.random.default_rng(seed)
        log_probs = np.zeros(trie.node_count, np.float32)
        for first, end in zip(trie.child_start[:-1], trie.child_start[1:], strict=True):
            logits = generator.normal(scale=spread, size=end - first)
            log_probs[first:end] = logits - np.log(np.exp(logits).sum())
        return cls(trie, log_probs)

    def child_log_probs(
        self,
        h: FloatArray,  # noqa: ARG002 - a table answers every history alike
        nodes: IntArray,
        depth: int,
    ) -> FloatArray:
        columns = self.trie.branching[depth]
        table = np.full((len(nodes), columns), -np.inf, np.float32)
        for row, node in enumerate(nodes):
            first, end = self.trie.child_start[node], self.trie.child_start[node + 1]
            table[row, : end - first] = self.log_probs[first:end]
        return table

    def steps(self) -> FloatArray:
        """Log-probability of every choice on the way to every leaf [N, L + 1]."""
        paths = self.trie.paths(np.arange(self.trie.item_count))
        steps: FloatArray = self.log_probs[paths[:, 1:]]
        return steps


@st.composite
def semantic_ids(draw: st.DrawFn, *, most_items: int = 25) -> IntArray:
    """Codes [N, L] in any order, with many shared prefixes and whole IDs."""
    shape = draw(st.tuples(st.integers(1, most_items), st.integers(1, 4)))
    codes: IntArray = draw(npst.arrays(np.int32, shape, elements=st.integers(0, 3)))
    return codes


@st.composite
def decoders(draw: st.DrawFn) -> TableDecoder:
    """Small tries with random tables."""
    trie, _ = Trie.build(draw(semantic_ids()))
    return TableDecoder.random(trie, draw(st.integers(0, 2**32 - 1)))


@st.composite
def filtered_decoders(draw: st.DrawFn) -> tuple[TableDecoder, BoolArray]:
    """A table, and which items [N] are legal."""
    decoder = draw(decoders())
    legal: BoolArray = draw(npst.arrays(np.bool_, decoder.trie.item_count))
    return decoder, legal

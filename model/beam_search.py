"""Beam search over the trie of real items, step by step in NumPy.

This is the readable reference that `decoder.onnx` is checked against, and the search to use where
the width is open (exhaustive search: a width of N) or the number of levels is.

Log-probabilities are normalised over all children present in the trie, filters mask afterwards, so
they only fall along a path: an item under a pruned prefix cannot score more than that prefix.
Shapes: W beams, C children, L levels, R results, M nodes.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from model.trie import Trie
from model.types import AnyArray, FloatArray, IntArray


class StepDecoder(Protocol):
    """Scores the children of trie nodes for one encoded history."""

    def child_log_probs(self, h: FloatArray, nodes: IntArray, depth: int) -> FloatArray:
        """Log-probabilities [W, C] of the children of `nodes` [W], all of `depth`, given h [D].

        Column c is child c; places beyond a node's children are -inf.
        """


@dataclass(frozen=True)
class BeamResult:
    """Items that a search reached, best first by log-probability."""

    leaves: IntArray
    """[R]"""
    log_probs: FloatArray
    """[R, L + 1]: per level, and for the choice inside the bucket; their sum orders the items.
    [R, 1] where levels have no fixed order: only their sum is known."""
    pruned: float | None
    """Log-probability of the best legal prefix left behind on any level; -inf if none was. None
    where the search has no such bound."""

    def totals(self) -> FloatArray:
        """Log-probability of each item [R]."""
        totals: FloatArray = self.log_probs.sum(axis=1)
        return totals

    def joined(self, other: "BeamResult") -> "BeamResult":
        """These items and those that another search for the same history reached besides."""
        new = ~np.isin(other.leaves, self.leaves)
        return BeamResult(
            np.concatenate([self.leaves, other.leaves[new]]),
            np.concatenate([self.log_probs, other.log_probs[new]]),
            None,
        )

    def none(self) -> "BeamResult":
        """The same search without its items."""
        return BeamResult(self.leaves[:0], self.log_probs[:0], self.pruned)

    def by_level(self, place: int) -> tuple[float, ...] | None:
        """Log-probability of each choice on the way to the item at `place`; None if not known."""
        probs = self.log_probs[place].tolist()
        return tuple(probs) if len(probs) > 1 else None


def beam_search(
    decoder: StepDecoder, trie: Trie, h: FloatArray, counts: AnyArray, width: int
) -> BeamResult:
    """Find the `width` most probable legal items.

    Args:
        decoder: scores children.
        trie: of the whole catalogue.
        h: encoded history [D].
        counts: legal items below each node [M]; prefixes without any are never followed.
        width: beams kept after each level; N of them make the search exhaustive.
    """
    nodes = np.zeros(1 if counts[0] > 0 else 0, dtype=np.int64)
    steps = np.zeros((len(nodes), 0), dtype=np.float32)
    pruned = -np.inf
    for depth in range(trie.levels + 1):
        log_probs = decoder.child_log_probs(h, nodes, depth)
        first = trie.child_start[nodes].astype(np.int64)
        children = first[:, None] + np.arange(log_probs.shape[1])
        taken = children < trie.child_start[nodes + 1][:, None]
        legal = taken & (counts[np.where(taken, children, 0)] > 0)
        beam, slot = np.nonzero(legal)
        totals = steps.sum(axis=1)[beam] + log_probs[beam, slot]
        order = np.argsort(-totals, kind="stable")
        if len(order) > width:
            pruned = max(pruned, float(totals[order[width]]))
        beam, slot = beam[order[:width]], slot[order[:width]]
        nodes = children[beam, slot]
        steps = np.concatenate([steps[beam], log_probs[beam, slot, None]], axis=1)
    return BeamResult(nodes - trie.item_start, steps, pruned)

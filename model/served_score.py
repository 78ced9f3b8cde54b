"""The score that items are ranked by, once a search has found them.

The served score of an item is `log p(item | history) + w * (h . v + e - u)`: the generator's
log-probability plus the item head's opinion of it, where e is the evidence of transitions
(`model/transitions.py`) and u = |h| * max |v| + max e bounds every h . v + e, so that the second
term is never positive. An item under a pruned prefix therefore scores at most the
log-probability of that prefix plus the best second term of all items that the search did not reach:
when the last item served is above that, the list is exactly the best of the whole catalogue
(`model/certificate.py`). Items that the user has seen, where they are not left out, get the
bundle's repeat bonus on top: far below zero where nobody comes back.

Shapes: D width, N items, R results, T history length.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from model.beam_search import BeamResult
from model.bundle import Bundle
from model.transitions import EvidenceBiases
from model.types import FloatArray, IntArray


class ServedScore:
    """Scores the items of one bundle; one per thread, for it owns the biases of a history.

    Attributes:
        tree: with the biases of the history that is being read.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._facts = bundle.manifest.score
        weights = self._facts.evidence_weights
        self._biases = EvidenceBiases(bundle.tree, bundle.transitions, weights)
        self.tree = self._biases.tree

    @contextmanager
    def after(self, leaves: IntArray) -> Iterator[None]:
        """Weigh what followed the history [T] in training while the block runs."""
        with self._biases.after(leaves):
            yield

    def of_found(self, h: FloatArray, found: BeamResult, seen: IntArray) -> FloatArray:
        """The served score of each item found [R], given the leaves that the user has seen."""
        affinities = self.tree.item_vectors[found.leaves] @ h
        affinities += self._biases.evidence.term(found.leaves)
        weight = np.float32(self._facts.fusion_weight)
        fused: FloatArray = found.totals() + weight * (affinities - self._bound(h))
        fused[np.isin(found.leaves, seen)] += np.float32(self._facts.repeat_bonus())
        return fused

    def of_item_head(self, h: FloatArray, first: int = 0, end: int | None = None) -> FloatArray:
        """The item head's own score h . v + e of the leaves `first` to `end` (exclusive)."""
        end = self.tree.trie.item_count if end is None else end
        scores: FloatArray = self.tree.item_vectors[first:end] @ h
        evidence = self._biases.evidence
        here = slice(*np.searchsorted(evidence.leaves, (first, end)))
        scores[evidence.leaves[here] - first] += evidence.terms[here]
        return scores

    def second_terms(self, h: FloatArray, first: int = 0, end: int | None = None) -> FloatArray:
        """What the item head adds to the log-probabilities of the leaves `first` to `end`."""
        weight = np.float32(self._facts.fusion_weight)
        terms: FloatArray = weight * (self.of_item_head(h, first, end) - self._bound(h))
        return terms

    def most_for_repeats(self) -> float:
        """The most that having been seen adds to an item's score."""
        return max(0.0, self._facts.repeat_bonus())

    def _bound(self, h: FloatArray) -> np.float32:
        """What no item head's score is above."""
        largest = np.linalg.norm(h) * self._facts.largest_item_norm
        return np.float32(largest + self._biases.evidence.most)

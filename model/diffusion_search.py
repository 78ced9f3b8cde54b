"""Diffusion Beam Search (MindRec, arXiv 2511.12597) over real items, step by step in NumPy.

A decoder looks at an item's codes, some of them masked, and gives the log-probabilities of every
masked one. The search unmasks the category levels in order, coarse to fine, and then whichever
code the decoder is surest of, one code per step; last it chooses among the items that share all
codes. This is the readable reference that `decoder.onnx` of a diffusion bundle is checked against.

Every partly unmasked ID is one of real, legal items at every step. Log-probabilities are normalised
over the codes that items of the whole catalogue have, given the unmasked ones; filters mask
afterwards. To a code's logit comes what transitions say of the items that have it and the unmasked
ones, `beta_p log(1 + e / scale)`: at a category level that is the evidence of a trie node. A partly
unmasked ID that several orders arrive at is kept once, with the best score.
Shapes: N items, L levels, K codes of the largest level, W beams, C items of a bucket, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np

from model.beam_search import BeamResult
from model.evidence import ItemEvidence, log_evidence
from model.trie import Trie
from model.types import BoolArray, FloatArray, IntArray

Beams: TypeAlias = tuple[IntArray, FloatArray]
"""Partly unmasked IDs [W, L] and their scores [W]."""

MASKED = -1
"""The code of a position that is not known yet."""
ANY_ORDER_ITEMS_MAX = 2048
"""Items of the largest category up to which codes are unmasked in any order: the search looks
through a category's items in every step. In catalogues with larger ones all levels are taken in
order, coarse to fine, where the trie tells which codes are left."""


class MaskedDecoder(Protocol):
    """Scores the masked codes of items, and the items of a bucket, for one encoded history."""

    def code_logits(self, h: FloatArray, codes: IntArray) -> FloatArray:
        """Logits [W, L, K], without evidence, of every code at every position, given h [D].

        Positions of `codes` [W, L] that are not known are `MASKED`; logits of known ones mean
        nothing.
        """

    def item_logits(self, h: FloatArray, codes: IntArray, leaves: IntArray) -> FloatArray:
        """Logits [W, C], with their evidence, of the items `leaves` [W, C] of the codes [W, L]."""


@dataclass(frozen=True)
class Unmasking:
    """The order in which codes are unmasked, and whether beams are kept apart."""

    ordered_levels: int
    """Leading levels that are taken in order; all of them where a category is too large."""
    schedule: tuple[int, ...] | None = None
    """The other levels in the order to take them; by confidence when not given."""
    diversity: bool = False
    """Lower a candidate's score by ln(1 - ln(1 + overlap)), the overlap being the largest share of
    codes beyond the ordered ones that it has in common with one of the W best candidates."""

    def in_order(self, levels: int) -> "Unmasking":
        """The same with all levels coarse to fine, which always reaches W items if W are legal."""
        return replace(self, schedule=tuple(range(self.ordered_levels, levels)))

    def openings(self, levels: int) -> BoolArray:
        """Which positions may be unmasked at each step, [L, L]."""
        if self.schedule is None:
            steps = np.ones((levels, levels), dtype=bool)
            steps[: self.ordered_levels] = np.eye(levels, dtype=bool)[: self.ordered_levels]
            return steps
        order = [*range(self.ordered_levels), *self.schedule]
        opened: BoolArray = np.eye(levels, dtype=bool)[order]
        return opened


@dataclass(frozen=True)
class CodeTable:
    """What the decoder knows of the codes, and which items have them."""

    codes: IntArray
    """[N, L], leaf order."""
    vectors: FloatArray
    """[L, K, D]; zero where a level has no such code"""
    biases: FloatArray
    """[L, K]"""
    evidence_weights: FloatArray
    """beta of each position [L]"""

    @cached_property
    def first_of_bucket(self) -> IntArray:
        """The first leaf with the same codes as each leaf, int64 [N]."""
        return first_of_bucket(self.codes)

    def over(self, codes: IntArray, item_vectors: FloatArray, added: IntArray) -> "CodeTable":
        """The table over other items; what is given stays as it is.

        A code that no item had is known by nothing: like a node that comes into being in a trie it
        gets the mean of the items that have it now and the logarithm of their number. Others keep
        what they have learned.

        Args:
            codes: of M items, [M, L], leaf order.
            item_vectors: [M, D].
            added: leaves of those of them that this table does not know.
        """
        vectors, biases = np.array(self.vectors), np.array(self.biases)
        for level, column in enumerate(codes.T):
            is_known = np.zeros(vectors.shape[1], dtype=bool)
            is_known[self.codes[:, level]] = True
            own = column[added]
            for code in np.unique(own[~is_known[own]]):
                having = item_vectors[added[own == code]]
                vectors[level, code] = having.mean(axis=0, dtype=np.float64)
                biases[level, code] = np.log(len(having))
        return CodeTable(codes, vectors, biases, self.evidence_weights)


def first_of_bucket(codes: IntArray) -> IntArray:
    """The first leaf with the same `codes` [N, L] as each leaf, int64 [N]."""
    is_first = np.ones(len(codes), dtype=bool)
    is_first[1:] = (codes[1:] != codes[:-1]).any(axis=1)
    firsts: IntArray = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    return firsts


def ordered_levels(trie: Trie, category_levels: int) -> int:
    """How many leading levels to take in order: the category's, or all of a catalogue too large.

    Args:
        trie: of the catalogue.
        category_levels: leading levels that spell the category; the first level is always one.
    """
    leading = max(1, category_levels)
    return leading if largest_range(trie, leading) <= ANY_ORDER_ITEMS_MAX else trie.levels


def largest_range(trie: Trie, depth: int) -> int:
    """Most items below one node of `depth`."""
    nodes = np.arange(trie.depth_start[depth], trie.depth_start[depth + 1])
    first, end = trie.leaf_ranges(nodes, depth)
    return int((end - first).max())


@dataclass(frozen=True)
class DiffusionSearch:
    """The search over one catalogue."""

    decoder: MaskedDecoder
    codes: IntArray
    """[N, L], leaf order."""
    evidence: ItemEvidence
    """What transitions say after the history."""
    evidence_weights: FloatArray
    """beta of each position [L]"""

    def search(
        self, h: FloatArray, legal: BoolArray, width: int, unmasking: Unmasking
    ) -> BeamResult:
        """Find `width` probable legal items, or all of them where there are fewer.

        Args:
            h: encoded history [D].
            legal: which items may be found [N].
            width: beams kept after each step, W.
            unmasking: order and diversity.
        """
        in_order = unmasking.in_order(self.codes.shape[1])
        return complete(
            self._search(h, legal, width, unmasking),
            lambda: self._search(h, legal, width, in_order),
            min(width, int(legal.sum())),
        )

    def _search(
        self, h: FloatArray, legal: BoolArray, width: int, unmasking: Unmasking
    ) -> BeamResult:
        if not legal.any():
            return BeamResult(np.empty(0, np.int64), np.empty((0, 1), np.float32), None)
        levels = self.codes.shape[1]
        states: IntArray = np.full((1, levels), MASKED, dtype=np.int64)
        totals = np.zeros(1, dtype=np.float32)
        for step, opened in enumerate(unmasking.openings(levels)):
            # 1. Score the codes that occur among the items which agree with what is unmasked.
            states, totals = self._unmask(h, legal, (states, totals), opened, levels * width)
            # 2. Keep beams apart, and the best W of them.
            if unmasking.diversity and step >= unmasking.ordered_levels:
                free = states[:, unmasking.ordered_levels :]
                totals = totals + diversity_penalty(free, width)
            best = np.argsort(-totals, kind="stable")[:width]
            states, totals = states[best], totals[best]
        return self._choose_items(h, legal, (states, totals), width)

    def _unmask(
        self, h: FloatArray, legal: BoolArray, beams: Beams, opened: BoolArray, pool: int
    ) -> Beams:
        """The best `pool` ways to unmask one more code, each partly unmasked ID once."""
        states, totals = beams
        agree = ((states[:, None] == MASKED) | (states[:, None] == self.codes)).all(axis=2)
        logits = self.decoder.code_logits(h, states)
        logits = logits + self._evidence_terms(agree, logits.shape)
        occurs = _occurring(self.codes, agree, logits.shape)
        log_probs = _log_softmax(np.where(occurs, logits, -np.inf))
        possible = _occurring(self.codes, agree & legal, logits.shape)
        possible &= ((states == MASKED) & opened)[:, :, None]
        beam, position, code = np.nonzero(possible)
        scores = totals[beam] + log_probs[beam, position, code]
        best = np.argsort(-scores, kind="stable")[:pool]
        grown = states[beam[best]]
        grown[np.arange(len(best)), position[best]] = code[best]
        _, first = np.unique(grown, axis=0, return_index=True)
        kept = np.sort(first)
        return grown[kept], scores[best[kept]]

    def _evidence_terms(self, agree: BoolArray, shape: tuple[int, ...]) -> FloatArray:
        """What evidence adds to the logits of codes [W, L, K], given which items agree [W, N]."""
        sums = np.zeros(shape, dtype=np.float32)
        beam, place = np.nonzero(agree[:, self.evidence.leaves])
        codes: IntArray = self.codes[self.evidence.leaves[place]]
        amounts = self.evidence.amounts[place]
        for level in range(shape[1]):
            np.add.at(sums[:, level], (beam, codes[:, level]), amounts)
        terms: FloatArray = self.evidence_weights[:, None] * log_evidence(sums)
        return terms

    def _choose_items(
        self, h: FloatArray, legal: BoolArray, beams: Beams, width: int
    ) -> BeamResult:
        """The last choice: among the items that have all codes of a beam."""
        leaves, scores = [], []
        for state, total in zip(*beams, strict=True):
            bucket = np.flatnonzero((self.codes == state).all(axis=1))
            logits = self.decoder.item_logits(h, state[None], bucket[None])[0]
            leaves.append(bucket[legal[bucket]])
            scores.append((total + _log_softmax(logits))[legal[bucket]])
        found, totals = np.concatenate(leaves), np.concatenate(scores)
        best = np.argsort(-totals, kind="stable")[:width]
        return BeamResult(found[best], totals[best, None], None)


def complete(
    found: BeamResult, search_in_order: Callable[[], BeamResult], wanted: int
) -> BeamResult:
    """Add what a search in order finds where `found` holds fewer than `wanted` items.

    Beams that have unmasked different positions can stand for the same items, so that a search in
    any order may end with fewer items than beams; in order it cannot.
    """
    if len(found.leaves) >= wanted:
        return found
    both = [found, search_in_order()]
    leaves = np.concatenate([each.leaves for each in both])
    log_probs = np.concatenate([each.log_probs for each in both])
    best = np.lexsort((leaves, -log_probs[:, 0]))
    _, first = np.unique(leaves[best], return_index=True)
    kept = best[np.sort(first)][:wanted]
    return BeamResult(leaves[kept], log_probs[kept], None)


def diversity_penalty(states: IntArray, leaders: int) -> FloatArray:
    """What is added to the score of each of `states` [C, F], best first, for the sake of diversity.

    ln(1 - ln(1 + s)), where s is the largest share of its unmasked codes that it has in common with
    a better one of the first `leaders`; between 0 and ln(1 - ln 2) = -1.18.
    """
    unmasked = states != MASKED
    count = np.maximum(unmasked.sum(axis=1), 1)
    same = ((states[:, None] == states[:leaders]) & unmasked[:, None]).sum(axis=2)
    better = np.arange(len(states))[:, None] > np.arange(len(states[:leaders]))
    overlap = np.where(better, same, 0).max(axis=1, initial=0) / count
    penalty: FloatArray = np.log1p(-np.log1p(overlap)).astype(np.float32)
    return penalty


def _occurring(codes: IntArray, items: BoolArray, shape: tuple[int, ...]) -> BoolArray:
    """Which codes [W, L, K] the items of each beam [W, N] have."""
    found = np.zeros(shape, dtype=bool)
    beam, leaf = np.nonzero(items)
    for level in range(shape[1]):
        found[beam, level, codes[leaf, level]] = True
    return found


def _log_softmax(logits: FloatArray) -> FloatArray:
    """Over the last axis; -inf stays -inf, also where it is everywhere."""
    highest = logits.max(axis=-1, keepdims=True)
    shifted = logits - np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):
        log_probs: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.where(np.isneginf(logits), -np.inf, log_probs).astype(np.float32)

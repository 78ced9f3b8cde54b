"""Which items followed which in training: evidence beside what the network remembers.

A network has a few hundred numbers per item; that two items came one after the other a handful of
times is nothing it can keep. A table can, and what it says is added to the network's logits (as
k-nearest-neighbour language models add a memory to a network, Khandelwal et al., ICLR 2020):

    weight    w(i -> j) = sum of 0.7^(d - 1) over the places where j came d <= 4 items after i,
                          / sqrt((n_i + 2) (n_j + 2)),  n the training events of an item
    evidence  e(j)      = sum over the items i of the history, a items ago, of 0.7^a w(i -> j)
    bias      b(node)  += beta log(1 + (sum of e over the items below) / 0.02),  beta per depth

Most items have no evidence, so only the nodes on the way to a few hundred items change per request.
Shapes: N items, E transitions, T history length, R items with evidence, M trie nodes, L levels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from model.decoder import SearchTree
from model.evidence import log_evidence
from model.types import AnyArray, FloatArray, IntArray

FARTHEST = 4
"""Places between two items of a history that still count as one following the other."""
FADING = 0.7
"""What one more item in between, or one more since, leaves of the evidence."""
PRIOR_EVENTS = 2.0
"""Events that every item is taken to have besides its own: rare pairs prove little."""
FOLLOWERS_MOST = 32
"""Followers kept of an item, those of most weight."""
READ_MOST = 20
"""Newest items of a history that are looked up: 0.7^20 is less than a thousandth."""
WEIGHT_MOST = sum(FADING**distance for distance in range(FARTHEST))
"""No w is above: each of the fewer events of a pair counts once at every distance."""


@dataclass(frozen=True)
class Moves:
    """From the leaves of a table of transitions to those of an edited catalogue, and back."""

    now: IntArray
    """The leaf that each leaf of the table has become [N]."""
    before: IntArray
    """The leaf of the table by leaf of the catalogue, -1 for items that it does not know."""


@dataclass(frozen=True)
class Transitions:
    """The followers of every item, as compressed sparse rows."""

    start: IntArray
    """int64 [N + 1]: the followers of leaf i are those at start[i] .. start[i + 1] - 1."""
    followers: IntArray
    """Leaves, int32 [E]."""
    weights: FloatArray
    """w [E]."""
    moves: Moves | None = None
    """Where the catalogue has other leaves than the table."""

    @classmethod
    def count(cls, histories: Sequence[IntArray], items: int) -> "Transitions":
        """Count over training histories of leaves, oldest first."""
        leaves = np.concatenate([np.empty(0, np.int64), *histories]).astype(np.int64)
        owner = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
        pairs, amounts = pairs_of(leaves, owner)
        keys, amounts = summed(pairs[:, 0] * items + pairs[:, 1], amounts)
        before, after = np.divmod(keys, items)
        weights = amounts / pair_scale(np.bincount(leaves, minlength=items), before, after)
        # The heaviest followers of each item, equal ones in leaf order, then all in leaf order.
        order = np.lexsort((after, -weights, before))
        place = np.arange(len(order)) - np.searchsorted(before[order], before[order])
        kept = np.sort(order[place < FOLLOWERS_MOST])
        start = np.searchsorted(before[kept], np.arange(items + 1))
        return cls(start, after[kept].astype(np.int32), weights[kept].astype(np.float32))

    def is_sound(self, items: int) -> bool:
        """Whether this is a table over so many items, whatever file it was read from."""
        start, entries = self.start, self.followers.size
        rows = self.followers.shape == self.weights.shape == (entries,)
        if not rows or start.shape != (items + 1,) or start[0] != 0 or start[-1] != entries:
            return False
        if np.any(start[1:] < start[:-1]):
            return False
        inside = entries == 0 or (self.followers.min() >= 0 and self.followers.max() < items)
        return bool(inside and np.all((self.weights >= 0) & (self.weights <= WEIGHT_MOST)))

    def evidence(self, history: IntArray) -> tuple[IntArray, FloatArray]:
        """Items with evidence after a history of leaves [T], oldest first.

        Returns:
            Their leaves, ascending, and e of each, both [R].
        """
        newest: IntArray = np.asarray(history, dtype=np.int64)[::-1][:READ_MOST]
        ages = np.arange(len(newest))
        if self.moves is not None:
            newest = self.moves.before[newest]
            ages, newest = ages[newest >= 0], newest[newest >= 0]
        number, places = expanded(self.start, newest)
        amounts = self.weights[places] * np.float32(FADING) ** ages[number]
        leaves: IntArray = self.followers[places].astype(np.int64)
        if self.moves is not None:
            leaves = self.moves.now[leaves]
        leaves, amounts = summed(leaves, amounts)
        return leaves, amounts.astype(np.float32)

    def moved(self, leaf_now: IntArray, items: int) -> "Transitions":
        """The same transitions in a catalogue of `items` where leaf i has become `leaf_now[i]`.

        The table stays as it is, and what is asked of it is translated: writing tens of millions of
        followers anew is a good part of a second, translating hundreds of them is nothing.
        """
        now = leaf_now if self.moves is None else leaf_now[self.moves.now]
        before = np.full(items, -1)
        before[now] = np.arange(len(now))
        return replace(self, moves=Moves(now, before))


def pairs_of(leaves: IntArray, owner: IntArray) -> tuple[IntArray, FloatArray]:
    """Pairs [P, 2] of items at most `FARTHEST` places apart in one history, and 0.7^(d - 1) each.

    Args:
        leaves: all histories, one after the other.
        owner: the history that each place belongs to.
    """
    pairs, amounts = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for distance in range(1, FARTHEST + 1):
        same = owner[:-distance] == owner[distance:]
        pairs.append(np.stack([leaves[:-distance], leaves[distance:]], axis=1)[same])
        amounts.append(np.full(int(same.sum()), FADING ** (distance - 1)))
    return np.concatenate(pairs), np.concatenate(amounts)


def pair_scale(events: IntArray, before: IntArray, after: IntArray) -> AnyArray:
    """sqrt((n_i + 2) (n_j + 2)) of pairs of leaves, given the training events n of all [N]."""
    return np.sqrt((events[before] + PRIOR_EVENTS) * (events[after] + PRIOR_EVENTS))


def expanded(start: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Every entry of `rows` of a table of compressed sparse rows: number in `rows`, and place."""
    counts = start[rows + 1] - start[rows]
    number = np.repeat(np.arange(len(rows)), counts)
    offset = np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)
    return number, np.repeat(start[rows], counts) + offset


def summed(keys: IntArray, amounts: AnyArray) -> tuple[IntArray, AnyArray]:
    """Each key once, ascending, with the sum of its amounts."""
    distinct, inverse = np.unique(keys.astype(np.int64), return_inverse=True)
    return distinct, np.bincount(inverse, weights=amounts, minlength=len(distinct))


@dataclass(frozen=True)
class Evidence:
    """What the transitions say after one history."""

    nodes: IntArray
    """Whose biases change."""
    added: FloatArray
    """By how much."""
    leaves: IntArray
    """Items with evidence, ascending [R]."""
    amounts: FloatArray
    """e of each [R]."""
    terms: FloatArray
    """What is added to the item head's score of each [R]."""

    def term(self, leaves: IntArray) -> FloatArray:
        """What is added to the item head's scores of `leaves`; 0 without evidence."""
        terms = np.zeros(len(leaves), dtype=np.float32)
        if len(self.leaves):
            place = np.minimum(np.searchsorted(self.leaves, leaves), len(self.leaves) - 1)
            terms = np.where(self.leaves[place] == leaves, self.terms[place], terms)
        return terms

    @property
    def most(self) -> float:
        """The largest term of any item of the catalogue, 0 at least."""
        return float(self.terms.max(initial=0.0))


_NO_LEAVES, _NO_NUMBERS = np.empty(0, np.int64), np.empty(0, np.float32)
NOTHING = Evidence(_NO_LEAVES, _NO_NUMBERS, _NO_LEAVES, _NO_NUMBERS, _NO_NUMBERS)


class EvidenceBiases:
    """A search tree whose biases follow one history after the other; owned by one thread."""

    def __init__(
        self, tree: SearchTree, transitions: Transitions, weights: Sequence[float]
    ) -> None:
        """Start without evidence.

        Args:
            tree: stays as it is.
            transitions: of its leaves.
            weights: beta of the choices at depth 0 .. L, and of the item head [L + 2].
        """
        self._plain = tree.biases
        self._transitions = transitions
        self._weights = np.asarray(weights, dtype=np.float32)
        evidence = np.zeros(tree.trie.item_count, np.float32)
        self.tree = replace(tree, biases=np.array(tree.biases), evidence=evidence)
        """The tree with the biases and the evidence of the history that is read now."""
        self.evidence = NOTHING
        """What is in them."""

    @contextmanager
    def after(self, history: IntArray) -> Iterator[None]:
        """Let `tree` have the evidence of a history of leaves, and no other, in the block."""
        former = self.evidence
        self._replace(self._evidence(history))
        try:
            yield
        finally:
            self._replace(former)

    def _replace(self, evidence: Evidence) -> None:
        biases = self.tree.biases
        biases[self.evidence.nodes] = self._plain[self.evidence.nodes]
        biases[evidence.nodes] += evidence.added
        self.tree.evidence[self.evidence.leaves] = 0.0
        self.tree.evidence[evidence.leaves] = evidence.amounts
        self.evidence = evidence

    def _evidence(self, history: IntArray) -> Evidence:
        leaves, amounts = self._transitions.evidence(history)
        if not len(leaves):
            return NOTHING
        nodes, added = [], []
        for depth, column in enumerate(self.tree.trie.paths(leaves).T[1:]):
            first = np.flatnonzero(np.diff(column, prepend=-1))  # nodes ascend with their leaves
            nodes.append(column[first])
            below = np.add.reduceat(amounts, first)
            added.append(self._weights[depth] * log_evidence(below))
        terms = self._weights[-1] * log_evidence(amounts)
        return Evidence(np.concatenate(nodes), np.concatenate(added), leaves, amounts, terms)

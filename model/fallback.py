"""What is answered where the search has nothing, or nothing more, to say: the fallback chain.

Popular items of the categories that the user is likely to want, then popular items, then the
bundle's default list, which holds every item. Each link leaves out what those before it gave, and
all of them what is not legal, so that k items come back whenever k legal items exist.
Shapes: N items, G coarse codes (trie nodes of depth 1), D width, T history length, R items.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from model.availability import Availability
from model.bundle import Bundle
from model.decoder import GraphStepDecoder, SearchTree
from model.explore import node_log_probs
from model.types import AnyArray, BoolArray, FloatArray, IntArray

LIKELY_MASS: Final = 0.8
"""Likely are the fewest coarse categories that together have this probability."""
_CHUNK = 1024


@dataclass(frozen=True)
class Link:
    """The items of one link of the chain, best first."""

    source: str
    """`popular_in_category`, `popular` or `default`."""
    leaves: IntArray
    """[R]"""
    log_probs: AnyArray
    """Logarithm of the share of the training events that each item stands for, boosts added [R]."""


class FallbackChain:
    """The chain of one bundle."""

    def __init__(self, bundle: Bundle, tree: SearchTree) -> None:
        """Serve `bundle`, whose `tree` may have a history's evidence in its biases."""
        self._bundle = bundle
        self._tree = tree
        self._trie = tree.trie
        nodes = np.arange(self._trie.depth_start[1], self._trie.depth_start[2])
        self._first, self._end = self._trie.leaf_ranges(nodes, 1)
        before = bundle.shares_before
        self._log_masses = np.log(before[self._end] - before[self._first])
        seen = np.concatenate([[0], np.cumsum(bundle.popularity > 0)])
        self._seen = seen[self._end] - seen[self._first]
        """Items of each coarse code with any event [G]."""
        self._popular = bundle.by_popularity[: np.count_nonzero(bundle.popularity)]
        self._by_category = bundle.popular_by_category
        self._default = bundle.default_order

    def links(
        self,
        wanted: int,
        availability: Availability,
        taken: IntArray,
        likely: AnyArray | None,
        boosted: FloatArray | None = None,
    ) -> list[Link]:
        """The links of the chain that give the next `wanted` items, or all that are legal.

        Args:
            wanted: how many items.
            availability: counts of legal items.
            taken: leaves that are answered already.
            likely: probability of each coarse code [G]; None where nothing is known of the user.
            boosted: sum of the boosts of every item [N]; None without any. They change the order
                inside a link.
        """
        if wanted <= 0:
            return []
        links = []
        left = _Left(wanted, availability, taken, boosted)
        if likely is not None:
            links.append(self._in_categories(left, likely))
        for source, order in (("popular", self._popular), ("default", self._default)):
            left = left.after(links[-1:])
            leaves, log_probs = left.best(order, self._bundle.log_popularity)
            links.append(Link(source, leaves, log_probs))
        return [link for link in links if len(link.leaves)]

    def shares(self, history: IntArray) -> AnyArray:
        """The share of each coarse code in the leaves of a history [T >= 1], [G]."""
        codes = np.searchsorted(self._end, history, side="right")
        return np.bincount(codes, minlength=len(self._end)) / len(history)

    def probabilities(self, h: FloatArray) -> AnyArray:
        """The generator's own probability of each coarse code [G], given h [D]."""
        decoder = GraphStepDecoder(self._bundle.graphs, self._tree)
        coarse = (1, int(self._trie.depth_start[2]))
        return np.exp(node_log_probs(decoder, self._trie, h, 1, coarse))

    def _in_categories(self, left: "_Left", likely: AnyArray) -> Link:
        """Popular items of the likely categories by `p(category) * share in the category`."""
        found: list[AnyArray] = [np.empty(0, np.int64)]
        scores: list[AnyArray] = [np.empty(0)]
        for code in _likely(likely):
            first = self._first[code]
            order = self._by_category[first : first + self._seen[code]]
            leaves, log_probs = left.best(order, self._bundle.log_popularity)
            found.append(leaves)
            scores.append(log_probs - self._log_masses[code] + np.log(likely[code]))
        every, log_probs = np.concatenate(found), np.concatenate(scores)
        best = np.lexsort((every, -log_probs))[: left.wanted]
        return Link("popular_in_category", every[best], log_probs[best])


@dataclass(frozen=True)
class _Left:
    """What a link of the chain may still give."""

    wanted: int
    availability: Availability
    taken: IntArray
    boosted: FloatArray | None

    def after(self, links: Sequence[Link]) -> "_Left":
        """What is left after these links."""
        gone = sum(len(link.leaves) for link in links)
        taken = np.concatenate([self.taken, *(link.leaves for link in links)])
        return replace(self, wanted=self.wanted - gone, taken=taken)

    def best(
        self, order: IntArray, log_probs: Callable[[IntArray], AnyArray]
    ) -> tuple[IntArray, AnyArray]:
        """The best leaves of `order`, by whose places log-probabilities fall, and their scores."""
        if self.boosted is None or not self.wanted:
            leaves = self._first(order)
            return leaves, log_probs(leaves)
        leaves = order[self._may_be_given(order)]  # all: any of them may be boosted most
        scores = log_probs(leaves) + self.boosted[leaves]
        if len(leaves) > self.wanted:  # to sort few
            good = scores >= np.partition(scores, -self.wanted)[-self.wanted]
            leaves, scores = leaves[good], scores[good]
        best = np.argsort(-scores, kind="stable")[: self.wanted]
        return leaves[best], scores[best]

    def _may_be_given(self, leaves: IntArray) -> BoolArray:
        """Which of `leaves` are legal and not taken."""
        return self.availability.legal(leaves) & ~np.isin(leaves, self.taken)

    def _first(self, order: IntArray) -> IntArray:
        """The first leaves of `order` that are legal and not taken, as many as are wanted."""
        chosen: list[int] = []
        for start in range(0, len(order), _CHUNK):
            if len(chosen) >= self.wanted:
                break
            leaves = order[start : start + _CHUNK]
            leaves = leaves[self._may_be_given(leaves)]
            chosen += leaves[: self.wanted - len(chosen)].tolist()
        return np.array(chosen, dtype=np.int64)


def _likely(probabilities: AnyArray) -> IntArray:
    """The fewest coarse codes that hold `LIKELY_MASS` of `probabilities` [G], likeliest first."""
    order: IntArray = np.argsort(-probabilities, kind="stable")
    before = np.cumsum(probabilities[order]) - probabilities[order]
    return order[(before < LIKELY_MASS) & (probabilities[order] > 0)]

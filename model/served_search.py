"""The search for what is served: as wide as is asked for, with what belongs beside it, and proven.

Shapes: D width, M nodes, N items, R results, T history length.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Final

import numpy as np

from model.availability import legal_below
from model.beam_search import BeamResult
from model.boosts import Boosted, BoostSums
from model.bundle import Bundle
from model.certificate import Headroom, is_certified
from model.likeness import Likeness
from model.query import Query
from model.recent_items import RecentItems
from model.recent_times import RecentTimes
from model.reranking import lacking_groups
from model.served_score import ServedScore
from model.timed_search import SEARCH, TimedSearch
from model.types import AnyArray, BoolArray, FloatArray, IntArray

WIDEST_AUTO = 1_000
"""Where widening ends: the search needs memory in proportion to its width."""

PROVEN_ITEMS_MAX = 20_000
"""Larger catalogues are certified for `auto` only: it reads all their item vectors, about half a
millisecond for so many of width 128."""

PROVEN_AT_ONCE = 65_536
"""Items whose vectors are read together: between two reads there is a look at the clock."""

CANDIDATES = 4
"""Times k items are searched for where the order is not the score's alone."""

POOL: Final = "pool"
"""Work of `RecentTimes`: counting the items of a pool and searching them, by width."""
PROOF: Final = "proof"
"""Reading item vectors for a certificate, by their number."""


@dataclass(frozen=True)
class Found:
    """What a search brought for one query."""

    beams: BeamResult
    fused: FloatArray
    """Served score of each item [R]."""
    certified: bool | None
    levels: int | None
    terms: FloatArray
    """What boosts and likeness have added to each [R]."""

    def by_score(self) -> IntArray:
        """Places of the items [R], best first.

        Equal scores are put in leaf order, so that the answer never depends on chance.
        """
        return np.lexsort((self.beams.leaves, -self.fused))


@dataclass(frozen=True)
class _Asked:
    """What every search for one query needs."""

    query: Query
    h: FloatArray
    seen: IntArray
    counts: AnyArray
    """[M]"""
    headroom: Callable[[], Headroom]
    """Computed when first asked for."""
    boosted: Boosted | None
    likeness: Likeness | None
    coarse: IntArray
    """First code of every item [N]."""
    had: IntArray
    """First codes that the answer is calibrated to [T]; none where it is not."""

    @cached_property
    def legal(self) -> BoolArray:
        """Which items may be found [N]; only pools need it."""
        return np.asarray(self.counts[-len(self.coarse) :] > 0)

    def terms(self, leaves: IntArray) -> FloatArray:
        """What boosts and likeness add to the scores of `leaves` [R]."""
        terms = np.zeros(len(leaves), np.float32)
        if self.boosted is not None:
            terms += self.boosted.sums[leaves]
        if self.likeness is not None:
            terms += self.likeness.terms(leaves)
        return terms

    def pools(self, found: IntArray) -> Iterator[BoolArray]:
        """Items [N] that are searched for besides the leaves found [R], as they may come first.

        The leaves are those that the search for the query alone has found.
        """
        lacking = lacking_groups(self.coarse[found], self.had, self.query.k)
        if len(lacking):
            yield np.isin(self.coarse, lacking)
        if self.likeness is not None:
            yield self.likeness.around(self.counts, self.query.k * CANDIDATES)
        if self.boosted is not None:
            yield from self.boosted.pools(self.legal, self.query.k * CANDIDATES)


class ServedSearch:
    """Searches one bundle; one per thread."""

    def __init__(
        self,
        bundle: Bundle,
        score: ServedScore,
        items: RecentItems,
        boosts: BoostSums,
        times: RecentTimes,
    ) -> None:
        self._bundle = bundle
        self._score = score
        self._items = items
        self._boosts = boosts
        self._tree = score.tree
        self._trie = score.tree.trie
        self._times = times
        self._timed = TimedSearch(bundle.graphs, self._tree, bundle.popularity, times)

    def find(self, query: Query, h: FloatArray, seen: IntArray, counts: AnyArray) -> Found:
        """Search as wide as the query wants, and as deep as it has time for.

        Args:
            query: what is asked for, without pinned items.
            h: the encoded history [D].
            seen: leaves that the user has seen.
            counts: legal items below each node [M].
        """
        wanted = query.k * CANDIDATES if query.is_reordered else query.k
        own, anchors = self._items.leaves(query.history), self._items.leaves(query.anchors)
        coarse = self._bundle.catalog.codes[:, 0]
        had = coarse[own if len(own) else anchors]
        asked = _Asked(
            query,
            h,
            seen,
            counts,
            cache(partial(self._headroom, query, h, counts)),
            self._boosts.of(query.boosts),
            Likeness(self._bundle.tree, anchors) if len(anchors) else None,
            coarse,
            had if query.diversity > 0 else had[:0],
        )
        given = query.beam if isinstance(query.beam, int) else self._bundle.manifest.beam_width
        width = max(given, wanted)
        widest = min(WIDEST_AUTO, self._trie.item_count) if query.beam == "auto" else width
        found = self._found(asked, width)
        while found.certified is False and width < widest:
            width = min(2 * width, widest)
            if not self._is_worth(SEARCH, query, width):
                break
            wider = self._found(asked, width)
            found = wider if wider.levels is None else found
        return found

    def _found(self, asked: _Asked, width: int) -> Found:
        """Search once."""
        timed = self._timed.search(asked.h, asked.counts, width, asked.query.deadline)
        if timed.levels == 0:  # nothing of the history is in it
            nothing = np.empty(0, np.float32)
            return Found(timed.beams.none(), nothing, None, 0, nothing)
        beams = timed.beams if timed.levels is not None else self._with_pools(asked, timed.beams)
        terms = asked.terms(beams.leaves)
        fused = self._score.of_found(asked.h, beams, asked.seen) + terms
        if timed.levels is not None or asked.query.is_reordered:
            return Found(beams, fused, None, timed.levels, terms)
        certified = is_certified(
            beams, fused, asked.query.k, headroom=lambda: asked.headroom().beyond(beams.leaves)
        )
        return Found(beams, fused, certified, None, terms)

    def _with_pools(self, asked: _Asked, beams: BeamResult) -> BeamResult:
        """The items found, and the best ones of each pool that there is time to search."""
        width = asked.query.k * CANDIDATES
        if not self._is_pool_worth(asked.query, width):
            return beams
        started = self._times.now()
        for pool in asked.pools(beams.leaves):
            counts = legal_below(self._trie, asked.legal & pool)
            if counts[0] > 0:
                more = self._bundle.graphs.search(asked.h, self._tree, counts, width)
                beams = beams.joined(more)
            self._times.note(POOL, started, width)
            if not self._is_pool_worth(asked.query, width):
                break
            started = self._times.now()
        return beams

    def _is_pool_worth(self, query: Query, width: int) -> bool:
        """Whether a pool is worth its time: it takes no less than the whole catalogue does."""
        return width > 0 and all(self._is_worth(kind, query, width) for kind in (POOL, SEARCH))

    def _is_worth(self, kind: str, query: Query, size: int) -> bool:
        """Whether there is time for what makes an answer better, and somebody waits for it."""
        return not query.is_abandoned() and self._times.has_time(kind, query.deadline, size)

    def _headroom(self, query: Query, h: FloatArray, counts: AnyArray) -> Headroom:
        """What items that a search does not reach can score besides their log-probability."""
        # Whoever may come back may do so with any item.
        bonus = 0.0 if query.exclude_seen else self._score.most_for_repeats()
        terms = None
        if query.beam == "auto" or self._trie.item_count <= PROVEN_ITEMS_MAX:
            terms = self._second_terms(query, h)
        return Headroom(terms, counts[self._trie.item_start :], bonus)

    def _second_terms(self, query: Query, h: FloatArray) -> FloatArray | None:
        """Of every item [N]; None where there is no time to read all their vectors."""
        items = self._trie.item_count
        terms = []
        for first in range(0, items, PROVEN_AT_ONCE):
            if not self._is_worth(PROOF, query, items - first):
                return None
            started = self._times.now()
            end = min(first + PROVEN_AT_ONCE, items)
            terms.append(self._score.second_terms(h, first, end))
            self._times.note(PROOF, started, end - first)
        return np.concatenate(terms)

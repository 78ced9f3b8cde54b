"""From a history to recommendations: encode, search with filters inside, rank, resolve.

The one path from history to answer, used by the service and by `evaluate` alike.

Shapes: N items, D width, L levels, R results, T history length.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from model.availability import Availability
from model.beam_search import BeamResult, beam_search
from model.boosts import BoostSums
from model.bundle import Bundle
from model.decoder import GraphStepDecoder
from model.errors import NoLevelsError
from model.explain import (
    Explanation,
    Influence,
    explain_influences,
    explain_ways,
    left_out_in_turn,
    popular_ways,
)
from model.explore import Choice, Explorer
from model.fallback import FallbackChain
from model.history import truncate
from model.legal_items import LegalItems
from model.query import Query, Recommendation, RecommendedItem
from model.recent_items import RecentItems
from model.recent_times import RecentTimes
from model.reranking import calibrated_order, drawn_order
from model.served_score import ServedScore
from model.served_search import Found, ServedSearch
from model.types import AnyArray, FloatArray, IntArray, ItemId

WAYS: Final = "ways"
"""Work of `RecentTimes`: the probabilities on the ways to the items of an answer."""
INFLUENCE: Final = "influence"
"""What leaving out one item of the history does to all of them."""
CHOICES: Final = "choices"
"""The choices below a place, by its depth."""


@dataclass(frozen=True)
class _Order:
    """Which of the items found are answered."""

    places: IntArray
    """Among the items found, first to last."""
    propensities: FloatArray | None = None
    """Of each; None where nothing was drawn."""


class Recommender:
    """Answers queries from a bundle; one per thread, for it owns the availability counts."""

    def __init__(self, bundle: Bundle, times: RecentTimes | None = None) -> None:
        """Answer from `bundle`; `times` are those of the same thread's work until now."""
        self.bundle = bundle
        self._times = RecentTimes() if times is None else times
        self._trie = bundle.tree.trie
        self._legal_items = LegalItems(
            self._trie, bundle.catalog, bundle.attributes, withheld=bundle.withheld
        )
        self._everything = self._legal_items.everything
        self.score = ServedScore(bundle)
        self._tree = self.score.tree
        self._items = RecentItems(bundle.catalog)
        self._explorer = Explorer(bundle, self._tree)
        self._chance = np.random.default_rng()
        self._boosts = BoostSums(bundle.catalog, bundle.attributes)
        self._search = ServedSearch(bundle, self.score, self._items, self._boosts, self._times)
        self._fallback = FallbackChain(bundle, self._tree)

    def over(self, bundle: Bundle) -> "Recommender":
        """The same thread's recommender over another state of the bundle's catalogue.

        It knows how long searches took lately.
        """
        return Recommender(bundle, self._times)

    def recommend(self, query: Query) -> Recommendation:
        """The best `k` legal items; those of the fallback chain when the history says nothing.

        With too little time until the query's deadline, the fine levels are left to popularity.

        Raises:
            UnknownCategoryError: a filter names a path that no item has.
            FilterError: a filter's attribute is not there, or of another type.
            BoostError: a boost's category or attribute is not there, or of another type.
            UnknownPlaceError: the path leads nowhere.
            NoLevelsError: explanations or choices of a decoder that has no levels in order.
        """
        if (query.explain or query.choices is not None) and not self.bundle.graphs.can_step:
            raise NoLevelsError
        clock = StageClock()
        own, anchors = self._items.leaves(query.history), self._items.leaves(query.anchors)
        leaves = np.concatenate([own, anchors])
        unknown = len(query.history) + len(query.anchors) - len(leaves)
        found = None
        seen = np.concatenate([own, self._items.leaves(query.seen)])
        reading = self.reading(leaves) if len(leaves) else nullcontext()
        with self._legal(query, seen) as availability, reading as h:
            pins = self._legal_pins(query, availability)
            rest = replace(query, k=query.k - len(pins), deadline=self._search_deadline(query))
            with availability.without(np.array([*pins.values()], np.int64)):
                if h is not None:
                    clock.lap("encode")
                    found = self._search.find(rest, h, seen, availability.counts)
                    clock.lap("decode")
                likely = partial(self._likely, h, found, leaves)
                groups = own if len(own) else anchors
                items = self._resolve(rest, found, groups, availability, likely)
            items = self._with_pins(items, pins)
            is_partly_explained = False
            if query.explain:
                newest = truncate(leaves, self.bundle.manifest.history_length)
                items, is_partly_explained = self._explained(query, items, h, newest)
            place, choices = self._choices(query, h, found, availability)
        clock.lap("resolve")
        certified = None if found is None or pins else found.certified
        levels = None if found is None else found.levels
        return Recommendation(
            items,
            unknown,
            certified,
            clock.seconds,
            levels,
            place,
            choices,
            self.bundle,
            is_partly_explained,
        )

    def popular(self, query: Query) -> Recommendation:
        """The most popular legal items, whatever the history says; then the default list.

        Raises:
            UnknownCategoryError: a filter names a path that no item has.
            FilterError: a filter's attribute is not there, or of another type.
            BoostError: a boost's category or attribute is not there, or of another type.
            UnknownPlaceError: the path leads nowhere.
        """
        clock = StageClock()
        leaves = self._items.leaves(query.history)
        seen = np.concatenate([leaves, self._items.leaves(query.seen)])
        with self._legal(query, seen) as availability:
            items = self._resolve(query, None, leaves, availability, _nothing_likely)
        clock.lap("resolve")
        unknown = len(query.history) - len(leaves)
        return Recommendation(items, unknown, None, clock.seconds, bundle=self.bundle)

    @contextmanager
    def reading(self, leaves: IntArray) -> Iterator[FloatArray]:
        """Read a history of leaves [T >= 1], oldest first: h [D].

        While the block runs, searches and scores have the evidence of this history, too.
        """
        newest = truncate(leaves, self.bundle.manifest.history_length)
        with self.score.after(newest):
            yield self.encode(newest)

    def encode(self, leaves: IntArray) -> FloatArray:
        """Encode a history of leaves [T >= 1], oldest first, to h [D]."""
        newest = truncate(leaves, self.bundle.manifest.history_length)
        return self.bundle.histories.encode(newest)

    def search(self, h: FloatArray, width: int, *, excluded: IntArray) -> BeamResult:
        """Items of the whole catalogue but `excluded` leaves, best first by log-probability."""
        with self._everything.without(excluded):
            counts = self._everything.counts
            return self.bundle.graphs.search(h, self._tree, counts, width)

    def search_exhaustively(self, h: FloatArray, *, excluded: IntArray) -> BeamResult:
        """Every legal item of the catalogue with its exact log-probability; slow."""
        decoder = GraphStepDecoder(self.bundle.graphs, self._tree)
        with self._everything.without(excluded):
            counts = self._everything.counts
            return beam_search(decoder, self._trie, h, counts, self._trie.item_count)

    @contextmanager
    def _legal(self, query: Query, seen: IntArray) -> Iterator[Availability]:
        """The counts under the query's filters, restored afterwards."""
        excluded = [self._items.leaves([*query.exclude, *query.anchors])]
        if query.exclude_seen:
            excluded.append(seen)
        leaves = None
        if query.path:
            place = self.bundle.browse.find(query.path)
            leaves = (place.first_leaf, place.end_leaf)
        availability = self._legal_items.passing(query.categories, query.filters, leaves)
        with availability.without(np.concatenate([*excluded])):
            yield availability

    def _order(self, query: Query, found: Found, history: IntArray) -> _Order:
        """Which of the items found are answered, in the order that the query asks for."""
        if query.exploration > 0:
            log_probs = found.beams.totals() + found.terms
            return _Order(*drawn_order(log_probs, query.k, query.exploration, self._chance))
        by_score = found.by_score()
        if query.diversity > 0 and len(by_score):
            codes = self.bundle.catalog.codes[:, 0]
            groups, had = codes[found.beams.leaves[by_score]], codes[history]
            best = calibrated_order(found.fused[by_score], groups, had, query.k, query.diversity)
            return _Order(by_score[best])
        return _Order(by_score[: query.k])

    def _explained(
        self,
        query: Query,
        items: Sequence[RecommendedItem],
        h: FloatArray | None,
        history: IntArray,
    ) -> tuple[tuple[RecommendedItem, ...], bool]:
        """The items with the reasons for each, and whether some were left out for want of time.

        `history` is what the encoder has read.
        """
        leaves = self._items.leaves([item.item_id for item in items])
        is_late = not self._times.has_time(WAYS, query.deadline)
        if h is None or not len(leaves) or is_late:
            ways = popular_ways(self.bundle.browse, self._explorer, leaves.tolist())
            explained = tuple(
                replace(item, explanation=Explanation(way, ()))
                for item, way in zip(items, ways, strict=True)
            )
            return explained, h is not None and len(leaves) > 0
        started = self._times.now()
        decoder = GraphStepDecoder(self.bundle.graphs, self._tree)
        ways = explain_ways(self.bundle.browse, decoder, h, leaves)
        self._times.note(WAYS, started)
        left_out, drops, is_partial = self._influences_in_time(query, history, leaves)
        explained = tuple(
            replace(item, explanation=Explanation(way, _influences(left_out, drops[:, row])))
            for row, (item, way) in enumerate(zip(items, ways, strict=True))
        )
        return explained, is_partial

    def _influences_in_time(
        self, query: Query, history: IntArray, leaves: IntArray
    ) -> tuple[list[ItemId], FloatArray, bool]:
        """Items of the history left out in turn [I], the drops [I, R], whether time cut them short.

        Each costs a scoring, so there is a look at the clock before each.
        """
        decoder = GraphStepDecoder(self.bundle.graphs, self._tree)
        drops = explain_influences(decoder, self._trie, self.reading, history, leaves)
        wanted = len(left_out_in_turn(history))
        found: list[tuple[int, FloatArray]] = []
        while len(found) < wanted and self._times.has_time(INFLUENCE, query.deadline):
            if query.is_abandoned():
                break
            started = self._times.now()
            found.append(next(drops))
            self._times.note(INFLUENCE, started)
        names = [self.bundle.catalog.item_id(leaf) for leaf, _ in found]
        table = np.array([drop for _, drop in found], np.float32).reshape(-1, len(leaves))
        return names, table, len(found) < wanted

    def _search_deadline(self, query: Query) -> float:
        """When the search has to be done: choices, where they are asked for, come after it."""
        if query.choices is None:
            return query.deadline
        return query.deadline - self._times.most(_choosing(query))

    def _choices(
        self, query: Query, h: FloatArray | None, found: Found | None, availability: Availability
    ) -> tuple[Choice | None, tuple[Choice, ...]]:
        """The place of the query's path and the choices below it, where they were asked for."""
        if query.choices is None:
            return None, ()
        started = self._times.now()
        here = self.bundle.browse.find(query.path)
        if found is not None and found.levels == 0:
            h = None  # no time to ask the generator
        (probability,) = self._explorer.probabilities([here], h)
        place = Choice(here, probability, int(availability.counts[0]), ())
        ranked = np.empty(0, np.int64) if found is None else found.beams.leaves[found.by_score()]
        choices = self._explorer.choices(here, h, ranked, availability, query.choices)
        self._times.note(_choosing(query), started)
        return place, choices

    def _likely(
        self, h: FloatArray | None, found: Found | None, history: IntArray
    ) -> AnyArray | None:
        """Probability of each coarse code, from the generator where there is time for it."""
        if h is None or found is None:
            return None
        if found.levels is None and self.bundle.graphs.can_step:
            return self._fallback.probabilities(h)
        return self._fallback.shares(history)

    def _resolve(
        self,
        query: Query,
        found: Found | None,
        history: IntArray,
        availability: Availability,
        likely: Callable[[], AnyArray | None],
    ) -> tuple[RecommendedItem, ...]:
        """Generated items in their order, then the fallback chain below them on the same scale."""
        items: list[RecommendedItem] = []
        taken: IntArray = np.empty(0, dtype=np.int64)
        if found is not None:
            order = self._order(query, found, history)
            taken = found.beams.leaves[order.places]
            items = self._generated(found, order)
        wanted = query.k - len(items)
        if wanted > 0:
            boosted = self._boosts.of(query.boosts)
            sums = None if boosted is None else boosted.sums
            for link in self._fallback.links(wanted, availability, taken, likely(), sums):
                lowest = min((item.score for item in items), default=math.inf)
                scores = link.log_probs + min(0.0, lowest - float(link.log_probs[0]))
                for leaf, score in zip(link.leaves.tolist(), scores.tolist(), strict=True):
                    items.append(self._item(leaf, len(items) + 1, score, link.source, None))
        return tuple(self._marked(query, items))

    def _marked(self, query: Query, items: Sequence[RecommendedItem]) -> list[RecommendedItem]:
        """The items, those that a boost has raised as `boosted`."""
        boosted = self._boosts.of(query.boosts)
        if boosted is None:
            return [*items]
        leaves = self.bundle.catalog.leaves([item.item_id for item in items])
        return [
            replace(item, source="boosted") if boosted.sums[leaf] > 0 else item
            for item, leaf in zip(items, leaves, strict=True)
        ]

    def _legal_pins(self, query: Query, availability: Availability) -> dict[int, int]:
        """The pinned leaves that may be answered, by position from 1 to `k`."""
        catalog = self.bundle.catalog
        pins = {place: catalog.leaf(query.pins[place]) for place in sorted(query.pins)}
        return {
            place: leaf
            for place, leaf in pins.items()
            if leaf is not None and place <= query.k and availability.legal(np.array(leaf))
        }

    def _with_pins(
        self, items: Sequence[RecommendedItem], pins: Mapping[int, int]
    ) -> tuple[RecommendedItem, ...]:
        """The items with the pinned leaves at their positions, as far as the list is long."""
        placed = [*items]
        for place, leaf in pins.items():  # ascending, so that none moves another
            score = float(self.bundle.log_popularity(np.array([leaf]))[0])
            placed.insert(place - 1, self._item(leaf, place, score, "pinned", None))
        return tuple(replace(item, rank=rank) for rank, item in enumerate(placed, start=1))

    def _generated(self, found: Found, order: _Order) -> list[RecommendedItem]:
        """The items found in this order."""
        beams, source = found.beams, "generated" if found.levels is None else "partial"
        items = []
        for rank, place in enumerate(order.places, start=1):
            probs = beams.by_level(int(place))
            probs = None if probs is None else probs[: found.levels]
            leaf, score = int(beams.leaves[place]), float(found.fused[place])
            items.append(self._item(leaf, rank, score, source, probs))
        if order.propensities is None:
            return items
        drawn = zip(items, order.propensities.tolist(), strict=True)
        return [replace(item, propensity=propensity) for item, propensity in drawn]

    def _item(
        self, leaf: int, rank: int, score: float, source: str, probs: tuple[float, ...] | None
    ) -> RecommendedItem:
        catalog = self.bundle.catalog
        return RecommendedItem(
            item_id=catalog.item_id(leaf),
            rank=rank,
            score=score,
            source=source,
            title=catalog.title(leaf),
            path=catalog.path(leaf),
            semantic_id=catalog.semantic_id(leaf),
            level_log_probs=probs,
        )


class StageClock:
    """Seconds between the laps of one request."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Ascribe the time since the last lap to `stage`."""
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now


def _nothing_likely() -> None:
    """Nothing is known of the user."""


def _choosing(query: Query) -> tuple[str, int]:
    """The work of telling choices: the deeper, the more levels have to be scored."""
    return CHOICES, len(query.path)


def _influences(names: Sequence[ItemId], drops: FloatArray) -> tuple[Influence, ...]:
    return tuple(Influence(name, float(drop)) for name, drop in zip(names, drops, strict=True))

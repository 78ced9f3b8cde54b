"""From a history to recommendations: encode, search with filters inside, rank, resolve.

The one path from history to answer, used by the service and by `evaluate` alike.

The served score of an item is `log p(item | history) + w * (h . v + e - u)`: the generator's
log-probability plus the item head's opinion of it, where e is the evidence of transitions
(`model/transitions.py`) and u = |h| * max |v| + max e bounds every h . v + e, so that the second
term is never positive. An item under a pruned prefix therefore scores at most the
log-probability of that prefix plus the best second term of all items that the search did not reach:
when the last item served is above that, the list is exactly the best of the whole catalogue
(`certified`). Items that the user has seen, where they are
not left out, get the bundle's repeat bonus on top: far below zero where nobody comes back.

Shapes: N items, D width, L levels, R results, T history length.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np

from model.attributes import Filters
from model.availability import Availability, legal_below
from model.beam_search import BeamResult, beam_search
from model.boosts import Boost, BoostSums
from model.bundle import Bundle
from model.certificate import Headroom, is_certified
from model.decoder import GraphStepDecoder
from model.errors import BundleError, ConfigError, NoLevelsError
from model.explain import (
    Explanation,
    Influence,
    explain_influences,
    explain_ways,
    popular_ways,
)
from model.explore import Choice, Explorer
from model.fallback import FallbackChain
from model.history import truncate
from model.legal_items import LegalItems
from model.likeness import Likeness
from model.recent_items import RecentItems
from model.reranking import calibrated_order, drawn_order, lacking_groups
from model.timed_search import TimedSearch
from model.transitions import EvidenceBiases
from model.types import AnyArray, BoolArray, CategoryPath, FloatArray, IntArray, ItemId, SemanticId

WIDEST_AUTO = 1_000
"""Where widening ends: the search needs memory in proportion to its width."""

PROVEN_ITEMS_MAX = 20_000
"""Larger catalogues are certified for `auto` only: it reads all their item vectors, about half a
millisecond for so many of width 128."""

CANDIDATES = 4
"""Times k items are searched for where the order is not the score's alone."""

SCORE_TOLERANCE = 2e-2
"""How far a score may lie from the same score computed on another machine.

Another processor's last float32 bit can tip a component of h to the next float16 number; measured
on a trained bundle, one such step moves a score among the best ten by up to 4e-3.
"""


@dataclass(frozen=True)
class Query:
    """What one request asks for."""

    history: Sequence[ItemId] = ()
    """Oldest first; unknown ids are skipped and counted."""
    k: int = 10
    exclude: Sequence[ItemId] = ()
    """Never returned; unknown ids are ignored."""
    seen: Sequence[ItemId] = ()
    """More items that the user has seen than `history` holds."""
    exclude_seen: bool = True
    """Drop the items of `history` and `seen`."""
    categories: Sequence[Sequence[str]] = ()
    """Paths: an item passes when one of its paths starts with one of these; none lets all pass."""
    beam: int | Literal["auto"] | None = None
    """Beams kept after each level, but never fewer than k; None for the bundle's width; `auto` to
    double it until the answer is certified, there is no time left or `WIDEST_AUTO` is reached."""
    deadline: float = field(default=math.inf, compare=False)
    """When the answer has to be there, a reading of `time.perf_counter`."""
    filters: Filters = field(default_factory=dict)
    """Conditions on attributes by name; an item must pass all of them."""
    path: Sequence[str] = ()
    """A place of the browsed tree: only its items; () is everything."""
    choices: int | None = None
    """Tell the next choices below `path` too, each with so many of its best items."""
    explain: bool = False
    """Say of every item why it is there."""
    diversity: float = 0.0
    """0 .. 1: how far the list follows the categories of the history instead of the score."""
    exploration: float = 0.0
    """0 .. 1: temperature of drawing by log-probability; 0 draws nothing and takes the best."""
    anchors: Sequence[ItemId] = ()
    """Items being looked at: read as the newest of the history, never returned; items like them
    come first."""
    boosts: tuple[Boost, ...] = ()
    """Shifts of the scores of some items."""
    pins: Mapping[int, ItemId] = field(default_factory=dict)
    """Items by position, from 1: put there where they are legal and the position is at most `k`."""

    @property
    def is_reordered(self) -> bool:
        """Whether the order is not the network's alone; such an answer is never certified."""
        return bool(self.diversity > 0 or self.exploration > 0 or self.anchors or self.boosts)

    def __post_init__(self) -> None:
        if self.k < 0:
            message = f"k is {self.k}: ask for 0 or more items"
            raise ConfigError(message)
        if isinstance(self.beam, int) and self.beam < 1:
            message = f"beam is {self.beam}: keep 1 or more beams"
            raise ConfigError(message)


@dataclass(frozen=True)
class RecommendedItem:
    """One item of an answer."""

    item_id: ItemId
    rank: int
    """1 is the best."""
    score: float
    source: str
    """`generated`; `partial`, of a path that is generated as far as there was time for and popular
    below; or the link of the fallback chain: `popular_in_category`, `popular` or `default`. Instead
    of these `boosted`, where a boost has raised its score, or `pinned`."""
    title: str
    path: CategoryPath
    semantic_id: SemanticId
    level_log_probs: tuple[float, ...] | None
    """Of each generated choice from coarse to fine, [L + 1]; None for items of the fallback chain,
    and for all items where the choices have no fixed order."""
    explanation: Explanation | None = None
    """Where it was asked for."""
    propensity: float | None = None
    """Probability of this item at this rank, given those before it; where items were drawn."""


@dataclass(frozen=True)
class Recommendation:
    """One answer, best item first."""

    items: tuple[RecommendedItem, ...]
    unknown_history_items: int
    certified: bool | None
    """Whether the generated list is proven to be the exact one; None where nothing was searched,
    where there was no time for all levels, where the order is not the score's alone, and where the
    search proves nothing."""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds in `encode`, `decode` and `resolve`."""
    levels: int | None = None
    """Choices from coarse to fine that there was time for; None for all of them."""
    place: Choice | None = None
    """The place that `path` names, as its choices are; None where no choices were asked for."""
    choices: tuple[Choice, ...] = ()
    """The next ones below it, the most probable first."""
    bundle: Bundle | None = field(default=None, compare=False, repr=False)
    """The state of the catalogue that it was made from, where leaves are looked up."""


@dataclass(frozen=True)
class _Found:
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
    headroom: Headroom
    boosted: FloatArray | None
    """Sum of the boosts of every item [N]."""
    likeness: Likeness | None
    coarse: IntArray
    """First code of every item [N]."""
    had: IntArray
    """First codes that the answer is calibrated to [T]; none where it is not."""

    def terms(self, leaves: IntArray) -> FloatArray:
        """What boosts and likeness add to the scores of `leaves` [R]."""
        terms = np.zeros(len(leaves), np.float32)
        if self.boosted is not None:
            terms += self.boosted[leaves]
        if self.likeness is not None:
            terms += self.likeness.terms(leaves)
        return terms

    def pools(self, found: IntArray) -> Iterator[BoolArray]:
        """Items [N] that are searched for besides the leaves found, as they may come first."""
        lacking = lacking_groups(self.coarse[found], self.had, self.query.k)
        if len(lacking):
            yield np.isin(self.coarse, lacking)
        if self.likeness is not None:
            yield self.likeness.around(self.counts, self.query.k * CANDIDATES)
        if self.boosted is not None:
            if (self.boosted > 0).any():
                yield self.boosted > 0
            if (self.boosted < 0).any():
                yield self.boosted >= 0


@dataclass(frozen=True)
class _Order:
    """Which of the items found are answered."""

    places: IntArray
    """Among the items found, first to last."""
    propensities: FloatArray | None = None
    """Of each; None where nothing was drawn."""


class Recommender:
    """Answers queries from a bundle; one per thread, for it owns the availability counts."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._trie = bundle.tree.trie
        self._legal_items = LegalItems(
            self._trie, bundle.catalog, bundle.attributes, withheld=bundle.withheld
        )
        self._everything = self._legal_items.everything
        weights = bundle.manifest.score.evidence_weights
        self._biases = EvidenceBiases(bundle.tree, bundle.transitions, weights)
        self._tree = self._biases.tree
        self._items = RecentItems(bundle.catalog)
        self._explorer = Explorer(bundle, self._tree)
        self._chance = np.random.default_rng()
        self._timed = TimedSearch(bundle.graphs, self._tree, bundle.popularity)
        self._fallback = FallbackChain(bundle, self._tree)
        self._boosts = BoostSums(bundle.catalog, bundle.attributes)

    def over(self, bundle: Bundle) -> "Recommender":
        """The same thread's recommender over another state of the bundle's catalogue.

        It knows how long searches took lately.
        """
        other = Recommender(bundle)
        other._timed = self._timed.over(bundle.graphs, other._tree, bundle.popularity)
        return other

    def recommend(self, query: Query) -> Recommendation:
        """The best `k` legal items; those of the fallback chain when the history says nothing.

        With too little time until the query's deadline, the fine levels are left to popularity.

        Raises:
            UnknownCategoryError: a filter names a path that no item has.
            FilterError: a filter's attribute is not there, or of another type.
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
            rest = replace(query, k=query.k - len(pins))
            with availability.without(np.array([*pins.values()], np.int64)):
                if h is not None:
                    clock.lap("encode")
                    found = self._find(rest, h, seen, availability)
                    clock.lap("decode")
                likely = partial(self._likely, h, found, leaves)
                groups = own if len(own) else anchors
                items = self._resolve(rest, found, groups, availability, likely)
            items = self._with_pins(items, pins)
            if query.explain:
                newest = truncate(leaves, self.bundle.manifest.history_length)
                items = self._explained(items, h, newest)
            place, choices = self._choices(query, h, found, availability)
        clock.lap("resolve")
        certified = None if found is None or pins else found.certified
        levels = None if found is None else found.levels
        return Recommendation(
            items, unknown, certified, clock.seconds, levels, place, choices, self.bundle
        )

    def popular(self, query: Query) -> Recommendation:
        """The most popular legal items, whatever the history says; then the default list.

        Raises:
            UnknownCategoryError: a filter names a path that no item has.
            FilterError: a filter's attribute is not there, or of another type.
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
        with self._biases.after(newest):
            yield self.encode(newest)

    def encode(self, leaves: IntArray) -> FloatArray:
        """Encode a history of leaves [T >= 1], oldest first, to h [D]."""
        newest = truncate(leaves, self.bundle.manifest.history_length)
        return self.bundle.graphs.encode(self._tree.item_vectors[newest])

    def search(self, h: FloatArray, width: int, *, excluded: IntArray) -> BeamResult:
        """Items of the whole catalogue but `excluded` leaves, best first by log-probability."""
        with self._everything.without(excluded):
            return self._search(h, width, self._everything)

    def search_exhaustively(self, h: FloatArray, *, excluded: IntArray) -> BeamResult:
        """Every legal item of the catalogue with its exact log-probability; slow."""
        decoder = GraphStepDecoder(self.bundle.graphs, self._tree)
        with self._everything.without(excluded):
            counts = self._everything.counts
            return beam_search(decoder, self._trie, h, counts, self._trie.item_count)

    def item_scores(self, h: FloatArray) -> FloatArray:
        """The item head's score h . v + e of every item [N], leaf order."""
        scores: FloatArray = self._tree.item_vectors @ h
        evidence = self._biases.evidence
        scores[evidence.leaves] += evidence.terms
        return scores

    def fuse(self, h: FloatArray, found: BeamResult, seen: IntArray) -> FloatArray:
        """The served score of each item found [R], given the leaves that the user has seen."""
        score = self.bundle.manifest.score
        affinities = self._tree.item_vectors[found.leaves] @ h
        affinities += self._biases.evidence.term(found.leaves)
        bound = self._bound(h)
        fused: FloatArray = found.totals() + np.float32(score.fusion_weight) * (affinities - bound)
        fused[np.isin(found.leaves, seen)] += np.float32(score.repeat_bonus())
        return fused

    def _bound(self, h: FloatArray) -> np.float32:
        """What no item head's score is above."""
        largest = np.linalg.norm(h) * self.bundle.manifest.score.largest_item_norm
        return np.float32(largest + self._biases.evidence.most)

    def _find(
        self, query: Query, h: FloatArray, seen: IntArray, availability: Availability
    ) -> _Found:
        """Search as wide as the query wants, and as deep as it has time for."""
        wanted = query.k * CANDIDATES if query.is_reordered else query.k
        own, anchors = self._items.leaves(query.history), self._items.leaves(query.anchors)
        coarse = self.bundle.catalog.codes[:, 0]
        had = coarse[own if len(own) else anchors]
        asked = _Asked(
            query,
            h,
            seen,
            availability.counts,
            self._headroom(query, h, availability),
            self._boosts.of(query.boosts),
            Likeness(self.bundle.tree, anchors) if len(anchors) else None,
            coarse,
            had if query.diversity > 0 else had[:0],
        )
        given = query.beam if isinstance(query.beam, int) else self.bundle.manifest.beam_width
        width = max(given, wanted)
        widest = min(WIDEST_AUTO, self._trie.item_count) if query.beam == "auto" else width
        found = self._found(asked, width)
        while found.certified is False and width < widest:
            width = min(2 * width, widest)
            if not self._timed.has_time(width, query.deadline):
                break
            wider = self._found(asked, width)
            found = wider if wider.levels is None else found
        return found

    def _found(self, asked: _Asked, width: int) -> _Found:
        """Search once."""
        timed = self._timed.search(asked.h, asked.counts, width, asked.query.deadline)
        if timed.levels == 0:  # nothing of the history is in it
            nothing = np.empty(0, np.float32)
            return _Found(timed.beams.none(), nothing, None, 0, nothing)
        beams = timed.beams if timed.levels is not None else self._with_pools(asked, timed.beams)
        terms = asked.terms(beams.leaves)
        fused = self.fuse(asked.h, beams, asked.seen) + terms
        if timed.levels is not None or asked.query.is_reordered:
            return _Found(beams, fused, None, timed.levels, terms)
        headroom = asked.headroom.beyond(beams.leaves)
        certified = is_certified(beams, fused, asked.query.k, headroom=headroom)
        return _Found(beams, fused, certified, None, terms)

    def _with_pools(self, asked: _Asked, beams: BeamResult) -> BeamResult:
        """The items found, and the best ones of each pool that there is time to search."""
        width = asked.query.k * CANDIDATES
        if width == 0:
            return beams
        legal = asked.counts[self._trie.item_start :] > 0
        for pool in asked.pools(beams.leaves):
            if not self._timed.has_time(width, asked.query.deadline):
                break
            counts = legal_below(self._trie, legal & pool)
            if counts[0] > 0:
                more = self.bundle.graphs.search(asked.h, self._tree, counts, width)
                beams = beams.joined(more)
        return beams

    def _headroom(self, query: Query, h: FloatArray, availability: Availability) -> Headroom:
        """What items that a search does not reach can score besides their log-probability."""
        score = self.bundle.manifest.score
        # Whoever may come back may do so with any item.
        bonus = 0.0 if query.exclude_seen else max(0.0, score.repeat_bonus())
        terms = None
        if query.beam == "auto" or self._trie.item_count <= PROVEN_ITEMS_MAX:
            terms = np.float32(score.fusion_weight) * (self.item_scores(h) - self._bound(h))
        return Headroom(terms, availability.counts[self._trie.item_start :], bonus)

    def _search(self, h: FloatArray, width: int, availability: Availability) -> BeamResult:
        return self.bundle.graphs.search(h, self._tree, availability.counts, width)

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

    def _order(self, query: Query, found: _Found, history: IntArray) -> _Order:
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
        self, items: Sequence[RecommendedItem], h: FloatArray | None, history: IntArray
    ) -> tuple[RecommendedItem, ...]:
        """The items with the reasons for each; `history` is what the encoder has read."""
        browse, catalog = self.bundle.browse, self.bundle.catalog
        leaves = self._items.leaves([item.item_id for item in items])
        if h is None or not len(leaves):
            ways = popular_ways(browse, self._explorer, leaves.tolist())
            return tuple(
                replace(item, explanation=Explanation(way, ()))
                for item, way in zip(items, ways, strict=True)
            )
        decoder = GraphStepDecoder(self.bundle.graphs, self._tree)
        ways = explain_ways(browse, decoder, h, leaves)
        left_out, drops = explain_influences(decoder, self._trie, self.reading, history, leaves)
        names = [catalog.item_id(int(leaf)) for leaf in left_out]
        return tuple(
            replace(item, explanation=Explanation(way, _influences(names, drops[:, row])))
            for row, (item, way) in enumerate(zip(items, ways, strict=True))
        )

    def _choices(
        self, query: Query, h: FloatArray | None, found: _Found | None, availability: Availability
    ) -> tuple[Choice | None, tuple[Choice, ...]]:
        """The place of the query's path and the choices below it, where they were asked for."""
        if query.choices is None:
            return None, ()
        here = self.bundle.browse.find(query.path)
        (probability,) = self._explorer.probabilities([here], h)
        place = Choice(here, probability, int(availability.counts[0]), ())
        ranked = np.empty(0, np.int64) if found is None else found.beams.leaves[found.by_score()]
        return place, self._explorer.choices(here, h, ranked, availability, query.choices)

    def _likely(
        self, h: FloatArray | None, found: _Found | None, history: IntArray
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
        found: _Found | None,
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
            for link in self._fallback.links(wanted, availability, taken, likely(), boosted):
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
            replace(item, source="boosted") if boosted[leaf] > 0 else item
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

    def _generated(self, found: _Found, order: _Order) -> list[RecommendedItem]:
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


def _influences(names: Sequence[ItemId], drops: FloatArray) -> tuple[Influence, ...]:
    return tuple(Influence(name, float(drop)) for name, drop in zip(names, drops, strict=True))


def verify_golden(recommender: Recommender) -> None:
    """Answer the bundle's golden cases; also warms everything up.

    Raises:
        BundleError: an answer differs from the one given at export, or there is none.
    """
    for number, case in enumerate(recommender.bundle.golden):
        try:
            answer = recommender.recommend(Query(case.history, k=len(case.items))).items
        except Exception as error:  # a bad graph or array can cause any
            message = (
                f"golden case {number} of bundle {recommender.bundle.bundle_id} cannot be "
                f"answered: {error!r}"
            )
            raise BundleError(message) from error
        expected = dict(zip(case.items, case.scores, strict=True))
        same_scores = len(answer) == len(case.scores) and np.allclose(
            [item.score for item in answer], case.scores, atol=SCORE_TOLERANCE
        )
        # Items whose scores are equal within the tolerance may change places, or the last place.
        same_items = all(
            abs(item.score - expected.get(item.item_id, case.scores[-1])) <= SCORE_TOLERANCE
            for item in answer
        )
        if not (same_scores and same_items):
            message = (
                f"golden case {number} of bundle {recommender.bundle.bundle_id} is answered "
                "differently here than at export: this machine cannot serve it"
            )
            raise BundleError(message)

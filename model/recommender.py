"""From a history to recommendations: encode, search with filters inside, rank, resolve.

The one path from history to answer, used by the service and by `evaluate` alike.

The served score of an item is `log p(item | history) + w * (h . v - u)`: the generator's
log-probability plus the item head's opinion of it, where u = |h| * max |v| bounds every h . v, so
that the second term is never positive. An item under a pruned prefix therefore scores at most the
log-probability of that prefix: when the last item served is above all pruned prefixes, the list is
exactly the best of the whole catalogue (`certified`). Items that the user has seen, where they are
not left out, get the bundle's repeat bonus on top: far below zero where nobody comes back.

Shapes: N items, D width, L levels, R results, T history length.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from model.attributes import Filters
from model.availability import Availability
from model.beam_search import BeamResult, beam_search
from model.bundle import Bundle
from model.decoder import GraphStepDecoder
from model.errors import BundleError, ConfigError
from model.explain import (
    Explanation,
    Influence,
    explain_influences,
    explain_ways,
    popular_ways,
)
from model.explore import Choice, Explorer
from model.history import known_leaves, truncate
from model.legal_items import LegalItems
from model.reranking import calibrated_order, drawn_order
from model.types import CategoryPath, FloatArray, IntArray, ItemId, SemanticId

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

    def __post_init__(self) -> None:
        if self.k < 0:
            message = f"k is {self.k}: ask for 0 or more items"
            raise ConfigError(message)


@dataclass(frozen=True)
class RecommendedItem:
    """One item of an answer."""

    item_id: ItemId
    rank: int
    """1 is the best."""
    score: float
    source: str
    """`generated` or `popular`."""
    title: str
    path: CategoryPath
    semantic_id: SemanticId
    level_log_probs: tuple[float, ...] | None
    """Of each choice from coarse to fine, [L + 1]; None for popular items."""
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
    """Whether the generated list is proven to be the exact one; None where nothing was searched."""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds in `encode`, `decode` and `resolve`."""
    place: Choice | None = None
    """The place that `path` names, as its choices are; None where no choices were asked for."""
    choices: tuple[Choice, ...] = ()
    """The next ones below it, the most probable first."""


@dataclass(frozen=True)
class Order:
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
        self._legal_items = LegalItems(self._trie, bundle.catalog, bundle.attributes)
        self._everything = self._legal_items.everything
        self._explorer = Explorer(bundle)
        self._chance = np.random.default_rng()
        self._by_popularity = np.argsort(-bundle.popularity, kind="stable")
        smoothed = bundle.popularity + 1.0
        self._log_popularity = np.log(smoothed / smoothed.sum())

    def recommend(self, query: Query) -> Recommendation:
        """The best `k` legal items; popular ones when the history says nothing.

        Raises:
            UnknownCategoryError: a filter names a path that no item has.
            FilterError: a filter's attribute is not there, or of another type.
            UnknownPlaceError: the path leads nowhere.
        """
        clock = StageClock()
        leaves = known_leaves(query.history, self.bundle.catalog)
        unknown = len(query.history) - len(leaves)
        h, found, fused, certified = None, None, np.empty(0, dtype=np.float32), None
        with self._legal(query, leaves) as availability:
            if len(leaves):
                h = self.encode(leaves)
                clock.lap("encode")
                is_reordered = query.diversity > 0 or query.exploration > 0
                wanted = query.k * CANDIDATES if is_reordered else query.k
                width = max(self.bundle.manifest.beam_width, wanted)
                found = self._search(h, width, availability)
                seen = np.concatenate([leaves, known_leaves(query.seen, self.bundle.catalog)])
                fused = self.fuse(h, found, seen)
                clock.lap("decode")
                if not is_reordered:
                    bonus = self._bonus(query, seen)
                    certified = is_certified(found, fused, query.k, bonus=bonus)
            order = self._best(query, found, fused, leaves)
            items = self._resolve(query.k, found, fused, order, availability)
            if query.explain:
                items = self._explained(
                    items, h, truncate(leaves, self.bundle.manifest.history_length)
                )
            place, choices = self._choices(query, h, _ranked(found, fused), availability)
        clock.lap("resolve")
        return Recommendation(items, unknown, certified, clock.seconds, place, choices)

    def popular(self, query: Query) -> Recommendation:
        """The most popular legal items, whatever the history says.

        Raises:
            UnknownCategoryError: a filter names a path that no item has.
            FilterError: a filter's attribute is not there, or of another type.
            UnknownPlaceError: the path leads nowhere.
        """
        clock = StageClock()
        leaves = known_leaves(query.history, self.bundle.catalog)
        with self._legal(query, leaves) as availability:
            nothing = np.empty(0, dtype=np.float32)
            items = self._resolve(
                query.k, None, nothing, Order(np.empty(0, np.int64)), availability
            )
        clock.lap("resolve")
        return Recommendation(items, len(query.history) - len(leaves), None, clock.seconds)

    def encode(self, leaves: IntArray) -> FloatArray:
        """Encode a history of leaves [T >= 1], oldest first, to h [D]."""
        newest = truncate(leaves, self.bundle.manifest.history_length)
        return self.bundle.graphs.encode(self.bundle.tree.item_vectors[newest])

    def search(self, h: FloatArray, width: int, *, excluded: IntArray) -> BeamResult:
        """Items of the whole catalogue but `excluded` leaves, best first by log-probability."""
        with self._everything.without(excluded):
            return self._search(h, width, self._everything)

    def search_exhaustively(self, h: FloatArray, *, excluded: IntArray) -> BeamResult:
        """Every legal item of the catalogue with its exact log-probability; slow."""
        decoder = GraphStepDecoder(self.bundle.graphs, self.bundle.tree)
        with self._everything.without(excluded):
            counts = self._everything.counts
            return beam_search(decoder, self._trie, h, counts, self._trie.item_count)

    def item_scores(self, h: FloatArray) -> FloatArray:
        """The item head's score h . v of every item [N], leaf order."""
        scores: FloatArray = self.bundle.tree.item_vectors @ h
        return scores

    def fuse(self, h: FloatArray, found: BeamResult, seen: IntArray) -> FloatArray:
        """The served score of each item found [R], given the leaves that the user has seen."""
        score = self.bundle.manifest.score
        affinities = self.bundle.tree.item_vectors[found.leaves] @ h
        bound = np.float32(np.linalg.norm(h) * score.largest_item_norm)
        fused: FloatArray = found.totals() + np.float32(score.fusion_weight) * (affinities - bound)
        fused[np.isin(found.leaves, seen)] += np.float32(score.repeat_bonus())
        return fused

    def _bonus(self, query: Query, seen: IntArray) -> float:
        """The most that an item beyond those found can gain from having been seen."""
        may_repeat = not query.exclude_seen and len(seen) > 0
        return max(0.0, self.bundle.manifest.score.repeat_bonus()) if may_repeat else 0.0

    def _search(self, h: FloatArray, width: int, availability: Availability) -> BeamResult:
        return self.bundle.graphs.search(h, self.bundle.tree, availability.counts, width)

    @contextmanager
    def _legal(self, query: Query, history: IntArray) -> Iterator[Availability]:
        """The counts under the query's filters, restored afterwards."""
        catalog = self.bundle.catalog
        excluded = [known_leaves(query.exclude, catalog)]
        if query.exclude_seen:
            excluded += [history, known_leaves(query.seen, catalog)]
        leaves = None
        if query.path:
            place = self.bundle.browse.find(query.path)
            leaves = (place.first_leaf, place.end_leaf)
        availability = self._legal_items.passing(query.categories, query.filters, leaves)
        with availability.without(np.concatenate([*excluded])):
            yield availability

    def _best(
        self, query: Query, found: BeamResult | None, fused: FloatArray, history: IntArray
    ) -> Order:
        """Which of the items found are answered, in the order that the query asks for."""
        if found is None or not len(fused):
            return Order(np.empty(0, np.int64))
        if query.exploration > 0:
            return Order(*drawn_order(found.totals(), query.k, query.exploration, self._chance))
        by_score = _order(found, fused)
        if query.diversity > 0:
            codes = self.bundle.catalog.codes[:, 0]
            groups, had = codes[found.leaves[by_score]], codes[history]
            best = calibrated_order(fused[by_score], groups, had, query.k, query.diversity)
            return Order(by_score[best])
        return Order(by_score[: query.k])

    def _explained(
        self, items: Sequence[RecommendedItem], h: FloatArray | None, history: IntArray
    ) -> tuple[RecommendedItem, ...]:
        """The items with the reasons for each; `history` is what the encoder has read."""
        browse, catalog = self.bundle.browse, self.bundle.catalog
        leaves = known_leaves([item.item_id for item in items], catalog)
        if h is None or not len(leaves):
            ways = popular_ways(browse, self._explorer, leaves.tolist())
            return tuple(
                replace(item, explanation=Explanation(way, ()))
                for item, way in zip(items, ways, strict=True)
            )
        decoder = GraphStepDecoder(self.bundle.graphs, self.bundle.tree)
        ways = explain_ways(browse, decoder, h, leaves)
        left_out, drops = explain_influences(decoder, self._trie, self.encode, history, leaves)
        names = [catalog.item_id(int(leaf)) for leaf in left_out]
        return tuple(
            replace(item, explanation=Explanation(way, _influences(names, drops[:, row])))
            for row, (item, way) in enumerate(zip(items, ways, strict=True))
        )

    def _choices(
        self, query: Query, h: FloatArray | None, ranked: IntArray, availability: Availability
    ) -> tuple[Choice | None, tuple[Choice, ...]]:
        """The place of the query's path and the choices below it, where they were asked for."""
        if query.choices is None:
            return None, ()
        found = self.bundle.browse.find(query.path)
        (probability,) = self._explorer.probabilities([found], h)
        place = Choice(found, probability, int(availability.counts[0]), ())
        return place, self._explorer.choices(found, h, ranked, availability, query.choices)

    def _resolve(
        self,
        k: int,
        found: BeamResult | None,
        fused: FloatArray,
        order: Order,
        availability: Availability,
    ) -> tuple[RecommendedItem, ...]:
        """Generated items in their order, then popular ones below them on the same scale."""
        items: list[RecommendedItem] = []
        taken: IntArray = np.empty(0, dtype=np.int64)
        if found is not None:
            taken = found.leaves[order.places]
            for place in order.places:
                probs = tuple(float(p) for p in found.log_probs[place])
                leaf, score = int(found.leaves[place]), float(fused[place])
                items.append(self._item(leaf, len(items) + 1, score, "generated", probs))
        if order.propensities is not None:
            drawn = zip(items, order.propensities.tolist(), strict=True)
            items = [replace(item, propensity=propensity) for item, propensity in drawn]
        popular = self._popular_leaves(k - len(items), availability, taken)
        if len(popular):
            own = self._log_popularity[popular]
            lowest = min((item.score for item in items), default=0.0)
            scores = own + min(0.0, lowest - float(own[0]))
            for leaf, score in zip(popular, scores, strict=True):
                items.append(self._item(int(leaf), len(items) + 1, float(score), "popular", None))
        return tuple(items)

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

    def _popular_leaves(self, wanted: int, availability: Availability, taken: IntArray) -> IntArray:
        """The most popular `wanted` legal leaves that are not taken yet."""
        chosen: list[int] = []
        chunk = 1024
        for start in range(0, len(self._by_popularity), chunk):
            if len(chosen) >= wanted:
                break
            leaves = self._by_popularity[start : start + chunk]
            leaves = leaves[availability.legal(leaves) & ~np.isin(leaves, taken)]
            chosen += leaves[: wanted - len(chosen)].tolist()
        return np.array(chosen, dtype=np.int64)


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


def _influences(names: Sequence[ItemId], drops: FloatArray) -> tuple[Influence, ...]:
    return tuple(Influence(name, float(drop)) for name, drop in zip(names, drops, strict=True))


def _order(found: BeamResult, fused: FloatArray) -> IntArray:
    """Places of the items found [R], best first.

    Equal scores are put in leaf order, so that the answer never depends on chance.
    """
    return np.lexsort((found.leaves, -fused))


def _ranked(found: BeamResult | None, fused: FloatArray) -> IntArray:
    """The leaves found [R], best first."""
    return np.empty(0, np.int64) if found is None else found.leaves[_order(found, fused)]


def is_certified(found: BeamResult, fused: FloatArray, k: int, *, bonus: float) -> bool:
    """Whether no item beyond `found` can belong to the best `k`.

    Items under a pruned prefix score at most its log-probability (the fused term is never
    positive) and `bonus`; the float32 sums on both sides are trusted to 1e-4.
    """
    if found.pruned == -np.inf:
        return True
    if len(fused) < k:
        return False
    return bool(np.sort(fused)[-k] >= found.pruned + bonus + 1e-4)


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

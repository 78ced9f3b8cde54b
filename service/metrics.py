"""Every Prometheus metric of the service, and the only importer of prometheus_client.

Names start with `cofine_`, times are in seconds, labels are few and never hold a user or an item.
Children of a label are made at once, so that 0 is exported before the first event.
"""

import bisect
import collections
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

HTTP_BUCKETS_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05),
    *(0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0),
)
REDIS_BUCKETS_SECONDS = (
    *(0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0),
)

STAGES = ("state", "encode", "decode", "resolve")
OTHER = "other"
ITEM_SOURCES = (
    *("generated", "partial", "popular", OTHER),
    *("popular_in_category", "default", "pinned", "boosted"),
)
"""Where a recommended item comes from; the order is part of recommendation ids: only append."""
SOURCES = (*(source for source in ITEM_SOURCES if source != OTHER), "empty")
EVENT_TYPES = ("view", "cart", "purchase", "dislike", OTHER)
RANKS = {1: "1", 3: "2-3", 10: "4-10", 30: "11-30"}
RANK_BUCKETS = (*RANKS.values(), "31+")
_LAST_RANKS = tuple(RANKS)
UNATTRIBUTED_REASONS = ("none", "invalid", "expired", "not_served")
LOG_KINDS = ("event", "impression", "erasure")
LOG_OUTCOMES = ("written", "failed", "dropped")
LOG_STREAMS = ("event", "impression")
DEGRADED_REASONS = ("state_unavailable", "levels", "paging", "explanations")
REJECTION_REASONS = ("queue_full", "deadline")
DEADLINE_STAGES = ("queue", "compute")
ABANDONED_STAGES = ("state", "queue", "compute")
STATE_OPERATIONS = ("read", "append", "erase", "keep_list", "read_list")
STATE_OUTCOMES = ("ok", "miss", "timeout", "error", "open")
EVENT_OUTCOMES = ("accepted", "duplicate", "dropped")
ACCESS_REFUSALS = (
    *("no_key", "unknown_key", "expired_key", "no_user_token", "bad_user_token"),
    *("scope", "foreign_user", "rate_limit"),
)
RELOAD_OUTCOMES = ("ok", "refused")
VARIANTS = ("active", "canary")
SHADOW_OUTCOMES = ("same", "different", "failed", "skipped")
CIRCUIT_STATES = {"closed": 0, "half_open": 1, "open": 2}

disable_created_metrics()  # type: ignore[no-untyped-call]


Reloads: TypeAlias = Mapping[str, Counter]
"""Counters of a file's changes by what became of them, `RELOAD_OUTCOMES`."""


class Metrics:
    """The metrics of one application, in a registry of their own.

    Attributes whose metric has a label are dictionaries from the label's value to its child.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._build_http(registry)
        self._build_recommend(registry)
        self._build_state(registry)
        self._build_attribution(registry)
        self._build_access(registry)
        self._build_bundle(registry)

    def _build_http(self, registry: CollectorRegistry) -> None:
        self.http_request_duration = Histogram(
            "cofine_http_request_duration_seconds",
            "Time from request to end of answer, for every status.",
            ("route", "method", "status"),
            buckets=HTTP_BUCKETS_SECONDS,
            registry=registry,
        )
        self.http_unavailable = Counter(
            "cofine_http_unavailable_total",
            "Answers with 5xx, or with 429 for another reason than a key's own limit.",
            ("route",),
            registry=registry,
        )
        self.http_requests_in_flight = Gauge(
            "cofine_http_requests_in_flight", "Requests being answered.", registry=registry
        )

    def _build_recommend(self, registry: CollectorRegistry) -> None:
        self.stage_duration = _histograms(
            Histogram(
                "cofine_recommend_stage_duration_seconds",
                "Time of a recommendation's stages.",
                ("stage",),
                buckets=HTTP_BUCKETS_SECONDS,
                registry=registry,
            ),
            STAGES,
        )
        self.queue_wait = Histogram(
            "cofine_queue_wait_seconds",
            "Time that a request waited for a worker.",
            buckets=HTTP_BUCKETS_SECONDS,
            registry=registry,
        )
        self.queue_length = Gauge(
            "cofine_queue_length", "Requests waiting for a worker.", registry=registry
        )
        self.recommendations = _counters(
            "cofine_recommendations_total",
            "Answers by where their best item comes from.",
            ("source", SOURCES),
            registry,
        )
        self.degraded = _counters(
            "cofine_degraded_total",
            "Answers made without something they should have used.",
            ("reason", DEGRADED_REASONS),
            registry,
        )
        self.admission_rejected = _counters(
            "cofine_admission_rejected_total",
            "Requests refused because too much was waiting.",
            ("reason", REJECTION_REASONS),
            registry,
        )
        self.deadline_exceeded = _counters(
            "cofine_deadline_exceeded_total",
            "Requests whose time was up, by what they were waiting for.",
            ("stage", DEADLINE_STAGES),
            registry,
        )
        self.abandoned = _counters(
            "cofine_abandoned_total",
            "Requests whose client went away, by what they were waiting for.",
            ("stage", ABANDONED_STAGES),
            registry,
        )
        self.beam_shortfall = Counter(
            "cofine_beam_shortfall_total", "Answers with fewer items than asked.", registry=registry
        )
        self.certified = Counter(
            "cofine_certified_total",
            "Answers proven to be the exact best items.",
            registry=registry,
        )
        self.unknown_history_items = Counter(
            "cofine_unknown_history_items_total",
            "Items of histories that the catalogue does not hold.",
            registry=registry,
        )

    def _build_state(self, registry: CollectorRegistry) -> None:
        self.redis_operation_duration = Histogram(
            "cofine_redis_operation_duration_seconds",
            "Time of an operation on the user state in Redis.",
            ("op", "outcome"),
            buckets=REDIS_BUCKETS_SECONDS,
            registry=registry,
        )
        self.state_operations = {
            (op, outcome): self.redis_operation_duration.labels(op, outcome)
            for op in STATE_OPERATIONS
            for outcome in STATE_OUTCOMES
        }
        self.redis_circuit_state = Gauge(
            "cofine_redis_circuit_state",
            "Circuit breaker of Redis: 0 closed, 1 probing, 2 open.",
            registry=registry,
        )
        self.memory_state_entries = Gauge(
            "cofine_memory_state_entries",
            "Entries of all users in memory://; 0 when the state is in Redis.",
            registry=registry,
        )
        self.state_events = _counters(
            "cofine_state_events_total",
            "Events by what became of them; dropped ones were refused with 503.",
            ("outcome", EVENT_OUTCOMES),
            registry,
        )

    def _build_attribution(self, registry: CollectorRegistry) -> None:
        impressions = Counter(
            "cofine_impressions_total",
            "Items recommended, by rank and by where they come from.",
            ("source", "rank"),
            registry=registry,
        )
        self._impressions = {
            (source, rank): impressions.labels(source, rank)
            for source in ITEM_SOURCES
            for rank in RANK_BUCKETS
        }
        attributed = Counter(
            "cofine_attributed_events_total",
            "Accepted events that follow a recommendation, by the item's rank and source there.",
            ("type", "source", "rank"),
            registry=registry,
        )
        self._attributed_events = {
            (kind, *place): attributed.labels(kind, *place)
            for kind in EVENT_TYPES
            for place in self._impressions
        }
        self.unattributed_events = _counters(
            "cofine_unattributed_events_total",
            "Accepted events without a recommendation; reason none: they name none.",
            ("reason", UNATTRIBUTED_REASONS),
            registry,
        )
        log_records = Counter(
            "cofine_event_log_records_total",
            "Records for the event log; failed ones were refused with 503, dropped ones are lost.",
            ("kind", "outcome"),
            registry=registry,
        )
        self.log_records = {
            (kind, outcome): log_records.labels(kind, outcome)
            for kind in LOG_KINDS
            for outcome in LOG_OUTCOMES
        }

        self.log_pushed_out = _counters(
            "cofine_event_log_pushed_out_total",
            "Records that a full stream in Redis lost before they were drained.",
            ("stream", LOG_STREAMS),
            registry,
        )
        fill = Gauge(
            "cofine_event_log_fill_ratio",
            "Share of the records that a stream in Redis may hold, when it was last written to.",
            ("stream",),
            registry=registry,
        )
        self.log_fill = {stream: fill.labels(stream) for stream in LOG_STREAMS}

    def count_impressions(self, items: Iterable[tuple[str, int]]) -> None:
        """Count the items of an answer, each by its source and rank."""
        places = collections.Counter(
            (source if source in ITEM_SOURCES else OTHER, _rank_bucket(rank))
            for source, rank in items
        )
        for place, number in places.items():
            self._impressions[place].inc(number)

    def count_attributed(self, event_type: str, source: str, rank: int) -> None:
        """Count an accepted event on an item that was recommended."""
        kind = event_type if event_type in EVENT_TYPES else OTHER
        self._attributed_events[kind, source, _rank_bucket(rank)].inc()

    def _build_access(self, registry: CollectorRegistry) -> None:
        self.api_keys = Gauge(
            "cofine_api_keys", "Keys in force; 0 where everybody may call.", registry=registry
        )
        self.keys_reloads = _counters(
            "cofine_keys_reloads_total",
            "Changes of the keys file; refused ones left the former keys in force.",
            ("outcome", RELOAD_OUTCOMES),
            registry,
        )
        self.scenarios_reloads = _counters(
            "cofine_scenarios_reloads_total",
            "Changes of the scenarios file; refused ones left the former scenarios in force.",
            ("outcome", RELOAD_OUTCOMES),
            registry,
        )
        self.access_refused = _counters(
            "cofine_access_refused_total",
            "Requests refused with 401, 403 or the 429 of a key's limit.",
            ("reason", ACCESS_REFUSALS),
            registry,
        )
        self.rate_limit_local = Counter(
            "cofine_rate_limit_local_total",
            "Requests counted in this process because Redis did not answer.",
            registry=registry,
        )

    def _build_bundle(self, registry: CollectorRegistry) -> None:
        self._build = Info("cofine_build", "The release that serves.", registry=registry)
        self._bundle = Info("cofine_bundle", "The bundle in service.", registry=registry)
        self.bundle_load_timestamp = Gauge(
            "cofine_bundle_load_timestamp_seconds",
            "When the bundle in service was put there, in Unix time.",
            registry=registry,
        )
        self.catalog_items = Gauge(
            "cofine_catalog_items", "Items of the catalogue in service.", registry=registry
        )
        self._build_catalogue(registry)
        self.variant_duration = _histograms(
            Histogram(
                "cofine_variant_duration_seconds",
                "Time of a whole recommendation by the role of the bundle that served it.",
                ("variant",),
                buckets=HTTP_BUCKETS_SECONDS,
                registry=registry,
            ),
            VARIANTS,
        )
        answers = Counter(
            "cofine_variant_answers_total",
            "Answers by the role of the bundle and where their best item comes from.",
            ("variant", "source"),
            registry=registry,
        )
        self.variant_answers = {
            (variant, source): answers.labels(variant, source)
            for variant in VARIANTS
            for source in SOURCES
        }
        self._variant_bundles = Gauge(
            "cofine_variant_bundle",
            "1 for the bundle that has the role.",
            ("variant", "bundle"),
            registry=registry,
        )
        self.shadow = _counters(
            "cofine_shadow_total",
            "Answers that a shadow computed too, compared with what was served.",
            ("outcome", SHADOW_OUTCOMES),
            registry,
        )
        self.shadow_overlap = Histogram(
            "cofine_shadow_overlap_ratio",
            "Share of the served items that the shadow has as well.",
            buckets=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
            registry=registry,
        )
        self.rollout_version = Gauge(
            "cofine_rollout_version", "Version of the rollout that is followed.", registry=registry
        )
        self.rollout_failures = Counter(
            "cofine_rollout_failures_total",
            "Rollouts that this replica could not follow.",
            registry=registry,
        )

    def _build_catalogue(self, registry: CollectorRegistry) -> None:
        self.catalogue_version = Gauge(
            "cofine_catalogue_version",
            "Version of the live catalogue that every open bundle has whole; 0 is as exported.",
            registry=registry,
        )
        self.catalogue_edited_items = Gauge(
            "cofine_catalogue_edited_items", "Items that have edits.", registry=registry
        )
        self.catalogue_apply = Histogram(
            "cofine_catalogue_apply_duration_seconds",
            "Time from reading edits to serving them.",
            buckets=HTTP_BUCKETS_SECONDS,
            registry=registry,
        )
        self.catalogue_failures = Counter(
            "cofine_catalogue_failures_total",
            "Edits that could not be applied to a bundle in service.",
            registry=registry,
        )

    def describe_rollout(self, version: int, bundles: Mapping[str, str]) -> None:
        """Publish the version of the rollout and the bundle of each role."""
        self.rollout_version.set(version)
        self._variant_bundles.clear()
        for variant, bundle in bundles.items():
            self._variant_bundles.labels(variant, bundle).set(1)

    def describe_build(self, version: str) -> None:
        """Publish which release serves."""
        self._build.info({"version": version})

    def describe_bundle(self, bundle_id: str, *, loaded_at_seconds: float) -> None:
        """Publish which bundle is in service; `loaded_at_seconds` is Unix time."""
        self._bundle.info({"bundle": bundle_id})
        self.bundle_load_timestamp.set(loaded_at_seconds)

    def describe_catalogue(self, version: int, edited_items: int) -> None:
        """Publish which edits of the catalogue are applied."""
        self.catalogue_version.set(version)
        self.catalogue_edited_items.set(edited_items)

    def expect_routes(self, routes: Iterable[tuple[str, str, int]]) -> None:
        """Make the children of (route template, method, status on success)."""
        for route, method, status in routes:
            self.http_request_duration.labels(route, method, str(status))
            self.http_unavailable.labels(route)

    def render(self) -> bytes:
        """Return all metrics in the text format of `CONTENT_TYPE`."""
        return generate_latest(self.registry)


def _rank_bucket(rank: int) -> str:
    return RANK_BUCKETS[bisect.bisect_left(_LAST_RANKS, rank)]


def _counters(
    name: str, text: str, label: tuple[str, tuple[str, ...]], registry: CollectorRegistry
) -> dict[str, Counter]:
    """Return label value -> bound counter."""
    label_name, values = label
    counter = Counter(name, text, (label_name,), registry=registry)
    return {value: counter.labels(value) for value in values}


def _histograms(histogram: Histogram, values: tuple[str, ...]) -> dict[str, Histogram]:
    """Return label value -> bound histogram."""
    return {value: histogram.labels(value) for value in values}

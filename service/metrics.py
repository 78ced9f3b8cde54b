"""Every Prometheus metric of the service, and the only importer of prometheus_client.

Names start with `cofine_`, times are in seconds, labels are few and never hold a user or an item.
Children of a label are made at once, so that 0 is exported before the first event.
"""

from collections.abc import Iterable

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
SOURCES = ("generated", "popular", "empty")
DEGRADED_REASONS = ("state_unavailable", "paging")
REJECTION_REASONS = ("queue_full",)
DEADLINE_STAGES = ("queue", "compute")
ABANDONED_STAGES = ("queue", "compute")
STATE_OPERATIONS = ("read", "append", "erase", "keep_list", "read_list")
STATE_OUTCOMES = ("ok", "miss", "timeout", "error", "open")
EVENT_OUTCOMES = ("accepted", "duplicate", "dropped")
CIRCUIT_STATES = {"closed": 0, "half_open": 1, "open": 2}

disable_created_metrics()  # type: ignore[no-untyped-call]


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
        self._build_bundle(registry)

    def _build_http(self, registry: CollectorRegistry) -> None:
        self.http_request_duration = Histogram(
            "cofine_http_request_duration_seconds",
            "Time from request to end of answer, for every status.",
            ("route", "method", "status"),
            buckets=HTTP_BUCKETS_SECONDS,
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

    def _build_bundle(self, registry: CollectorRegistry) -> None:
        self._build = Info("cofine_build", "The release that serves.", registry=registry)
        self._bundle = Info("cofine_bundle", "The bundle in service.", registry=registry)
        self.bundle_load_timestamp = Gauge(
            "cofine_bundle_load_timestamp_seconds",
            "When the bundle in service was loaded, in Unix time.",
            registry=registry,
        )
        self.catalog_items = Gauge(
            "cofine_catalog_items", "Items of the catalogue in service.", registry=registry
        )

    def describe_build(self, version: str) -> None:
        """Publish which release serves."""
        self._build.info({"version": version})

    def describe_bundle(
        self, bundle_id: str, catalogue_version: int, items: int, *, loaded_at_seconds: float
    ) -> None:
        """Publish which bundle is in service; `loaded_at_seconds` is Unix time."""
        self._bundle.info({"bundle": bundle_id, "version": str(catalogue_version)})
        self.bundle_load_timestamp.set(loaded_at_seconds)
        self.catalog_items.set(items)

    def expect_routes(self, routes: Iterable[tuple[str, str, int]]) -> None:
        """Make the children of (route template, method, status on success)."""
        for route, method, status in routes:
            self.http_request_duration.labels(route, method, str(status))

    def render(self) -> bytes:
        """Return all metrics in the text format of `CONTENT_TYPE`."""
        return generate_latest(self.registry)


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

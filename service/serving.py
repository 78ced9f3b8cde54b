"""What an application serves with: one object that the routes share.

Opens the bundle and verifies it by its golden cases; knows no routes.
"""

import importlib.metadata
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from starlette.requests import HTTPConnection

from model.browse import BrowseTree
from model.bundle import Bundle
from model.golden_cases import verify_golden
from model.recommender import Recommender
from model.types import FloatArray
from service.bundle_folder import BundleFolder
from service.catalogue import Catalogue, LiveBundle
from service.engine import Engine, ServedRecommender
from service.event_log import EventLog
from service.folder_event_log import FolderEventLog
from service.impressions import Impressions
from service.item_edits import EditStore, MemoryEdits
from service.metrics import Metrics
from service.pages import Pages
from service.rate_limits import LocalRateLimits, RateLimits
from service.recommendation_id import RecommendationIds
from service.redis_connection import ConnectionLimits
from service.redis_event_log import RedisEventLog
from service.redis_item_edits import RedisEdits
from service.redis_rate_limits import RedisRateLimits
from service.redis_rollout import RedisRolloutStore
from service.redis_user_state import RedisUserState
from service.rollout import BundleReference, MemoryRolloutStore, RolloutStore
from service.scenarios_file import ScenariosFile
from service.settings import Settings
from service.user_state import MemoryUserState, StateLimits, UserStateStore
from service.variants import Variant, Variants

_LOGGER = logging.getLogger(__name__)


class ServedLevel(Protocol):
    """What the service tells of one level of the semantic IDs."""

    @property
    def name(self) -> str:
        """What the level says of an item."""
        ...

    @property
    def codes(self) -> int:
        """How many codes it has."""
        ...


class ServedAttribute(Protocol):
    """What the service tells of an attribute that items can be filtered by."""

    @property
    def name(self) -> str:
        """What filters call it."""
        ...

    @property
    def type(self) -> Literal["str", "int", "float", "bool"]:
        """Of its values."""
        ...


class ServedManifest(Protocol):
    """What the service tells of a bundle's manifest."""

    @property
    def levels(self) -> Sequence[ServedLevel]:
        """The levels of the semantic IDs, coarse to fine."""
        ...

    @property
    def attributes(self) -> Sequence[ServedAttribute]:
        """What items can be filtered by."""
        ...

    @property
    def history_length(self) -> int:
        """How many of a history's newest items are used."""
        ...

    @property
    def decoder(self) -> Literal["autoregressive", "diffusion"]:
        """What writes the codes."""
        ...


class ServedCatalog(Protocol):
    """What the service reads of a catalogue; `model.catalog.Catalog` is the real one."""

    def __len__(self) -> int: ...

    def leaf(self, item_id: str) -> int | None:
        """Return the item's number, None when the catalogue does not hold it."""
        ...

    def item_id(self, leaf: int) -> str:
        """Return the item's id."""
        ...

    def title(self, leaf: int) -> str:
        """Return the item's title."""
        ...

    def path(self, leaf: int) -> tuple[str, ...]:
        """Return the item's first category path, coarse to fine."""
        ...

    def paths(self, leaf: int) -> Sequence[tuple[str, ...]]:
        """Return all its category paths."""
        ...

    def semantic_id(self, leaf: int) -> tuple[int, ...]:
        """Return the item's codes, coarse to fine."""
        ...


class ServedTree(Protocol):
    """What the service reads of a bundle's search tree."""

    @property
    def item_vectors(self) -> FloatArray:
        """The vectors of all items [N, D], in leaf order."""
        ...


class ServedBundle(Protocol):
    """What the service reads of a bundle; `model.bundle.Bundle` is the real one."""

    @property
    def bundle_id(self) -> str:
        """The hash that names the bundle."""
        ...

    @property
    def catalogue_version(self) -> int:
        """The version of the live catalogue."""
        ...

    @property
    def manifest(self) -> ServedManifest:
        """What the bundle says of itself."""
        ...

    @property
    def catalog(self) -> ServedCatalog:
        """Its items."""
        ...

    @property
    def browse(self) -> BrowseTree:
        """The tree that people browse."""
        ...

    def live_items(self, first: int, end: int) -> int:
        """Return how many of the leaves `first` .. `end` - 1 may be recommended now."""
        ...

    @property
    def tree(self) -> ServedTree:
        """The tree that is searched."""
        ...


def open_bundle(settings: Settings, path: Path | None = None) -> Bundle:
    """Open a bundle, that of the settings by default, and run its golden cases.

    They also warm it up.

    Raises:
        BundleError: it is missing, damaged or computes something else than it promises.
    """
    bundle = Bundle.open(path or settings.bundle, threads=settings.threads)
    verify_golden(Recommender(bundle))
    return bundle


class Serving:
    """The parts of one running application.

    Attributes:
        is_draining: set at SIGTERM; readiness then says no while requests are still served.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        bundle: ServedBundle,
        make_recommender: Callable[[], ServedRecommender],
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.folder = BundleFolder(settings.bundles, settings.bundle)
        self.store = make_store(settings, metrics)
        read_seconds = settings.state_read_deadline_ms / 1_000
        self.pages = Pages(self.store, deadline_seconds=read_seconds)
        self.recommendation_ids = RecommendationIds(settings.signing_secrets())
        self.event_log = make_event_log(self.store, settings, metrics)
        self.impressions = Impressions(self.recommendation_ids, metrics, self.event_log)
        self.scenarios = ScenariosFile(settings.scenarios, metrics)
        self.rate_limits = make_rate_limits(self.store, settings, metrics)
        self.catalogue = Catalogue(make_edit_store(self.store, settings), metrics)
        first = BundleReference(name=settings.bundle.resolve().name, bundle=bundle.bundle_id)
        self.variants = Variants(
            self._variant(first, bundle, make_recommender),
            self.folder,
            make_rollout_store(self.store, settings),
            self._open_variant,
            metrics=metrics,
            deadline_seconds=settings.deadline_ms / 1_000,
        )
        self.is_draining = False
        metrics.queue_length.set_function(lambda: self.engine.queue_length)
        metrics.catalog_items.set_function(lambda: len(self.bundle.catalog))
        metrics.describe_build(service_version())

    @property
    def bundle(self) -> ServedBundle:
        """The active bundle."""
        return self.variants.active.bundle

    @property
    def engine(self) -> Engine:
        """What computes with the active bundle; a request that needs both takes `variants`."""
        return self.variants.active.engine

    def _open_variant(self, reference: BundleReference) -> Variant:
        bundle = open_bundle(self.settings, self.folder.path_of(reference.name))
        return self._variant(reference, bundle, recommender_factory(bundle))

    def _variant(
        self,
        reference: BundleReference,
        bundle: ServedBundle,
        make_recommender: Callable[[], ServedRecommender],
    ) -> Variant:
        engine = Engine(
            make_recommender,
            workers=self.settings.workers,
            queue_max_requests=self.settings.queue_max_requests,
            metrics=self.metrics,
        )
        return Variant(reference, LiveBundle(bundle, engine, self.catalogue), engine)

    async def start(self) -> None:
        """Start the workers and the store, and log what is served with what."""
        await self.store.start()
        if self.event_log is not None:
            self.event_log.start()
        await self.catalogue.start()
        await self.variants.start()
        facts = {
            "version": service_version(),
            "bundle": self.bundle.bundle_id,
            "items": len(self.bundle.catalog),
            "workers": self.settings.workers,
            "state": self.store.kind,
        }
        _LOGGER.info("serving", extra=facts)

    async def stop(self) -> None:
        """End the workers and the store."""
        await self.scenarios.stop()
        await self.variants.stop()
        await self.catalogue.stop()
        if self.event_log is not None:
            await self.event_log.close()
        await self.pages.settle()
        await self.store.close()


def recommender_factory(bundle: Bundle) -> Callable[[], ServedRecommender]:
    """Return what makes one recommender per worker."""
    return lambda: Recommender(bundle)


def make_store(settings: Settings, metrics: Metrics) -> UserStateStore:
    """Return the store that `state_url` names, not started yet."""
    limits = StateLimits(
        history_max_items=settings.history_max_items,
        seen_max_items=settings.seen_max_items,
        event_ids_max=settings.event_ids_max,
        event_id_window_ms=settings.event_id_window_seconds * 1_000,
        ttl_ms=settings.state_ttl_seconds * 1_000,
    )
    url = settings.state_url.get_secret_value()
    if url.startswith("memory://"):
        store = MemoryUserState(limits, max_entries=settings.memory_max_entries)
        metrics.memory_state_entries.set_function(lambda: store.entries)
        return store
    longest_ms = max(settings.state_read_deadline_ms, settings.state_write_deadline_ms)
    connection_limits = ConnectionLimits(
        socket_timeout_seconds=longest_ms / 1_000,
        connections_max=settings.redis_connections_max,
        failures_max=settings.redis_failures_max,
        probe_interval_seconds=settings.redis_probe_interval_ms / 1_000,
        fair_seconds=settings.state_read_deadline_ms / 2_000,
    )
    return RedisUserState(url, limits, metrics, connection_limits)


def make_rate_limits(store: UserStateStore, settings: Settings, metrics: Metrics) -> RateLimits:
    """Return what counts requests, beside the user state and so shared as far as that is."""
    if isinstance(store, RedisUserState):
        deadline_seconds = settings.state_read_deadline_ms / 1_000
        return RedisRateLimits(store.connection, metrics, deadline_seconds=deadline_seconds)
    return LocalRateLimits()


def make_event_log(store: UserStateStore, settings: Settings, metrics: Metrics) -> EventLog | None:
    """Return the log that `event_log` names, not started yet; in Redis it is beside the state."""
    if settings.event_log is None:
        return None
    if settings.event_log != "redis":
        return FolderEventLog(settings.event_log, metrics)
    if not isinstance(store, RedisUserState):
        raise TypeError("an event log in Redis without a state in Redis; this is a bug")
    most = settings.event_log_max_entries
    return RedisEventLog(store.connection, metrics, max_entries=most)


def make_rollout_store(store: UserStateStore, settings: Settings) -> RolloutStore:
    """Return what keeps the rollout, beside the user state and so shared as far as that is."""
    if isinstance(store, RedisUserState) and settings.bundles is not None:
        deadline_seconds = settings.state_write_deadline_ms / 1_000
        return RedisRolloutStore(store.connection, deadline_seconds=deadline_seconds)
    return MemoryRolloutStore()


def make_edit_store(store: UserStateStore, settings: Settings) -> EditStore:
    """Return what keeps the catalogue's edits, beside the user state and shared as far as that."""
    if isinstance(store, RedisUserState):
        deadline_seconds = settings.state_write_deadline_ms / 1_000
        return RedisEdits(store.connection, deadline_seconds=deadline_seconds)
    return MemoryEdits()


async def serving_of(connection: HTTPConnection) -> Serving:
    """Return what the application of this request serves with; a dependency of the routes.

    A coroutine, because the framework runs other dependencies in a thread, which costs more than
    all the rest of a request but its computation.
    """
    serving = connection.app.state.serving
    if not isinstance(serving, Serving):
        raise TypeError("the application's lifespan has not started; this is a bug")
    return serving


def service_version() -> str:
    """Return the installed version, `unknown` when run from a bare folder."""
    try:
        return importlib.metadata.version("cofine")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"

"""What an application serves with: one object that the routes share.

Opens the bundle and verifies it by its golden cases; knows no routes.
"""

import importlib.metadata
import logging
import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from starlette.requests import HTTPConnection

from model.browse import BrowseTree
from model.bundle import Bundle
from model.recommender import Recommender, verify_golden
from service.engine import Engine, ServedRecommender
from service.metrics import Metrics
from service.redis_connection import ConnectionLimits
from service.redis_user_state import RedisUserState
from service.settings import Settings
from service.user_state import MemoryUserState, StateLimits, UserStateStore

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


def open_bundle(settings: Settings) -> Bundle:
    """Open the bundle of the settings and run its golden cases, which also warms it up.

    Raises:
        BundleError: it is missing, damaged or computes something else than it promises.
    """
    bundle = Bundle.open(settings.bundle, threads=settings.threads)
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
        self.bundle = bundle
        self.store = make_store(settings, metrics)
        self.engine = Engine(
            make_recommender,
            workers=settings.workers,
            queue_max_requests=settings.queue_max_requests,
            metrics=metrics,
        )
        self.is_draining = False
        metrics.queue_length.set_function(lambda: self.engine.queue_length)
        metrics.describe_build(service_version())
        metrics.describe_bundle(
            bundle.bundle_id,
            bundle.catalogue_version,
            len(bundle.catalog),
            loaded_at_seconds=time.time(),
        )

    async def start(self) -> None:
        """Start the workers and the store, and log what is served with what."""
        self.engine.start()
        await self.store.start()
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
        await self.engine.stop()
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
    )
    return RedisUserState(url, limits, metrics, connection_limits)


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

"""The bundles that this replica has open, each with workers of its own, and who is served by which.

The replica does what the rollout says: it opens and verifies what is missing, and only then
exchanges all roles at once. What fails is told and tried again later, and the former roles stay. A
request takes its variant once and keeps it; an engine that has no role any more ends when no
request can hold it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.errors import BundleError
from model.query import Query, Recommendation
from service.bundle_folder import BundleFolder, refusal
from service.catalogue import LiveBundle
from service.engine import Engine
from service.errors import (
    BundleNotFoundError,
    BundleRefusedError,
    RolloutConflictError,
    ServiceError,
    StateUnavailableError,
)
from service.metrics import Metrics
from service.rollout import (
    BundleReference,
    Role,
    Rollout,
    RolloutStore,
    is_in_canary,
)

if TYPE_CHECKING:
    from service.serving import ServedBundle

POLL_SECONDS = 1.0
RETRY_SECONDS = 30.0
"""After how long a rollout is tried again that this replica could not follow."""
RETIRE_MARGIN_SECONDS = 5.0
SHADOWS_MAX = 2
"""Requests that a shadow computes at once, so that it takes little from what is served."""
SHADOW_DEADLINE_SECONDS = 10.0
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Variant:
    """One open bundle, and what computes with it."""

    reference: BundleReference
    live: LiveBundle
    engine: Engine

    @property
    def bundle(self) -> "ServedBundle":
        """The bundle as its catalogue is now."""
        return self.live.bundle


@dataclass(frozen=True)
class Served:
    """The variant that serves a request, and in which role."""

    role: Role
    bundle: "ServedBundle"
    engine: Engine

    def made_by(self, found: Recommendation) -> "ServedBundle":
        """Return the state of the bundle that an answer was made from.

        The catalogue may have been edited since the request came.
        """
        return found.bundle or self.bundle


class Variants:
    """All open bundles of this replica.

    Attributes:
        rollout: what this replica does now.
        failure: why it does not do what the store says, if so.
    """

    def __init__(
        self,
        first: Variant,
        folder: BundleFolder,
        store: RolloutStore,
        open_variant: Callable[[BundleReference], Variant],
        *,
        metrics: Metrics,
        deadline_seconds: float,
    ) -> None:
        """Serve `first` until the store says something else.

        Args:
            first: the variant of the bundle that the settings name.
            folder: of all bundles.
            store: of the rollout.
            open_variant: opens, verifies and warms up; runs in a thread.
            metrics: of the application.
            deadline_seconds: the longest that a request may hold a variant.
        """
        self._open = {first.reference: first}
        self._folder = folder
        self._store = store
        self._open_variant = open_variant
        self._metrics = metrics
        self._retire_seconds = deadline_seconds + RETIRE_MARGIN_SECONDS
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._shadows = 0
        self._retry_at = 0.0
        self._failed: Rollout | None = None
        self.rollout = Rollout(active=first.reference)
        self.failure: str | None = None
        self._describe()

    @property
    def active(self) -> Variant:
        """What serves everybody whom the canary does not."""
        return self._open[self.rollout.active]

    @property
    def open_bundles(self) -> frozenset[BundleReference]:
        """What is open and verified here."""
        return frozenset(self._open)

    def catalogue_failure(self, reference: BundleReference) -> str | None:
        """Why an open bundle lacks some of the catalogue's edits; None for one that is not open."""
        variant = self._open.get(reference)
        return None if variant is None else variant.live.failure

    async def start(self) -> None:
        """Start the workers, and do what the rollout says before anybody is served."""
        self.active.engine.start()
        await self.active.live.join()
        await self._store.start()
        await self._look()
        self._spawn(self._follow())

    async def stop(self) -> None:
        """End all workers."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._store.close()
        for variant in self._open.values():
            await variant.engine.stop()

    def serving(self, user_id: str | None) -> Served:
        """Return what serves this user; nobody in particular is never served by the canary."""
        canary, percent = self.rollout.canary, self.rollout.canary_percent
        if canary is not None and user_id is not None and is_in_canary(user_id, canary, percent):
            variant = self._open[canary]
            return Served("canary", variant.bundle, variant.engine)
        return Served("active", self.active.bundle, self.active.engine)

    def named(self, name: str) -> Served:
        """Return the open bundle of this name, as one that is computed and not served.

        Raises:
            BundleNotFoundError: none is open.
        """
        for reference, variant in self._open.items():
            if reference.name == name:
                return Served("shadow", variant.bundle, variant.engine)
        raise BundleNotFoundError(
            "no bundle of this name is open here; see GET /v1/bundles, and :load it first"
        )

    def shadow(self, query: Query, served: Recommendation) -> None:
        """Have the shadow, if there is one, compute the same in the background, and compare.

        Answers that are drawn by chance would differ from themselves and are not compared.
        """
        if self.rollout.shadow is None or query.exploration > 0:
            return
        if self._shadows >= SHADOWS_MAX:
            self._metrics.shadow["skipped"].inc()
            return
        engine = self._open[self.rollout.shadow].engine
        self._spawn(self._compare(engine, query, served))

    async def _compare(self, engine: Engine, query: Query, served: Recommendation) -> None:
        self._shadows += 1
        try:
            found = await engine.recommend(query, deadline_seconds=SHADOW_DEADLINE_SECONDS)
        except Exception:  # noqa: BLE001 (a shadow may fail as it likes)
            self._metrics.shadow["failed"].inc()
            return
        finally:
            self._shadows -= 1
        wanted = [item.item_id for item in served.items]
        shown = [item.item_id for item in found.items]
        self._metrics.shadow["same" if wanted == shown else "different"].inc()
        if wanted:
            self._metrics.shadow_overlap.observe(len({*wanted} & {*shown}) / len({*wanted}))

    async def load(self, name: str) -> None:
        """Have the bundle open and verified on every replica, without a role.

        Raises:
            BundleNotFoundError: there is none of this name.
            BundleRefusedError: it cannot be used here.
            RolloutConflictError: another change was made at the same time.
            StateUnavailableError: the store could not be reached; nothing has changed.
        """
        wanted = self._folder.reference(name)
        await self._change(lambda rollout: rollout.with_loaded(wanted))

    async def activate(self, name: str, role: Role, percent: float) -> None:
        """Give the bundle the role, on every replica; raises as `load`."""
        wanted = self._folder.reference(name)
        await self._change(lambda rollout: rollout.with_role(wanted, role, percent))

    async def roll_back(self, name: str) -> None:
        """Take the bundle's role away; what was active before serves again. Raises as `load`."""

        def rolled_back(rollout: Rollout) -> Rollout:
            known = [each for each in rollout.references if each.name == name]
            changed = rollout.rolled_back(known[0]) if known else None
            if changed is None:
                raise RolloutConflictError(
                    "the bundle has no role, or none was active before it; see GET /v1/bundles"
                )
            return changed

        await self._change(rolled_back)

    async def _change(self, change: Callable[[Rollout], Rollout]) -> None:
        async with self._changing:
            stored = await self._store.read()
            # An emptied store knows less than this replica.
            current = stored or self.rollout.model_copy(update={"version": 0})
            rollout = change(current)
            await self._open_all(rollout)
            if not await self._store.write(rollout):
                raise RolloutConflictError(
                    "the rollout was changed at the same time; see GET /v1/bundles and try again"
                )
            self._take(rollout)

    async def _follow(self) -> None:
        while True:
            await self._store.wait_for_change(POLL_SECONDS)
            await self._look()

    async def _look(self) -> None:
        """Do what the store says now; without the store, go on as before."""
        async with self._changing:
            try:
                rollout = await self._store.read()
            except StateUnavailableError:
                return
            if rollout is None or rollout == self.rollout:
                return
            if rollout == self._failed and time.monotonic() < self._retry_at:
                return
            try:
                await self._open_all(rollout)
            except ServiceError as error:
                self._fail(rollout, error.detail)
            else:
                self._take(rollout)

    async def _open_all(self, rollout: Rollout) -> None:
        for reference in rollout.references - self._open.keys():
            self._open[reference] = await self._opened(reference)

    async def _opened(self, reference: BundleReference) -> Variant:
        folder = self._folder.path_of(reference.name)
        try:
            variant = await asyncio.to_thread(self._open_variant, reference)
        except BundleError as error:
            raise refusal(error, folder) from None
        if variant.bundle.bundle_id != reference.bundle:
            raise BundleRefusedError(
                f"{reference.name} holds another bundle here than where it was put in service"
            )
        await variant.live.join()
        variant.engine.start()
        return variant

    def _take(self, rollout: Rollout) -> None:
        """Exchange all roles at once; nothing waits in here."""
        self.rollout, self.failure, self._failed = rollout, None, None
        for reference in self._open.keys() - rollout.references:
            self._spawn(self._retire(self._open.pop(reference)))
        self._describe()
        _LOGGER.info("rollout_followed", extra={"rollout": rollout.model_dump()})

    def _fail(self, rollout: Rollout, reason: str) -> None:
        self.failure, self._failed = reason, rollout
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self._metrics.rollout_failures.inc()
        _LOGGER.error("rollout_not_followed", extra={"version": rollout.version, "reason": reason})

    async def _retire(self, variant: Variant) -> None:
        """End the workers once every request that may hold them is over."""
        variant.live.leave()
        try:
            await asyncio.sleep(self._retire_seconds)
        finally:
            await variant.engine.stop()

    def _describe(self) -> None:
        bundle = self.active.bundle
        self._metrics.describe_bundle(
            bundle.bundle_id,
            bundle.catalogue_version,
            loaded_at_seconds=time.time(),
        )
        self._metrics.describe_rollout(
            self.rollout.version,
            {
                role: each.bundle
                for role in ("active", "canary", "shadow")
                if (each := getattr(self.rollout, role)) is not None
            },
        )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

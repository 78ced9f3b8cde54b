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
from dataclasses import dataclass, replace
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
MAJORITY_PERCENT = 50.0
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
        self._describe_active()
        self._describe_roles()

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

    def expected(self, inside: int) -> tuple[Engine, int]:
        """Return the engine that most requests go to, and how many of those `inside` are its.

        For a decision before it is known whose a request is. All of them count that the other
        engine that serves is not known to have.
        """
        canary = self.rollout.canary
        if canary is None:
            return self.active.engine, inside
        usual, other = self.active.engine, self._open[canary].engine
        if self.rollout.canary_percent > MAJORITY_PERCENT:
            usual, other = other, usual
        return usual, inside - other.load

    def named(self, name: str) -> Served:
        """Return the open bundle of this name, as one that is computed and not served.

        Raises:
            BundleNotFoundError: none is open.
        """
        known = self.rollout.named(name)
        if known is None:
            raise BundleNotFoundError(
                "no bundle of this name is open here; see GET /v1/bundles, and :load it first"
            )
        variant = self._open[known]
        return Served("shadow", variant.bundle, variant.engine)

    def shadow(self, query: Query, served: Recommendation) -> None:
        """Have the shadow, if there is one, compute the same in the background, and compare.

        Answers that are drawn by chance would differ from themselves, and those that had no time
        for all levels from what the same bundle finds in its own; neither is compared.
        """
        if self.rollout.shadow is None or query.exploration > 0 or served.levels is not None:
            return
        if self._shadows >= SHADOWS_MAX:
            self._metrics.shadow["skipped"].inc()
            return
        self._shadows += 1
        engine = self._open[self.rollout.shadow].engine
        deadline = time.perf_counter() + SHADOW_DEADLINE_SECONDS
        self._spawn(self._compare(engine, replace(query, deadline=deadline), served))

    async def _compare(self, engine: Engine, query: Query, served: Recommendation) -> None:
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
            known = rollout.named(name)
            changed = None if known is None else rollout.rolled_back(known)
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
            try:
                await self._open_all(rollout)
                if not await self._store.write(rollout):
                    raise RolloutConflictError(
                        "the rollout was changed at the same time; "
                        "see GET /v1/bundles and try again"
                    )
            except BaseException:
                self._close_unused()
                raise
            self._take(rollout)

    async def _follow(self) -> None:
        while True:
            await self._store.wait_for_change(POLL_SECONDS)
            try:
                await self._look()
            except Exception:  # whatever it is, the next rollout has to be followed
                _LOGGER.exception("rollout_not_followed", extra={"version": self.rollout.version})

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
            except Exception:
                _LOGGER.exception("rollout_not_followed", extra={"version": rollout.version})
                self._fail(rollout, "a defect of the service; see its log")
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
        is_other = rollout.active != self.rollout.active
        self.rollout, self.failure, self._failed = rollout, None, None
        self._close_unused()
        if is_other:
            self._describe_active()
        self._describe_roles()
        _LOGGER.info("rollout_followed", extra={"rollout": rollout.model_dump()})

    def _close_unused(self) -> None:
        """Take out of service what has no role, or was opened for one that it did not get."""
        for reference in self._open.keys() - self.rollout.references:
            self._spawn(self._retire(self._open.pop(reference)))

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

    def _describe_active(self) -> None:
        bundle_id = self.rollout.active.bundle
        self._metrics.describe_bundle(bundle_id, loaded_at_seconds=time.time())

    def _describe_roles(self) -> None:
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

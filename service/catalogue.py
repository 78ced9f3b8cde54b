"""The live catalogue of this replica: follows the store of the edits and applies them.

Everything that takes time happens in a thread: a new state of the catalogue is built and its
recommenders are made while requests go on with the former one, and then exchanged in one
assignment. What cannot be followed is told, counted and tried again; the former state stays.
"""

import asyncio
import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from model.bundle import Bundle
from model.edits import ItemEdit, next_change
from model.errors import ModelError
from model.live_catalogue import LiveCatalogue
from model.recommender import Recommender
from service.engine import Engine, ServedRecommender
from service.errors import CatalogueUnavailableError
from service.item_edits import (
    START,
    Change,
    EditsLostError,
    EditStore,
    Parts,
    Position,
    Update,
    edit_of,
)
from service.metrics import Metrics

if TYPE_CHECKING:
    from service.serving import ServedBundle

POLL_SECONDS = 0.5
RETRY_SECONDS = 30.0
"""After how long edits are tried again that could not be applied."""
_LOGGER = logging.getLogger(__name__)


class LiveBundle:
    """A bundle in service, as its catalogue is now.

    Attributes:
        bundle: the newest state; a request takes it once.
        failure: why it lacks some of the edits, if so.
    """

    def __init__(self, bundle: "ServedBundle", engine: Engine, catalogue: "Catalogue") -> None:
        self.bundle = bundle
        self.failure: str | None = None
        self._engine = engine
        self._catalogue = catalogue
        self._states = LiveCatalogue(bundle) if isinstance(bundle, Bundle) else None

    async def join(self) -> None:
        """Apply the edits there are, and follow them from now on."""
        await self._catalogue.join(self)

    def leave(self) -> None:
        """Follow no more."""
        self._catalogue.leave(self)

    def follow(self, edits: Mapping[str, ItemEdit], version: int, now: float) -> None:
        """Build the state of these edits and have the workers compute with it.

        Raises:
            ModelError: the bundle cannot encode items.
            Exception: any other defect. In either case all but the items are applied.
        """
        if self._states is None:
            return
        try:
            self._serve(self._states.with_edits(edits, version, now))
        except Exception:
            # What is hidden or out of stock is not to be recommended, whatever else fails.
            self._serve(self._states.with_offers(edits, version, now))
            raise

    def embedding_widths(self) -> Mapping[str, int]:
        """Return the embeddings that codes are read from, with their widths.

        What gives items their codes is opened for that, if it is not open yet.

        Raises:
            ModelError: the bundle has none that can be used here.
        """
        return {} if self._states is None else self._states.open_encoder().embedding_widths()

    def _serve(self, state: Bundle) -> None:
        """Exchange the former state for this one."""

        def over_state(recommender: ServedRecommender) -> ServedRecommender:
            return recommender.over(state) if isinstance(recommender, Recommender) else recommender

        self._engine.exchange(over_state)
        self.bundle = state


class Catalogue:
    """The edits that this replica knows, and the bundles that it applies them to."""

    def __init__(self, store: EditStore, metrics: Metrics) -> None:
        """Know nothing yet."""
        self._store = store
        self._metrics = metrics
        self._position = START
        self._parts: dict[str, Parts] = {}
        self._edits: dict[str, ItemEdit] = {}
        self._bundles: set[LiveBundle] = set()
        self._changing = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None
        self._due = math.inf
        self._applied = 0

    @property
    def version(self) -> int:
        """Of the edits that this replica knows; 0 is the catalogue as exported."""
        return self._position.version

    @property
    def edited_items(self) -> int:
        """How many items have edits."""
        return len(self._edits)

    async def start(self) -> None:
        """Learn what edits there are, and hear of changes from now on."""
        await self._store.start()
        await self._look()
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """End it."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        await self._store.close()

    async def join(self, bundle: LiveBundle) -> None:
        """Apply the edits to one more bundle, now and from now on."""
        async with self._changing:
            self._bundles.add(bundle)
            due = self._due
            await self._apply([bundle])
            self._due = min(due, self._due)  # that of the others stays

    def leave(self, bundle: LiveBundle) -> None:
        """Apply edits to the bundle no more."""
        self._bundles.discard(bundle)

    async def write(self, changes: Sequence[Change]) -> int:
        """Store the changes and apply them here; return the version that has them.

        Raises:
            CatalogueFullError: there would be more edits than are kept.
            CatalogueUnavailableError: the store cannot be reached. They may be stored all the same.
        """
        position = await self._stored(changes)
        await self._look(position)
        return position.version

    async def _stored(self, changes: Sequence[Change]) -> Position:
        try:
            return await self._store.write(changes, self._position)
        except EditsLostError:
            await self._look()  # which gives back what the store has lost
        try:
            return await self._store.write(changes, self._position)
        except EditsLostError:
            raise CatalogueUnavailableError("error") from None

    async def knows(self, item_id: str) -> bool:
        """Whether there are edits of the item; of one put elsewhere just now, too."""
        if item_id not in self._edits:
            await self._look()
        return item_id in self._edits

    async def _follow(self) -> None:
        while True:
            seconds = min(POLL_SECONDS, max(0.0, self._due - time.time()))
            await self._store.wait_for_change(seconds)
            try:
                await self._look()
            except Exception:  # whatever it is, the next edit has to be followed
                _LOGGER.exception("catalogue_not_followed", extra={"version": self.version})

    async def _look(self, wanted: Position | None = None) -> None:
        """Apply what is new, in the store or by the clock; `wanted` may have been in the meantime.

        Without the store, go on as before.
        """
        async with self._changing:
            if wanted is not None and self._position.includes(wanted):
                return
            is_new = await self._learn()
            if is_new or time.time() >= self._due:
                await self._apply(self._bundles)

    async def _learn(self) -> bool:
        """Read what has changed in the store; whether anything has."""
        try:
            update = await self._read()
        except CatalogueUnavailableError:
            return False
        if update is None or update.position == self._position:
            return False
        known = {} if update.is_whole else self._edits
        self._edits = await asyncio.to_thread(_with_read, known, update.parts)
        self._parts = ({} if update.is_whole else self._parts) | dict(update.parts)
        self._position = update.position
        return True

    async def _read(self) -> Update | None:
        """What is new in the store, which is given back first what it has lost."""
        try:
            return await self._store.read(self._position)
        except EditsLostError:
            _LOGGER.warning("catalogue_given_back", extra={"version": self.version})
            await self._store.restore(self._position, self._parts)
        try:
            return await self._store.read(self._position)
        except EditsLostError:  # lost again, and given back at the next look
            return None

    async def _apply(self, bundles: Collection[LiveBundle]) -> None:
        """Bring `bundles` to the newest state; what fails is tried again later."""
        started, now = time.perf_counter(), time.time()
        for bundle in list(bundles):
            bundle.failure = await self._follow_with(bundle, now)
        self._due = next_change(self._edits.values(), now) or math.inf
        if any(bundle.failure for bundle in self._bundles):
            self._due = min(self._due, now + RETRY_SECONDS)
        else:
            self._applied = self.version
        self._metrics.describe_catalogue(self._applied, len(self._edits))
        self._metrics.catalogue_apply.observe(time.perf_counter() - started)

    async def _follow_with(self, bundle: LiveBundle, now: float) -> str | None:
        """Bring the bundle to the newest state; return why it could not be, None where it is."""
        try:
            await asyncio.to_thread(bundle.follow, self._edits, self.version, now)
        except ModelError as error:
            reason = str(error)
        except Exception:
            _LOGGER.exception("catalogue_not_followed", extra={"version": self.version})
            reason = "a defect of the service; see its log"
        else:
            return None
        self._metrics.catalogue_failures.inc()
        _LOGGER.error("catalogue_not_applied", extra={"version": self.version, "reason": reason})
        return reason


def _with_read(known: Mapping[str, ItemEdit], parts: Mapping[str, Parts]) -> dict[str, ItemEdit]:
    """What is known and, instead or besides, what the parts say."""
    return {**known, **{name: edit_of(name, each) for name, each in parts.items()}}

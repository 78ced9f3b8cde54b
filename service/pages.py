"""The pages of a recommendation: what earlier ones held is read, what this one holds is kept.

Nobody waits long for what only a next page needs: where the store is slow, but works, the answer
goes out first and the list is kept meanwhile. Whoever asks for the next page before that is done,
or after it failed, gets one that says `degraded.paging`.
"""

import asyncio
import logging
from collections.abc import Sequence

from service.errors import StateUnavailableError
from service.served_lists import LIST_MAX_ITEMS
from service.user_state import UserStateStore

_LOGGER = logging.getLogger(__name__)

WAIT_SECONDS = 0.001
"""For a list to be kept before the answer goes out: several times what a Redis nearby takes."""


class Pages:
    """Reads and keeps the lists of one store."""

    def __init__(self, store: UserStateStore, *, deadline_seconds: float) -> None:
        """Use the store.

        Args:
            store: of the user state, where lists are kept, too.
            deadline_seconds: for keeping a list, whether or not somebody waits for it.
        """
        self._store = store
        self._deadline_seconds = deadline_seconds
        self._keeping: set[asyncio.Task[None]] = set()

    async def before(
        self, user_id: str | None, recommendation_id: str, *, deadline_seconds: float
    ) -> tuple[str, ...] | None:
        """Return the items of a page and of those before it, None where they are not known."""
        try:
            return await self._store.read_list(
                user_id, recommendation_id, deadline_seconds=deadline_seconds
            )
        except StateUnavailableError:
            return None

    async def keep(self, user_id: str | None, recommendation_id: str, items: Sequence[str]) -> None:
        """Begin to keep the newest of the items, and wait for `WAIT_SECONDS` at most."""
        keeping = asyncio.create_task(self._keep(user_id, recommendation_id, items))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        await asyncio.wait({keeping}, timeout=WAIT_SECONDS)

    async def settle(self) -> None:
        """Wait until every list that was begun is kept, or could not be."""
        if self._keeping:
            await asyncio.wait(self._keeping)

    async def _keep(
        self, user_id: str | None, recommendation_id: str, items: Sequence[str]
    ) -> None:
        try:
            await self._store.keep_list(
                user_id,
                recommendation_id,
                items[-LIST_MAX_ITEMS:],
                deadline_seconds=self._deadline_seconds,
            )
        except StateUnavailableError:
            return  # counted and logged by the store
        except Exception:  # nobody waits for this task, so nobody else would say so
            _LOGGER.exception("list_not_kept")

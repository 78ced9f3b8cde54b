"""Hearing of what is published in Redis when something has changed that all replicas share."""

import asyncio
import contextlib

from service.redis_connection import RedisConnection


class RedisChanges:
    """A store in Redis whose readers hear at once of changes that its scripts publish."""

    def __init__(
        self, connection: RedisConnection, channel: str, *, deadline_seconds: float
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._deadline_seconds = deadline_seconds
        self._changed = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to hear of changes."""
        listening = self._connection.listen(self._channel, self._changed.set)
        self._listening = asyncio.create_task(listening)

    async def close(self) -> None:
        """End it."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening}, timeout=self._deadline_seconds + 1)

    async def wait_for_change(self, timeout_seconds: float) -> None:
        """Wait until something may have changed, or until the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._changed.wait()
        self._changed.clear()

"""The event log as two Redis streams beside the user state, until `service/drain_log.py` moves it.

    cofine:log:event:1         stream of events and erasures
    cofine:log:impression:1    stream of impressions

An entry has one field, `r`: the record as a line of `model/event_log.py`, without its line break.
Impressions have a stream of their own, because there are many more of them: each stream keeps about
as many records as it may, and impressions push out no event.

What it promises:

- An event or an erasure that `append` returned for is in Redis, and as durable there as Redis is.
- While Redis is away `append` raises, and impressions are dropped and counted.
- What a stream pushes out before it was drained is lost, and counted by who pushed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model.event_log import UserSearch, user_digest
from service.errors import EventLogUnavailableError, StateUnavailableError
from service.event_log import CLOSE_SECONDS, WAITING_MAX, Kind, encoded
from service.metrics import Metrics
from service.redis_connection import RedisConnection, Script

BATCH_MAX: Final = 500
_IMPRESSION_SECONDS: Final = 5.0
_EVENTS, _IMPRESSIONS = "event", "impression"
STREAMS: Final = (_EVENTS, _IMPRESSIONS)

_APPEND = Script("""
local before = redis.call('XLEN', KEYS[1])
for i = 2, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'r', ARGV[i])
end
local after = redis.call('XLEN', KEYS[1])
return {after, before + #ARGV - 1 - after}
""")
_READ = Script("return redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])")
_REMOVE = Script("return redis.call('XDEL', KEYS[1], unpack(ARGV))")


@dataclass(frozen=True)
class Batch:
    """Records as they lie in a stream, oldest first.

    Attributes:
        stream: one of `STREAMS`.
        ids: of the entries.
        lines: the records, each with its line break.
    """

    stream: str
    ids: Sequence[str]
    lines: Sequence[bytes]


class RedisEventLog:
    """The log of all replicas that share a Redis; means what `FolderEventLog` means."""

    def __init__(self, connection: RedisConnection, metrics: Metrics, *, max_entries: int) -> None:
        """Log by the connection, at most about `max_entries` records in each stream."""
        self._connection = connection
        self._metrics = metrics
        self._max_entries = max_entries
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING_MAX)
        self._writing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._writing = asyncio.create_task(self._write_impressions())

    async def close(self) -> None:
        """Write what waits and end; a Redis that hangs is not waited for."""
        if self._writing is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._waiting.put(None)
                await asyncio.wait({self._writing})
        self._writing.cancel()

    async def append(
        self, kind: Kind, records: Sequence[Mapping[str, Any]], *, deadline_seconds: float
    ) -> None:
        """Write the records, all or none; they are in Redis when this returns.

        Raises:
            EventLogUnavailableError: they are not known to be there; they may be all the same, and
                writing them again is safe.
        """
        lines = [encoded(kind, record) for record in records]
        try:
            await self._add(_EVENTS, lines, deadline_seconds)
        except StateUnavailableError:
            self._metrics.log_records[kind, "failed"].inc(len(lines))
            raise EventLogUnavailableError from None
        self._metrics.log_records[kind, "written"].inc(len(lines))

    async def erase(self, user_id: str, *, deadline_seconds: float) -> None:
        """Have everything logged so far of the user left out and, when drained, removed.

        Raises:
            EventLogUnavailableError: the erasure is not known to be in Redis; repeat it.
        """
        record = {"user": user_digest(user_id)}
        await self.append("erasure", [record], deadline_seconds=deadline_seconds)

    def offer_impression(self, record: Mapping[str, Any]) -> None:
        """Have an impression written when there is time, or dropped when there is not."""
        try:
            self._waiting.put_nowait(encoded("impression", record))
        except asyncio.QueueFull:
            self._metrics.log_records["impression", "dropped"].inc()

    async def records_of(self, user_id: str, *, deadline_seconds: float) -> AsyncIterator[bytes]:
        """Return what the streams hold of the user: JSON Lines, whole lines at a time.

        Raises:
            EventLogUnavailableError: Redis does not answer; also while the lines are read.
        """
        search = UserSearch(user_id)
        erased_ms = -1
        try:
            async for batch in self.batches(_EVENTS, deadline_seconds=deadline_seconds):
                erased_ms = max(erased_ms, *(search.erased_ms(line) for line in batch.lines))
        except StateUnavailableError:
            raise EventLogUnavailableError from None
        return self._records_of(search, erased_ms, deadline_seconds)

    async def _records_of(
        self, search: UserSearch, erased_ms: int, deadline_seconds: float
    ) -> AsyncIterator[bytes]:
        for stream in STREAMS:
            async for batch in self.batches(stream, deadline_seconds=deadline_seconds):
                for line in batch.lines:
                    if search.finds(line, erased_ms):
                        yield line

    async def batches(self, stream: str, *, deadline_seconds: float) -> AsyncIterator[Batch]:
        """Return what the stream holds, oldest first.

        Raises:
            StateUnavailableError: Redis did not answer one of the reads within the deadline.
        """
        start = "-"
        while True:
            entries = await self._connection.run(
                _READ, [_key(stream)], [start, BATCH_MAX], deadline_seconds=deadline_seconds
            )
            if not entries:
                return
            ids = [entry_id.decode() for entry_id, _ in entries]
            yield Batch(stream, ids, [fields[1] + b"\n" for _, fields in entries])
            start = f"({ids[-1]}"

    async def remove(self, batch: Batch, *, deadline_seconds: float) -> None:
        """Take a batch that is kept elsewhere out of its stream.

        Raises:
            StateUnavailableError: it is not known to be out; repeat it.
        """
        await self._connection.run(
            _REMOVE, [_key(batch.stream)], batch.ids, deadline_seconds=deadline_seconds
        )

    async def _write_impressions(self) -> None:
        goes_on = True
        while goes_on:
            lines = []
            line = await self._waiting.get()
            while line is not None:
                lines.append(line)
                if len(lines) == BATCH_MAX or self._waiting.empty():
                    break
                line = self._waiting.get_nowait()
            goes_on = line is not None
            if lines:
                await self._write_batch(lines)

    async def _write_batch(self, lines: Sequence[bytes]) -> None:
        outcome = "written"
        try:
            await self._add(_IMPRESSIONS, lines, _IMPRESSION_SECONDS)
        except StateUnavailableError:
            outcome = "dropped"
        self._metrics.log_records["impression", outcome].inc(len(lines))

    async def _add(self, stream: str, lines: Sequence[bytes], deadline_seconds: float) -> None:
        texts = [line.decode().rstrip("\n") for line in lines]
        length, pushed_out = await self._connection.run(
            _APPEND, [_key(stream)], [self._max_entries, *texts], deadline_seconds=deadline_seconds
        )
        self._metrics.log_fill[stream].set(length / self._max_entries)
        self._metrics.log_pushed_out[stream].inc(pushed_out)


def _key(stream: str) -> str:
    return f"cofine:log:{stream}:1"

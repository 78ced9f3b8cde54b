"""The event log in a folder, written from a thread of its own.

What it promises:

- An event or an erasure that `append` returned for is on the disk: its line was written whole and
  synchronised (fsync) before. Many requests share one synchronisation.
- When the line cannot be written, because the disk is full, say, `append` raises, and what was
  written of it is cut off again. The next record is tried in a new segment.
- An impression is never waited for: it is written in the same order, but not synchronised, and
  dropped and counted when too much waits or the disk fails.

A segment ends at 64 MiB, after an hour, and after an erasure, so that it can be compacted.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.concurrency import iterate_in_threadpool

from model.errors import DataError
from model.event_log import erased_until, records_of, user_digest
from service.errors import EventLogUnavailableError
from service.event_log import CLOSE_SECONDS, WAITING_MAX, Kind, encoded
from service.log_segment import SEGMENT_MAX_BYTES, Segment
from service.metrics import Metrics

SEGMENT_SECONDS = 3_600.0
_BATCH_MAX = 1_000
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    """Some records of one kind, and whom to tell that they are on the disk."""

    kind: Kind
    lines: bytes
    records: int
    written: "asyncio.Future[None] | None" = None


class FolderEventLog:
    """The log of one process; `append` and the others are for its event loop only."""

    def __init__(
        self,
        folder: Path,
        metrics: Metrics,
        *,
        segment_max_bytes: int = SEGMENT_MAX_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
    ) -> None:
        self._folder = folder
        self._metrics = metrics
        self._segment_max_bytes = segment_max_bytes
        self._segment_seconds = segment_seconds
        self._waiting: queue.Queue[_Entry | None] = queue.Queue(WAITING_MAX)
        self._segment: Segment | None = None
        self._is_failing = False
        self._thread = threading.Thread(target=self._work, name="event-log", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def close(self) -> None:
        """Write what waits and end; a disk that hangs is not waited for."""
        with contextlib.suppress(queue.Full):
            await asyncio.to_thread(self._waiting.put, None, timeout=CLOSE_SECONDS)
            await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)

    async def append(
        self, kind: Kind, records: Sequence[Mapping[str, Any]], *, deadline_seconds: float
    ) -> None:
        """Write the records, all or none; they are on the disk when this returns.

        Raises:
            EventLogUnavailableError: they are not known to be there; they may be all the same, and
                writing them again is safe.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            lines = b"".join(encoded(kind, record) for record in records)
            self._waiting.put_nowait(_Entry(kind, lines, len(records), written))
            async with asyncio.timeout(deadline_seconds):
                await written
        except queue.Full:
            self._metrics.log_records[kind, "failed"].inc(len(records))
            raise EventLogUnavailableError from None
        except TimeoutError:
            raise EventLogUnavailableError from None

    async def erase(self, user_id: str, *, deadline_seconds: float) -> None:
        """Have everything logged so far of the user left out and, by compaction, removed.

        Raises:
            EventLogUnavailableError: the erasure is not known to be on the disk; repeat it.
        """
        record = {"user": user_digest(user_id)}
        await self.append("erasure", [record], deadline_seconds=deadline_seconds)

    def offer_impression(self, record: Mapping[str, Any]) -> None:
        """Have an impression written when there is time, or dropped when there is not."""
        try:
            self._waiting.put_nowait(_Entry("impression", encoded("impression", record), 1))
        except queue.Full:
            self._metrics.log_records["impression", "dropped"].inc()

    async def records_of(self, user_id: str, *, deadline_seconds: float) -> AsyncIterator[bytes]:
        """Return what the folder holds of the user: JSON Lines, whole lines at a time.

        Whatever service has logged it, and what waited here when this was called. Files are read
        in threads, a piece at a time.

        Raises:
            EventLogUnavailableError: what waits could not be written in time, or the folder could
                not be read.
            OSError: a file could not be read, while the lines are read.
        """
        await self.append("impression", [], deadline_seconds=deadline_seconds)
        try:
            erased_ms = await asyncio.to_thread(erased_until, self._folder, user_id)
        except (OSError, DataError):
            raise EventLogUnavailableError from None
        return iterate_in_threadpool(records_of(self._folder, user_id, erased_ms))

    def _work(self) -> None:
        """Write batch after batch, in the log's own thread, until told to stop."""
        goes_on = True
        while goes_on:
            batch, goes_on = self._next_batch()
            if batch:
                self._write(batch)
            if not goes_on or self._is_segment_over(batch):
                self._end_segment()

    def _next_batch(self) -> tuple[list[_Entry], bool]:
        """Return what waits, and whether to go on; nothing when a segment's time is over."""
        batch: list[_Entry] = []
        try:
            entry = self._waiting.get(timeout=self._segment_seconds if self._segment else None)
            while entry is not None:
                batch.append(entry)
                if len(batch) == _BATCH_MAX:
                    return batch, True
                entry = self._waiting.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False

    def _write(self, batch: Sequence[_Entry]) -> None:
        is_awaited = any(entry.written is not None for entry in batch)
        lines = b"".join(entry.lines for entry in batch)
        try:
            if lines:  # else somebody waits for what came before
                self._segment = self._segment or Segment(self._folder)
                self._segment.write(lines, durably=is_awaited)
        except OSError as error:
            self._end_segment()
            self._tell(batch, error)
        else:
            if self._is_segment_over(batch):  # before anybody is told that an erasure is there
                self._end_segment()
            self._tell(batch, None)

    def _is_segment_over(self, batch: Sequence[_Entry]) -> bool:
        segment = self._segment
        return segment is not None and (
            segment.bytes >= self._segment_max_bytes
            or time.monotonic() - segment.opened >= self._segment_seconds
            or any(entry.kind == "erasure" for entry in batch)
        )

    def _end_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _tell(self, batch: Sequence[_Entry], error: OSError | None) -> None:
        """Count the batch, wake up who waits for it, and log when the disk fails or recovers."""
        has_tried = any(entry.lines for entry in batch)
        if has_tried and (error is not None) != self._is_failing:
            self._is_failing = error is not None
            if error is None:
                _LOGGER.info("event_log_recovered")
            else:
                _LOGGER.error("event_log_failed", extra={"reason": error.strerror})
        for entry in batch:
            lost = "dropped" if entry.written is None else "failed"
            outcome = "written" if error is None else lost
            self._metrics.log_records[entry.kind, outcome].inc(entry.records)
            if entry.written is not None:
                with contextlib.suppress(RuntimeError):  # the loop is gone, and with it who waited
                    entry.written.get_loop().call_soon_threadsafe(_wake, entry.written, error)


def _wake(written: "asyncio.Future[None]", error: OSError | None) -> None:
    if written.done():  # nobody waits any more
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(EventLogUnavailableError())

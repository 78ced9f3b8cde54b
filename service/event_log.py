"""Writes the event log (`model/event_log.py` defines it) from a thread of its own.

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
import fcntl
import json
import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from model.event_log import SEGMENT_SUFFIX, user_digest
from service.errors import EventLogUnavailableError
from service.metrics import Metrics

Kind: TypeAlias = Literal["event", "impression", "erasure"]

SEGMENT_MAX_BYTES = 64 * 1024 * 1024
SEGMENT_SECONDS = 3_600.0
WAITING_MAX = 10_000
"""Entries that wait to be written; beyond them events are refused and impressions dropped."""
_BATCH_MAX = 1_000
_CLOSE_SECONDS = 5.0
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    """Some records of one kind, and whom to tell that they are on the disk."""

    kind: Kind
    lines: bytes
    records: int
    written: "asyncio.Future[None] | None" = None


class _Segment:
    """One file of the log, locked while it is open."""

    def __init__(self, folder: Path) -> None:
        # To the microsecond: names sort as segments began, also those of one second.
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}{SEGMENT_SUFFIX}"
        self.path = folder / name
        self.bytes = 0
        self.opened = time.monotonic()
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o640)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def write(self, lines: bytes, *, durably: bool) -> None:
        """Append the lines, all or none.

        Raises:
            OSError: they are not there; the segment must be closed.
        """
        try:
            left = memoryview(lines)
            while left:
                left = left[os.write(self._file, left) :]
            if durably:
                os.fsync(self._file)
        except OSError:
            # What a failed fsync has left behind is unknown: nobody was told that it is there.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.bytes)
            raise
        self.bytes += len(lines)

    def close(self) -> None:
        """Give the segment free, and remove it if it holds nothing."""
        if not self.bytes:
            with contextlib.suppress(OSError):
                self.path.unlink()
        with contextlib.suppress(OSError):
            os.close(self._file)


class EventLog:
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
        self._segment: _Segment | None = None
        self._is_failing = False
        self._thread = threading.Thread(target=self._work, name="event-log", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def close(self) -> None:
        """Write what waits and end; a disk that hangs is not waited for."""
        with contextlib.suppress(queue.Full):
            await asyncio.to_thread(self._waiting.put, None, timeout=_CLOSE_SECONDS)
            await asyncio.to_thread(self._thread.join, _CLOSE_SECONDS)

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
            self._waiting.put_nowait(_Entry(kind, _lines(kind, records), len(records), written))
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
            self._waiting.put_nowait(_Entry("impression", _lines("impression", [record]), 1))
        except queue.Full:
            self._metrics.log_records["impression", "dropped"].inc()

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
        try:
            if self._segment is None:
                self._segment = _Segment(self._folder)
            self._segment.write(b"".join(entry.lines for entry in batch), durably=is_awaited)
        except OSError as error:
            self._end_segment()
            self._tell(batch, error)
        else:
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
        if (error is not None) != self._is_failing:
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


def _lines(kind: Kind, records: Sequence[Mapping[str, Any]]) -> bytes:
    logged_ms = time.time_ns() // 1_000_000
    return b"".join(
        json.dumps({"kind": kind, "logged_ms": logged_ms, **record}, ensure_ascii=False).encode()
        + b"\n"
        for record in records
    )

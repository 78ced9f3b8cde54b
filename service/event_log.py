"""The event log as the service writes it, in a folder or in Redis; `model/event_log.py` defines it.

Both logs (`service/folder_event_log.py`, `service/redis_event_log.py`) mean the same; one suite of
tests holds them to it.
"""

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

Kind: TypeAlias = Literal["event", "impression", "erasure"]

WAITING_MAX: Final = 10_000
"""Records that wait to be written; beyond them events are refused and impressions dropped."""
CLOSE_SECONDS: Final = 5.0
"""How long the end of a log waits for what is still to be written."""


class EventLog(Protocol):
    """Takes note of what must not be forgotten before the next training."""

    def start(self) -> None:
        """Begin."""
        ...

    async def close(self) -> None:
        """Write what waits and end."""
        ...

    async def append(
        self, kind: Kind, records: Sequence[Mapping[str, Any]], *, deadline_seconds: float
    ) -> None:
        """Write the records, all or none; they are in the log when this returns.

        Raises:
            EventLogUnavailableError: they are not known to be there; they may be all the same, and
                writing them again is safe.
        """
        ...

    async def erase(self, user_id: str, *, deadline_seconds: float) -> None:
        """Have nothing count any more that was logged of the user so far.

        Raises:
            EventLogUnavailableError: the erasure is not known to be in the log; repeat it.
        """
        ...

    def offer_impression(self, record: Mapping[str, Any]) -> None:
        """Have an impression written when there is time, or dropped when there is not."""
        ...

    async def records_of(self, user_id: str, *, deadline_seconds: float) -> AsyncIterator[bytes]:
        """Return what the log holds of the user: JSON Lines, whole lines at a time.

        Raises:
            EventLogUnavailableError: the log cannot be read; also while the lines are read.
        """
        ...


def encoded(kind: Kind, record: Mapping[str, Any]) -> bytes:
    """Return the record as a line of the log."""
    stamped = {"kind": kind, "logged_ms": time.time_ns() // 1_000_000, **record}
    return json.dumps(stamped, ensure_ascii=False).encode() + b"\n"

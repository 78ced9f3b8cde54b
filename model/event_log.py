"""The event log: what a service wrote down of events and answers, for the next training.

A folder of segments, `<UTC time>-<random>.jsonl`, one JSON object per line. Several services may
write into one folder, each into segments of its own, which it holds locked (flock) while it does.
Every record has `kind` and `logged_ms` (milliseconds of Unix time):

    event       event_id, user_id, item_id, timestamp (seconds), type; with a recommendation also
                recommendation_id, and, where it was attributed, recommended_ms, bundle, variant,
                rank and source
    impression  recommendation_id, user_id (null for nobody in particular), bundle, variant, and
                items, each with item_id, rank, source, score (not where it was only named in a
                choice) and, where it was drawn by chance, propensity; also context, where the
                caller gave one
    erasure     user: the digest of a user id; nothing logged before counts for this user

An event may stand there several times, since a client that was not answered sends it again: one
user's event id is one event. The end of a segment behind its last line break was never confirmed
to anybody and is no record.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import DataError

SEGMENT_SUFFIX = ".jsonl"
_PARTIAL_SUFFIX = ".partial"


@dataclass(frozen=True)
class Compaction:
    """What `compact` did.

    Attributes:
        segments: how many there are.
        in_use: of them, those that a service writes and that were left as they are.
        removed: records of erased users that are gone.
    """

    segments: int
    in_use: int
    removed: int


def user_digest(user_id: str) -> str:
    """Return what an erasure calls a user, without naming the user."""
    return hashlib.sha256(user_id.encode()).hexdigest()


def segments(folder: Path) -> list[Path]:
    """Return the log's segments, oldest first.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; give the event log of a service")
    return sorted(folder.glob(f"*{SEGMENT_SUFFIX}"))


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """Return the events of the log that no erasure covers, in the order of their segments.

    Raises:
        DataError: there is no such folder, or a line is no record.
    """
    erased = _erasures(folder)
    for segment in segments(folder):
        for record in _records(segment):
            if record["kind"] == "event" and not _is_erased(record, erased):
                yield record


def compact(folder: Path) -> Compaction:
    """Remove the records of erased users from every segment that no service is writing.

    Where that was every segment the erasures themselves are removed as well. A segment is replaced
    as a whole, so that stopping at any moment loses nothing.

    Raises:
        DataError: there is no such folder, or a line is no record.
        OSError: a segment cannot be written.
    """
    erased = _erasures(folder)
    found = segments(folder)
    in_use = removed = 0
    for segment in found if erased else ():
        with _claimed(segment) as is_ours:
            if is_ours:
                removed += _rewrite(segment, erased, drop_erasures=False)
            else:
                in_use += 1
    if erased and not in_use:
        for segment in found:
            with _claimed(segment) as is_ours:
                if is_ours:
                    _rewrite(segment, erased, drop_erasures=True)
    return Compaction(len(found), in_use, removed)


def _erasures(folder: Path) -> dict[str, int]:
    """Return user digest -> when the user was erased last."""
    erased: dict[str, int] = {}
    for segment in segments(folder):
        for record in _records(segment):
            if record["kind"] == "erasure":
                user = record["user"]
                erased[user] = max(erased.get(user, 0), record["logged_ms"])
    return erased


def _is_erased(record: Mapping[str, Any], erased: Mapping[str, int]) -> bool:
    user_id = record.get("user_id")
    if user_id is None or not erased:
        return False
    return bool(record["logged_ms"] <= erased.get(user_digest(user_id), -1))


def _records(segment: Path) -> Iterator[dict[str, Any]]:
    with segment.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.endswith(b"\n"):  # else never confirmed
                yield _record(segment, number, line)


def _record(segment: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
        _ = record["kind"], record["logged_ms"] + 0
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"{segment}: row {number} is no record of an event log; "
            "restore the file, or remove the row"
        ) from None
    found: dict[str, Any] = record
    return found


def _rewrite(segment: Path, erased: Mapping[str, int], *, drop_erasures: bool) -> int:
    """Write the segment anew without erased records; return how many those were."""
    kept: list[bytes] = []
    removed = 0
    has_changed = False
    with segment.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                has_changed = True
                continue
            record = _record(segment, number, line)
            is_dropped = drop_erasures and _is_spent(record, erased)
            if _is_erased(record, erased):
                removed += 1
                is_dropped = True
            has_changed |= is_dropped
            if not is_dropped:
                kept.append(line)
    if has_changed:
        _replace(segment, b"".join(kept))
    return removed


def _is_spent(record: Mapping[str, Any], erased: Mapping[str, int]) -> bool:
    """Whether this is an erasure that has been carried out; one that came since has not."""
    if record["kind"] != "erasure":
        return False
    return bool(record["logged_ms"] <= erased.get(record["user"], -1))


def _replace(segment: Path, content: bytes) -> None:
    """Put `content` in the segment's place; an empty segment is removed."""
    if not content:
        segment.unlink()
        return
    partial = segment.with_name(segment.name + _PARTIAL_SUFFIX)
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(segment)


@contextlib.contextmanager
def _claimed(segment: Path) -> Iterator[bool]:
    """Hold the segment's lock inside; False when a service, or another compaction, holds it."""
    try:
        with segment.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
    except FileNotFoundError:  # another compaction removed it
        yield False

"""The event log: what a service wrote down of events and answers, for the next training.

A folder of segments, `<UTC time>-<random>.jsonl`, one JSON object per line, in UTF-8 and with no
more escapes than JSON needs, so that a user id is found by its bytes. Several services may write
into one folder, each into segments of its own, which it holds locked (flock) while it does. Every
record has `kind` and `logged_ms` (milliseconds of Unix time):

    event       event_id, user_id, item_id, timestamp (seconds), type; with a recommendation also
                recommendation_id, and, where it was attributed, recommended_ms, bundle, variant,
                rank and source
    impression  recommendation_id, user_id (null for nobody in particular), bundle, variant, and
                items, each with item_id, rank, source, score (not where it was only named in a
                choice) and, where it was drawn by chance, propensity; also the scenario that the
                request named and its context, where it gave them
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
_BLOCK_BYTES = 1024 * 1024


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


class UserSearch:
    """Finds a user in lines of the log; only lines that name the user are parsed."""

    def __init__(self, user_id: str) -> None:
        self._user_id = user_id
        self._digest = user_digest(user_id)
        # As `json.dumps` spells them inside a line.
        self.name = json.dumps(user_id, ensure_ascii=False).encode()
        self.digest = json.dumps(self._digest).encode()

    def erased_ms(self, line: bytes) -> int:
        """Return when the line erases the user, in milliseconds of Unix time; -1 if it does not."""
        if self.digest not in line:
            return -1
        record = json.loads(line)
        is_erasure = record["kind"] == "erasure" and record["user"] == self._digest
        return int(record["logged_ms"]) if is_erasure else -1

    def finds(self, line: bytes, erased_ms: int) -> bool:
        """Whether the line is a record of the user that was logged after `erased_ms`."""
        if self.name not in line:
            return False
        record = json.loads(line)
        return bool(record.get("user_id") == self._user_id and record["logged_ms"] > erased_ms)


def erased_until(folder: Path, user_id: str) -> int:
    """Return when the log erased the user last, in milliseconds of Unix time; -1 for never.

    Raises:
        DataError: there is no such folder.
        OSError: a segment cannot be read.
    """
    search = UserSearch(user_id)
    lines = (line for block in _blocks(folder) for line in _lines_with(search.digest, block))
    return max((search.erased_ms(line) for line in lines), default=-1)


def records_of(folder: Path, user_id: str, erased_ms: int) -> Iterator[bytes]:
    """Return every line of the log about the user since `erased_ms`, events and impressions.

    One piece of whole lines, perhaps none, for every `_BLOCK_BYTES` read, so that who reads in a
    thread can stop in between.

    Raises:
        DataError: there is no such folder.
        OSError: a segment cannot be read.
    """
    search = UserSearch(user_id)
    for block in _blocks(folder):
        lines = _lines_with(search.name, block)
        yield b"".join(line for line in lines if search.finds(line, erased_ms))


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


def _blocks(folder: Path) -> Iterator[bytes]:
    """Return the log in pieces of whole lines; a line that was never finished is left out."""
    for segment in segments(folder):
        try:
            with segment.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    block += file.readline()
                    whole = block[: block.rfind(b"\n") + 1]
                    yield whole
                    if len(whole) < len(block):  # somebody is writing the rest
                        break
        except FileNotFoundError:  # a compaction removed it, since it held nothing but the erased
            continue


def _lines_with(text: bytes, block: bytes) -> Iterator[bytes]:
    """Return the lines of the block that hold `text`; a block without it is not taken apart."""
    if text in block:
        yield from (line for line in block.splitlines(keepends=True) if text in line)


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
    try:
        lines = segment.open("rb")
    except FileNotFoundError:  # removed since it was listed, as nothing in it counts any more
        return
    with lines:
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

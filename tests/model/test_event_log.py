import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from model import event_log
from model.errors import DataError
from model.event_log import (
    Compaction,
    compact,
    erased_until,
    events,
    records_of,
    segments,
    user_digest,
)


def event(user_id: str, event_id: str, logged_ms: int) -> dict[str, Any]:
    return {"kind": "event", "logged_ms": logged_ms, "user_id": user_id, "event_id": event_id}


def erasure(user_id: str, logged_ms: int) -> dict[str, Any]:
    return {"kind": "erasure", "logged_ms": logged_ms, "user": user_digest(user_id)}


def impression(user_id: str | None, logged_ms: int) -> dict[str, Any]:
    return {"kind": "impression", "logged_ms": logged_ms, "user_id": user_id, "items": []}


def write(folder: Path, name: str, *records: dict[str, Any], torn: str = "") -> Path:
    segment = folder / f"{name}.jsonl"
    lines = [json.dumps(each, ensure_ascii=False) + "\n" for each in records]
    segment.write_text("".join(lines) + torn, "utf-8")
    return segment


def event_ids(folder: Path) -> list[str]:
    return [each["event_id"] for each in events(folder)]


def everything(folder: Path) -> str:
    return "".join(path.read_text("utf-8") for path in folder.iterdir())


def test_events_come_segment_by_segment_without_impressions(tmp_path: Path) -> None:
    write(tmp_path, "2", event("ann", "c", 3))
    write(tmp_path, "1", event("ann", "a", 1), impression("ann", 1), event("bob", "b", 2))
    assert event_ids(tmp_path) == ["a", "b", "c"]


def test_what_was_logged_before_an_erasure_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, "1", event("ann", "a", 1), event("bob", "b", 2), erasure("ann", 3))
    write(tmp_path, "2", event("ann", "c", 3), event("ann", "d", 4))
    assert event_ids(tmp_path) == ["b", "d"]


def test_compaction_removes_the_erased_and_then_the_erasure(tmp_path: Path) -> None:
    write(tmp_path, "1", event("ann", "a", 1), impression("ann", 1), impression(None, 1))
    write(tmp_path, "2", erasure("ann", 3), event("ann", "back", 4), event("bob", "b", 5))
    write(tmp_path, "3", event("ann", "late", 2))
    assert compact(tmp_path) == Compaction(segments=3, in_use=0, removed=3)
    assert event_ids(tmp_path) == ["back", "b"]
    assert user_digest("ann") not in everything(tmp_path)
    assert [path.stem for path in segments(tmp_path)] == ["1", "2"]  # the third held nothing else
    before = everything(tmp_path)
    assert compact(tmp_path) == Compaction(segments=2, in_use=0, removed=0)
    assert everything(tmp_path) == before


def test_a_segment_in_use_is_left_and_the_erasure_with_it(tmp_path: Path) -> None:
    write(tmp_path, "1", event("ann", "a", 1), event("bob", "b", 1), erasure("ann", 3))
    busy = write(tmp_path, "2", event("ann", "c", 2))
    with busy.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert compact(tmp_path) == Compaction(segments=2, in_use=1, removed=1)
        assert "ann" in busy.read_text("utf-8")
    assert event_ids(tmp_path) == ["b"]
    assert user_digest("ann") in everything(tmp_path)
    assert compact(tmp_path) == Compaction(segments=2, in_use=0, removed=1)
    assert "ann" not in everything(tmp_path)
    assert user_digest("ann") not in everything(tmp_path)


def test_a_line_that_was_never_finished_is_no_record(tmp_path: Path) -> None:
    write(tmp_path, "1", event("ann", "a", 1), torn='{"kind": "event", "user_id": "ann"')
    write(tmp_path, "2", erasure("bob", 2))
    assert event_ids(tmp_path) == ["a"]
    compact(tmp_path)
    assert event_ids(tmp_path) == ["a"]


def found(folder: Path, user_id: str) -> list[dict[str, Any]]:
    """What the log holds of a user, without what an erasure covers."""
    pieces = records_of(folder, user_id, erased_until(folder, user_id))
    return [json.loads(line) for line in b"".join(pieces).splitlines()]


@pytest.mark.parametrize("block_bytes", [1, 7, 100, 2**20])
def test_all_records_of_a_user_are_found_in_whatever_pieces_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(event_log, "_BLOCK_BYTES", block_bytes)
    user = 'ann "\u2028" \u00e9'
    mine = [event(user, "a", 3), impression(user, 4), event(user, "b" * 300, 5)]
    torn = json.dumps(event(user, "torn", 7), ensure_ascii=False)
    write(tmp_path, "1", event("bob", user, 1), mine[0], event(f"{user} two", "c", 3))
    write(tmp_path, "2", *mine[1:], impression(None, 6), torn=torn)
    assert found(tmp_path, user) == mine
    assert found(tmp_path, "nobody") == []
    write(tmp_path, "3", erasure(user, 4), erasure(user, 2), event(user, user_digest(user), 6))
    assert [each["logged_ms"] for each in found(tmp_path, user)] == [5, 6]
    assert erased_until(tmp_path, "bob") == -1


def test_a_segment_that_was_compacted_away_is_passed_over(tmp_path: Path) -> None:
    gone = write(tmp_path, "1", event("ann", "a", 1))
    write(tmp_path, "2", event("ann", "b", 2))
    gone.unlink()
    gone.symlink_to(tmp_path / "nowhere")  # listed, and not there
    assert [each["event_id"] for each in found(tmp_path, "ann")] == ["b"]


def test_a_segment_that_is_removed_while_events_are_read_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "1", event("ann", "a", 1))
    removed = write(tmp_path, "2")
    write(tmp_path, "3", event("ann", "b", 2))
    reading = events(tmp_path)

    first = next(reading)
    removed.unlink()

    assert [each["event_id"] for each in (first, *reading)] == ["a", "b"]


@pytest.mark.parametrize("line", ["", "nonsense", "[1]", "3", "{}", '{"kind": "event"}', '"kind"'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    write(tmp_path, "1", event("ann", "a", 1), torn=f"{line}\n")
    with pytest.raises(DataError, match=r"1\.jsonl: row 2 is no record"):
        event_ids(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        event_ids(tmp_path / "nowhere")


def test_a_digest_names_nobody() -> None:
    assert "ann" not in user_digest("ann")
    assert user_digest("ann") != user_digest("bob")

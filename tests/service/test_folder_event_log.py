import asyncio
import json
import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model import event_log as log_format
from model.query import RecommendedItem
from service.errors import EventLogUnavailableError, SettingsError
from service.event_log import WAITING_MAX
from service.folder_event_log import FolderEventLog
from service.impressions import Asked, Impressions
from service.log_segment import Segment
from service.metrics import Metrics
from service.recommendation_id import RecommendationIds
from service.settings import load_settings
from tests.service.conftest import AppClient, Client
from tests.service.problem_shape import check_problem

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 20.0


def records(folder: Path) -> list[dict[str, Any]]:
    """Every record, in the order of the segments."""
    lines = "".join(path.read_text("utf-8") for path in log_format.segments(folder))
    return [json.loads(line) for line in lines.splitlines()]


def everything_in(folder: Path) -> str:
    """All text in the folder, whatever its files are called."""
    return "".join(path.read_text("utf-8") for path in folder.iterdir())


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Writes beyond `size` bytes of any file fail inside, as on a full disk: some bytes, then none.

    The limit is of this process, whose other files are small.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def sample(metrics: Metrics, kind: str, outcome: str) -> float | None:
    labels = {"kind": kind, "outcome": outcome}
    value: float | None = metrics.registry.get_sample_value(
        "cofine_event_log_records_total", labels
    )
    return value


async def test_events_and_impressions_are_logged(start_app: AppClient, tmp_path: Path) -> None:
    async with start_app(event_log=tmp_path) as client:
        shown = (await client.post("/v1/recommend", json={"user_id": "ann", "k": 2})).json()
        item = shown["items"][1]
        click = {"event_id": "1", "user_id": "ann", "item_id": item["item_id"], "timestamp": 12.5}
        named = {**click, "recommendation_id": shown["recommendation_id"], "type": "cart"}
        for body in (named, named, {**click, "event_id": "2"}):
            assert (await client.post("/v1/events", json=body)).status_code == 200
        kinds = [each["kind"] for each in records(tmp_path)]
    assert kinds == ["impression", "event", "event", "event"]
    impression, event, repeated, other = records(tmp_path)
    assert impression | {"logged_ms": 0} == {
        "kind": "impression",
        "logged_ms": 0,
        "recommendation_id": shown["recommendation_id"],
        "user_id": "ann",
        "bundle": "table",
        "variant": "active",
        "items": [
            {name: each[name] for name in ("item_id", "rank", "source", "score")}
            for each in shown["items"]
        ],
    }
    assert event | {"logged_ms": 0, "recommended_ms": 0} == {
        **named,
        "kind": "event",
        "logged_ms": 0,
        "recommended_ms": 0,
        "bundle": "table",
        "variant": "active",
        "rank": 2,
        "source": "popular",
    }
    assert repeated["event_id"] == "1"
    assert "rank" not in other
    assert [each["event_id"] for each in log_format.events(tmp_path)] == ["1", "1", "2"]


async def test_an_event_that_cannot_be_logged_is_refused_and_can_be_repeated(
    start_app: AppClient, tmp_path: Path
) -> None:
    body = {"event_id": "1", "user_id": "ann", "item_id": "x" * 200}
    async with start_app(event_log=tmp_path, state_write_deadline_ms=20_000) as client:
        with no_file_longer_than(100):
            answer = await client.post("/v1/events", json=body)
            found = check_problem(answer, 503, "events_not_stored", more=("results",))
            assert found["results"][0]["status"] == "unconfirmed"
            assert "stored and logged" in found["detail"]
            refused = check_problem(
                await client.delete("/v1/users/x"), 503, "event_log_unavailable"
            )
            assert refused["retryable"]
            assert (await client.post("/v1/recommend", json={})).status_code == 200
        assert list(log_format.events(tmp_path)) == []
        repeated = (await client.post("/v1/events", json=body)).json()
        assert repeated["results"][0]["status"] == "duplicate"  # it was in the state already
        [event] = log_format.events(tmp_path)
        assert event["event_id"] == "1"
        assert (await client.get("/v1/users/ann")).json()["events"] == 1
        # The state had accepted it: what it follows is counted, though the log came later.
        assert 'unattributed_events_total{reason="none"} 1.0' in await client.scrape()


def test_a_segment_that_cannot_be_begun_costs_no_descriptor(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = Path("/proc/self/fd")
    free = max(int(each.name) for each in descriptors.iterdir()) + 1
    try:
        with ExitStack() as others:
            others.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
            last = None
            with pytest.raises(OSError, match="Too many open files"):  # noqa: PT012
                while True:
                    last = others.enter_context(Path("/dev/null").open("rb"))
            assert last is not None
            last.close()  # one is left: for the file, and none for its folder
            with pytest.raises(OSError, match="Too many open files"):
                Segment(tmp_path)
            os.close(os.open("/dev/null", os.O_RDONLY))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


async def test_erasure_reaches_the_log(start_app: AppClient, tmp_path: Path) -> None:
    async with start_app(event_log=tmp_path) as client:
        for user in ("ann", "bob"):
            await client.post("/v1/recommend", json={"user_id": user})
            body = {"event_id": "1", "user_id": user, "item_id": "soap"}
            assert (await client.post("/v1/events", json=body)).status_code == 200
        assert (await client.delete("/v1/users/ann")).status_code == 204
        assert [each["user_id"] for each in log_format.events(tmp_path)] == ["bob"]
        log_format.compact(tmp_path)  # while the service runs: it has given the segment free
        assert everything_in(tmp_path).count("bob") == 2
        assert "ann" not in everything_in(tmp_path)
        assert log_format.user_digest("ann") not in everything_in(tmp_path)


async def test_the_log_of_a_user_is_told_while_others_are_answered(
    start_app: AppClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_format, "_BLOCK_BYTES", 200)  # hundreds of reads
    async with start_app(event_log=tmp_path) as client:
        for user in ("ann", *["bob"] * 5, "ann"):
            events = [
                {"event_id": f"{number}", "user_id": user, "item_id": "x" * 100}
                for number in range(100 if user == "bob" else 1)
            ]
            sent = await client.post("/v1/events", json={"events": events})
            assert sent.status_code == 200
        telling = asyncio.create_task(client.get("/v1/event-log", params={"user_id": "ann"}))
        for _ in range(3):
            assert (await client.get("/livez")).status_code == 200
        assert not telling.done()
        answer = await telling
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["event_id"] for line in answer.text.splitlines()] == ["0"] * 2


async def test_a_log_that_cannot_be_read_is_no_empty_one(
    start_app: AppClient, tmp_path: Path
) -> None:
    async with start_app(event_log=tmp_path, state_write_deadline_ms=20_000) as client:
        (tmp_path / "0.jsonl").mkdir()  # no file
        refused = await client.get("/v1/event-log", params={"user_id": "ann"})
        check_problem(refused, 503, "event_log_unavailable")
        (tmp_path / "0.jsonl").rmdir()
        told = await client.get("/v1/event-log", params={"user_id": "ann"})
        assert (told.status_code, told.content) == (200, b"")


async def test_without_a_log_nothing_is_told_of_it(client: Client) -> None:
    told = await client.get("/v1/event-log", params={"user_id": "ann"})
    assert (told.status_code, told.content) == (200, b"")
    for wrong in ({}, {"user_id": ""}, {"user_id": "ann", "from": "1"}):
        refused = await client.get("/v1/event-log", params=wrong)
        assert refused.status_code == 422, wrong


async def test_a_write_that_fails_halfway_leaves_whole_lines(tmp_path: Path) -> None:
    metrics = Metrics()
    log = FolderEventLog(tmp_path, metrics)
    log.start()
    await log.append("event", [{"n": 0}], deadline_seconds=PATIENCE_SECONDS)
    with no_file_longer_than(200):
        written = await _append_until_refused(log)
        await log.append("event", [{"n": 500}], deadline_seconds=PATIENCE_SECONDS)  # a new segment
    await log.close()
    assert {each["n"] for each in records(tmp_path)} == {0, *range(1, written + 1), 500}
    assert sample(metrics, "event", "written") == written + 2
    assert sample(metrics, "event", "failed") == 1


async def _append_until_refused(log: FolderEventLog) -> int:
    """How many appends, with n from 1, went well."""
    for number in range(1, 100):
        try:
            await log.append("event", [{"n": number}], deadline_seconds=PATIENCE_SECONDS)
        except EventLogUnavailableError:
            return number - 1
    raise AssertionError


async def test_segments_end_by_size_and_by_age(tmp_path: Path) -> None:
    small = FolderEventLog(tmp_path, Metrics(), segment_max_bytes=100)
    small.start()
    for number in range(6):
        await small.append("event", [{"n": number}], deadline_seconds=PATIENCE_SECONDS)
    await small.close()
    assert len(log_format.segments(tmp_path)) == 3
    assert sorted(each["n"] for each in records(tmp_path)) == [*range(6)]
    short = FolderEventLog(tmp_path, Metrics(), segment_seconds=0.05)
    short.start()
    await short.append("event", [{"n": 6}], deadline_seconds=PATIENCE_SECONDS)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while _in_use(tmp_path):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await short.close()


def _in_use(folder: Path) -> bool:
    """Whether somebody holds a segment: compaction then says so, given something to remove."""
    (folder / "0.jsonl").write_text(
        json.dumps({"kind": "erasure", "logged_ms": 1, "user": "nobody"}) + "\n", "utf-8"
    )
    return log_format.compact(folder).in_use > 0


async def test_concurrent_requests_are_all_on_the_disk_when_told_so(tmp_path: Path) -> None:
    log = FolderEventLog(tmp_path, Metrics())
    log.start()

    async def one(number: int) -> bool:
        await log.append("event", [{"n": number}], deadline_seconds=PATIENCE_SECONDS)
        return f'"n": {number}}}' in "".join(
            path.read_text("utf-8") for path in log_format.segments(tmp_path)
        )

    assert all(await asyncio.gather(*(one(number) for number in range(200))))
    await log.close()


async def test_impressions_tell_scenario_context_and_propensities(tmp_path: Path) -> None:
    metrics = Metrics()
    log = FolderEventLog(tmp_path, metrics)
    log.start()
    impressions = Impressions(RecommendationIds(), metrics, log)
    drawn = RecommendedItem("soap", 1, -0.5, "generated", "Soap", ("Bath",), (0,), (-0.5,))
    items = [replace(drawn, propensity=0.25), replace(drawn, item_id="file", rank=2)]
    asked: Asked = {"scenario": "home", "context": {"page": "home"}}
    impressions.record(None, items, bundle="b", variant="active", asked=asked)
    asked = {"scenario": None, "context": {}}
    impressions.record(None, items[1:], bundle="b", variant="active", asked=asked)
    await log.close()
    with_context, without = records(tmp_path)
    assert (with_context["scenario"], with_context["context"]) == ("home", {"page": "home"})
    assert [item.get("propensity") for item in with_context["items"]] == [0.25, None]
    assert {"scenario", "context"}.isdisjoint(without)


async def test_a_log_that_hangs_refuses_events_and_drops_impressions(tmp_path: Path) -> None:
    metrics = Metrics()
    log = FolderEventLog(tmp_path, metrics)  # not started: nothing is ever written
    with pytest.raises(EventLogUnavailableError):
        await log.append("event", [{"n": 0}], deadline_seconds=0.01)
    for _ in range(WAITING_MAX):
        log.offer_impression({"items": []})
    assert sample(metrics, "impression", "dropped") == 1
    with pytest.raises(EventLogUnavailableError):
        await log.append("event", [{"n": 1}], deadline_seconds=PATIENCE_SECONDS)
    assert sample(metrics, "event", "failed") == 1
    log.start()  # and goes on
    await log.close()
    assert records(tmp_path)[0]["n"] == 0
    assert len(records(tmp_path)) == WAITING_MAX


def test_the_folder_must_be_there_and_writable(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="COFINE_EVENT_LOG"):
        load_settings(event_log=tmp_path / "nowhere")
    if os.getuid() == 0:
        return  # root may write anywhere
    tmp_path.chmod(0o500)
    with pytest.raises(SettingsError, match="event_log must be a folder"):
        load_settings(event_log=tmp_path)

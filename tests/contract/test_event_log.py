"""What every event log must do; runs on the one in a folder and on a real Redis server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from model import event_log as log_format
from model.training.preparation.logged_events import write_logged_events
from service.drain_log import drain
from service.event_log import EventLog
from service.metrics import Metrics
from service.serving import make_event_log, make_store
from service.settings import Settings, load_settings
from tests.contract.redis_server import RedisServer

pytestmark = pytest.mark.anyio

SECONDS = 20.0
"""Deadline of what must succeed."""
PATIENT = {"state_read_deadline_ms": 20_000, "state_write_deadline_ms": 20_000}


@dataclass
class Logs:
    """One log, which several services may write, and the folder that training reads it in."""

    settings: Settings
    folder: Path
    opened: list[Metrics] = field(default_factory=list)

    @asynccontextmanager
    async def service(self) -> AsyncIterator[EventLog]:
        """What a service writes with, from its start to its end."""
        metrics = Metrics()
        self.opened.append(metrics)
        store = make_store(self.settings, metrics)
        await store.start()
        log = make_event_log(store, self.settings, metrics)
        assert log is not None
        log.start()
        yield log
        await log.close()
        await store.close()

    async def collected(self) -> Path:
        """The folder that `cofine prepare` is given."""
        if self.settings.event_log == "redis":
            await drain(self.settings, self.folder)
        return self.folder


@pytest.fixture(params=["folder", "redis"])
def logs(request: pytest.FixtureRequest, tmp_path: Path) -> Logs:
    folder = tmp_path / "log"
    folder.mkdir()
    if request.param == "folder":
        return Logs(load_settings(event_log=folder, **PATIENT), folder)
    server: RedisServer = request.getfixturevalue("redis_server")
    server.flush()
    return Logs(load_settings(event_log="redis", state_url=server.url, **PATIENT), folder)


def event(user_id: str, event_id: str, **more: object) -> dict[str, Any]:
    given = {"event_id": event_id, "user_id": user_id, "item_id": f"item of {event_id}"}
    return {**given, "timestamp": 12.5, "type": "view", **more}


async def append(log: EventLog, *events: dict[str, Any]) -> None:
    await log.append("event", events, deadline_seconds=SECONDS)


async def told(log: EventLog, user_id: str) -> list[dict[str, Any]]:
    """What the log tells of a user."""
    pieces = await log.records_of(user_id, deadline_seconds=SECONDS)
    text = b"".join([piece async for piece in pieces])
    assert not text or text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


async def collected_ids(logs: Logs) -> list[str]:
    return [each["event_id"] for each in log_format.events(await logs.collected())]


def everything_in(folder: Path) -> str:
    return "".join(path.read_text("utf-8") for path in folder.iterdir())


async def test_what_was_logged_is_read_for_training_once_and_in_order(logs: Logs) -> None:
    async with logs.service() as log:
        log.offer_impression({"user_id": "ann", "items": []})
        await append(log, event("ann", "1"), event("ann", "2", title="caf\u00e9\u2028"))
        await append(log, event("bob", "1"))
        await append(log, event("ann", "1"))  # as a client repeats it
    folder = await logs.collected()
    found = list(log_format.events(folder))
    assert [(each["user_id"], each["event_id"]) for each in found] == [
        *(("ann", "1"), ("ann", "2"), ("bob", "1"), ("ann", "1"))
    ]
    assert found[1]["title"] == "caf\u00e9\u2028"
    table = folder.parent / "events.parquet"
    write_logged_events(folder, table)
    assert pl.read_parquet(table)["item_id"].to_list() == ["item of 1", "item of 2", "item of 1"]
    assert await collected_ids(logs) == ["1", "2", "1", "1"]  # collecting again adds nothing


async def test_it_survives_the_services_end(logs: Logs) -> None:
    for number in range(3):
        async with logs.service() as log:
            await append(log, event("ann", str(number)))
    assert await collected_ids(logs) == ["0", "1", "2"]


async def test_what_is_told_is_the_users_from_every_service(logs: Logs) -> None:
    async with logs.service() as first, logs.service() as second:
        await append(first, event("ann", "1"), event("bob", "2"), event("ann and bob", "3"))
        await append(second, event("ann", "4", item_id="ann"), event("bob", "ann"))
        second.offer_impression({"user_id": "ann", "items": [{"item_id": "x"}]})
        second.offer_impression({"user_id": None, "items": [{"item_id": "ann"}]})
        await append(second, event("bob", "5"))
        for log in (first, second):
            await eventually_tells(log, "ann", ["1", "4", None])
            assert await told(log, "an") == []
    async with logs.service() as third:
        assert [each.get("event_id") for each in await told(third, "bob")] == ["2", "ann", "5"]


async def eventually_tells(log: EventLog, user_id: str, event_ids: list[str | None]) -> None:
    """The impression among them is written when there is time."""
    async with asyncio.timeout(SECONDS):
        while True:
            records = await told(log, user_id)
            if sorted(str(each.get("event_id")) for each in records) == sorted(map(str, event_ids)):
                return
            await asyncio.sleep(0.01)


async def test_an_erased_user_is_told_nothing_and_leaves_nothing(logs: Logs) -> None:
    async with logs.service() as log:
        await append(log, event("ann", "1"), event("bob", "2"))
        log.offer_impression({"user_id": "ann", "items": []})
        await eventually_tells(log, "ann", ["1", None])
        await log.erase("ann", deadline_seconds=SECONDS)
        assert await told(log, "ann") == []
        await asyncio.sleep(0.002)  # the log's clock counts milliseconds
        await append(log, event("ann", "3"))
        assert [each["event_id"] for each in await told(log, "ann")] == ["3"]
        assert len(await told(log, "bob")) == 1
        await log.erase("ann", deadline_seconds=SECONDS)
        assert await collected_ids(logs) == ["2"]
    log_format.compact(await logs.collected())
    assert "ann" not in everything_in(logs.folder)
    assert log_format.user_digest("ann") not in everything_in(logs.folder)
    assert "bob" in everything_in(logs.folder)


async def test_concurrent_requests_lose_nothing(logs: Logs) -> None:
    async with logs.service() as first, logs.service() as second:
        await asyncio.gather(
            *(append(log, event("ann", f"{n}")) for n in range(100) for log in (first, second))
        )
    assert sorted(map(int, await collected_ids(logs))) == sorted([*range(100)] * 2)


async def test_what_waits_at_the_end_is_written(logs: Logs) -> None:
    async with logs.service() as log:
        for number in range(1_200):
            log.offer_impression({"user_id": "ann", "number": number})
    async with logs.service() as log:
        assert [each["number"] for each in await told(log, "ann")] == [*range(1_200)]
    written = {"kind": "impression", "outcome": "written"}
    count = logs.opened[0].registry.get_sample_value("cofine_event_log_records_total", written)
    assert count == 1_200

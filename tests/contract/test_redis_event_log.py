"""The event log in Redis when Redis goes away or is full, and when it is drained."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from model import event_log as log_format
from service import drain_log
from service.drain_log import drain
from service.errors import EventLogUnavailableError, SettingsError, StateUnavailableError
from service.metrics import Metrics
from service.redis_event_log import BATCH_MAX, Batch, RedisEventLog
from service.redis_user_state import RedisUserState
from service.serving import make_store
from service.settings import Settings, load_settings
from tests.contract.redis_server import RedisServer, running_redis
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

SECONDS = 20.0


@pytest.fixture
def durable_server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path, appendonly=True) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


def settings_of(server: RedisServer) -> Settings:
    """One failure opens the breaker, which is closed again soon."""
    return load_settings(
        state_url=server.url,
        event_log="redis",
        redis_failures_max=1,
        redis_probe_interval_ms=20,
        state_read_deadline_ms=20_000,
        state_write_deadline_ms=20_000,
    )


@asynccontextmanager
async def logging_to(
    server: RedisServer, max_entries: int = 100_000
) -> AsyncIterator[tuple[RedisEventLog, Metrics]]:
    metrics = Metrics()
    store = make_store(settings_of(server), metrics)
    assert isinstance(store, RedisUserState)
    await store.start()
    log = RedisEventLog(store.connection, metrics, max_entries=max_entries)
    log.start()
    yield log, metrics
    await log.close()
    await store.close()


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    value: float | None = metrics.registry.get_sample_value(name, labels)
    assert value is not None
    return value


def impressions(metrics: Metrics, outcome: str) -> float:
    labels = {"kind": "impression", "outcome": outcome}
    return sample(metrics, "cofine_event_log_records_total", **labels)


def everything_in(folder: Path) -> str:
    return "".join(path.read_text("utf-8") for path in folder.iterdir())


async def append(log: RedisEventLog, *event_ids: str) -> None:
    events = [{"user_id": "ann", "event_id": each} for each in event_ids]
    await log.append("event", events, deadline_seconds=SECONDS)


async def drained(server: RedisServer, folder: Path) -> list[str]:
    await drain(settings_of(server), folder)
    return [each["event_id"] for each in log_format.events(folder)]


async def test_what_was_confirmed_survives_a_kill_and_the_rest_is_refused(
    durable_server: RedisServer, folder: Path
) -> None:
    async with logging_to(durable_server) as (log, metrics):
        await append(log, "1", "2")
        durable_server.kill()
        for kind in ("event", "erasure"):
            with pytest.raises(EventLogUnavailableError):
                await log.append(kind, [{"event_id": "lost"}], deadline_seconds=SECONDS)
            labels = {"kind": kind, "outcome": "failed"}
            assert sample(metrics, "cofine_event_log_records_total", **labels) == 1
        with pytest.raises(EventLogUnavailableError):
            await log.records_of("ann", deadline_seconds=SECONDS)
        log.offer_impression({"user_id": "ann"})

        async def dropped() -> bool:
            return impressions(metrics, "dropped") == 1

        await eventually(dropped, "the impression is dropped")
        durable_server.start()

        async def works() -> bool:
            try:
                await append(log, "3")
            except EventLogUnavailableError:
                return False
            return True

        await eventually(works, "events are logged again")
        log.offer_impression({"user_id": "ann"})
    assert impressions(metrics, "written") == 1
    assert await drained(durable_server, folder) == ["1", "2", "3"]


async def test_a_hanging_server_refuses_in_time(own_redis_server: RedisServer) -> None:
    async with logging_to(own_redis_server) as (log, _):
        await append(log, "1")
        own_redis_server.pause()
        async with asyncio.timeout(SECONDS):
            with pytest.raises(EventLogUnavailableError):
                await log.append("event", [{"event_id": "2"}], deadline_seconds=0.01)
        own_redis_server.resume()


async def test_a_full_stream_loses_its_oldest_and_says_so(
    redis_server: RedisServer, folder: Path
) -> None:
    redis_server.flush()
    async with logging_to(redis_server, max_entries=1_000) as (log, metrics):
        for number in range(250):
            log.offer_impression({"user_id": "ann", "number": number})
        for start in range(0, 3_000, 100):
            await append(log, *(str(each) for each in range(start, start + 100)))
        pushed_out = sample(metrics, "cofine_event_log_pushed_out_total", stream="event")
        assert sample(metrics, "cofine_event_log_fill_ratio", stream="event") >= 1
    kept = await drained(redis_server, folder)
    assert kept == [str(number) for number in range(int(pushed_out), 3_000)]
    assert 1_000 <= len(kept) < 1_500  # Redis forgets a hundred or so at a time
    # Impressions have a stream of their own, from which events push out nothing.
    assert sample(metrics, "cofine_event_log_pushed_out_total", stream="impression") == 0
    assert impressions(metrics, "written") == 250
    assert everything_in(folder).count('"number"') == 250


async def test_a_drain_that_is_cut_off_loses_nothing(
    redis_server: RedisServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.flush()
    names = [str(number) for number in range(2 * BATCH_MAX + 10)]
    async with logging_to(redis_server) as (log, _):
        for start in range(0, len(names), 100):
            await append(log, *names[start : start + 100])
    really = RedisEventLog.remove
    removals: list[Batch] = []

    async def remove(self: RedisEventLog, batch: Batch, **more: Any) -> None:
        removals.append(batch)
        if len(removals) == 2:
            raise StateUnavailableError("timeout")
        await really(self, batch, **more)

    with monkeypatch.context() as patched:
        patched.setattr(RedisEventLog, "remove", remove)
        with pytest.raises(StateUnavailableError):
            await drain(settings_of(redis_server), folder)
    written = [each["event_id"] for each in log_format.events(folder)]
    assert written == names[: 2 * BATCH_MAX]
    # The batch that was written and not removed comes once more.
    again = await drained(redis_server, folder)
    assert again == names[: 2 * BATCH_MAX] + names[BATCH_MAX:]
    assert redis_server.all_keys() == [b"cofine:log:event:1"]
    with redis_server.client() as client:
        assert client.xlen("cofine:log:event:1") == 0


async def test_a_folder_that_cannot_be_written_takes_nothing_out_of_redis(
    redis_server: RedisServer, folder: Path
) -> None:
    redis_server.flush()
    async with logging_to(redis_server) as (log, _):
        await append(log, "1")
    with pytest.raises(FileNotFoundError):
        await drain(settings_of(redis_server), folder / "nowhere")
    assert await drained(redis_server, folder) == ["1"]


async def test_only_a_log_in_redis_is_drained(folder: Path) -> None:
    with pytest.raises(SettingsError, match="COFINE_EVENT_LOG is not redis"):
        await drain(load_settings(event_log=folder), folder)


def test_the_command_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own_redis_server: RedisServer,
    folder: Path,
) -> None:
    def status(*arguments: str) -> object:
        monkeypatch.setattr("sys.argv", ["drain_log", *arguments])
        with pytest.raises(SystemExit) as ended:
            drain_log.main()
        return ended.value.code

    monkeypatch.delenv("COFINE_EVENT_LOG", raising=False)
    monkeypatch.delenv("COFINE_STATE_URL", raising=False)
    assert status(str(folder)) == 3
    assert "COFINE_EVENT_LOG is not redis" in capsys.readouterr().err
    monkeypatch.setenv("COFINE_EVENT_LOG", "redis")
    assert status(str(folder)) == 3
    assert "event_log redis needs the state in Redis" in capsys.readouterr().err
    monkeypatch.setenv("COFINE_STATE_URL", own_redis_server.url)
    monkeypatch.setattr("sys.argv", ["drain_log", str(folder)])
    drain_log.main()
    assert capsys.readouterr().out == f"0 records moved to {folder}\n"
    own_redis_server.kill()
    assert status(str(folder)) == 1
    assert "does not answer" in capsys.readouterr().err

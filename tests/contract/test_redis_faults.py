"""What the store in Redis does when its server hangs, dies or forgets its scripts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from service.errors import StateUnavailableError
from service.metrics import Metrics
from service.redis_connection import ConnectionLimits
from service.redis_user_state import RedisUserState
from service.user_state import Event, StateLimits
from tests.contract.redis_server import RedisServer
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

READ_SECONDS = 0.03
APPEND_SECONDS = 0.25
HURRIED_SECONDS = 0.01
ENOUGH_SECONDS = 30
"""For whatever does not wait for a server that hangs, on any machine."""
# Connections do not end by themselves before a test does: only deadlines end calls.
LIMITS = ConnectionLimits(socket_timeout_seconds=10 * ENOUGH_SECONDS, probe_interval_seconds=0.05)


@asynccontextmanager
async def connected(server: RedisServer, limits: ConnectionLimits) -> AsyncIterator[RedisUserState]:
    store = RedisUserState(server.url, StateLimits(), Metrics(), limits)
    await store.start()
    yield store
    await store.close()


@pytest.fixture
async def store(own_redis_server: RedisServer) -> AsyncIterator[RedisUserState]:
    async with connected(own_redis_server, LIMITS) as store:
        yield store


async def append(store: RedisUserState, user_id: str, name: str, item: str) -> str:
    events = [Event(name, item, 1_000)]
    return (await store.append(user_id, events, deadline_seconds=5))[0]


async def history(store: RedisUserState, user_id: str) -> list[str]:
    state = await store.read(user_id, deadline_seconds=5)
    return [entry.item_id for entry in state.history]


async def wait_until_available(store: RedisUserState) -> None:
    async with asyncio.timeout(ENOUGH_SECONDS):
        while not store.is_available:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def open_breaker(store: RedisUserState) -> None:
    for _ in range(LIMITS.failures_max):
        with pytest.raises(StateUnavailableError):
            await store.read("u", deadline_seconds=READ_SECONDS)
    assert not store.is_available


async def test_a_call_to_a_hung_server_ends_with_its_deadline(
    store: RedisUserState, own_redis_server: RedisServer
) -> None:
    await append(store, "u", "1", "shoe")
    own_redis_server.pause()
    event = Event("2", "hat", 2_000)
    async with asyncio.timeout(ENOUGH_SECONDS):
        with pytest.raises(StateUnavailableError) as read_error:
            await store.read("u", deadline_seconds=READ_SECONDS)
        with pytest.raises(StateUnavailableError) as append_error:
            await store.append("u", [event], deadline_seconds=APPEND_SECONDS)
    assert read_error.value.reason == "timeout"
    assert append_error.value.reason == "timeout"


async def test_many_calls_to_a_hung_server_all_end_with_their_deadlines(
    store: RedisUserState, own_redis_server: RedisServer
) -> None:
    own_redis_server.pause()
    async with asyncio.timeout(ENOUGH_SECONDS):
        outcomes = await asyncio.gather(
            *(store.read(f"u{n}", deadline_seconds=READ_SECONDS) for n in range(150)),
            return_exceptions=True,
        )
    assert all(isinstance(outcome, StateUnavailableError) for outcome in outcomes)
    assert not store.is_available


async def reason_of_a_miss(store: RedisUserState, server: RedisServer) -> str:
    """Why a hurried call fails while the server stands still for a moment."""
    server.pause()
    try:
        with pytest.raises(StateUnavailableError) as missed:
            await store.read("u", deadline_seconds=HURRIED_SECONDS)
    finally:
        server.resume()
    return missed.value.reason


async def test_callers_in_a_hurry_do_not_close_the_way_to_a_server_that_answers(
    store: RedisUserState, own_redis_server: RedisServer
) -> None:
    missed = 0
    async with asyncio.timeout(ENOUGH_SECONDS):
        while missed <= LIMITS.failures_max:
            missed += await reason_of_a_miss(store, own_redis_server) == "timeout"
            assert store.connection.circuit != "open"
            await asyncio.sleep(0.01)  # for the ping after which such calls are tried again
    assert await append(store, "u", "1", "shoe") == "accepted"


async def test_a_hung_server_is_found_by_callers_in_a_hurry_alone(
    own_redis_server: RedisServer,
) -> None:
    limits = replace(LIMITS, socket_timeout_seconds=0.1)
    async with connected(own_redis_server, limits) as store, asyncio.timeout(ENOUGH_SECONDS):
        own_redis_server.pause()
        while store.connection.circuit != "open":
            with pytest.raises(StateUnavailableError):
                await store.read("u", deadline_seconds=HURRIED_SECONDS)
            await asyncio.sleep(0.01)


async def test_after_some_failures_calls_are_not_tried(
    store: RedisUserState, own_redis_server: RedisServer
) -> None:
    own_redis_server.pause()
    await open_breaker(store)
    for _ in range(100):
        with pytest.raises(StateUnavailableError) as error:
            await store.read("u", deadline_seconds=READ_SECONDS)
        assert error.value.reason == "open"


async def test_after_one_missed_deadline_only_longer_ones_are_tried(
    store: RedisUserState, own_redis_server: RedisServer
) -> None:
    own_redis_server.pause()
    with pytest.raises(StateUnavailableError) as missed:
        await store.read("u", deadline_seconds=READ_SECONDS)
    with pytest.raises(StateUnavailableError) as untried:
        await store.read("u", deadline_seconds=READ_SECONDS)
    appending = asyncio.create_task(append(store, "u", "1", "shoe"))
    await asyncio.sleep(0)
    own_redis_server.resume()

    assert (missed.value.reason, untried.value.reason) == ("timeout", "open")
    assert await appending == "accepted"
    await wait_until_available(store)
    assert await history(store, "u") == ["shoe"]


async def test_a_server_that_goes_on_is_found_by_the_probe(
    store: RedisUserState, own_redis_server: RedisServer
) -> None:
    await append(store, "u", "1", "shoe")
    own_redis_server.pause()
    with pytest.raises(StateUnavailableError):
        await store.append("u", [Event("2", "hat", 2_000)], deadline_seconds=READ_SECONDS)
    await open_breaker(store)
    own_redis_server.resume()
    await wait_until_available(store)
    # The append that was not confirmed may have happened; repeating it makes it happen once.
    await append(store, "u", "2", "hat")
    assert await append(store, "u", "2", "hat") == "duplicate"
    assert sorted(await history(store, "u")) == ["hat", "shoe"]


async def test_no_call_gets_the_answer_of_another_after_a_pause(
    store: RedisUserState, own_redis_server: RedisServer
) -> None:
    for number in range(40):
        await append(store, f"u{number}", "1", f"i{number}")
    own_redis_server.pause()
    await asyncio.gather(
        *(store.read(f"u{n}", deadline_seconds=READ_SECONDS) for n in range(40)),
        return_exceptions=True,
    )
    own_redis_server.resume()
    await wait_until_available(store)
    found = await asyncio.gather(*(history(store, f"u{n}") for n in range(40)))
    assert found == [[f"i{n}"] for n in range(40)]


async def test_a_killed_and_restarted_server_is_used_again(
    store: RedisUserState, own_redis_server: RedisServer
) -> None:
    await append(store, "u", "1", "shoe")
    own_redis_server.kill()
    await open_breaker(store)
    own_redis_server.start()
    await wait_until_available(store)
    assert await append(store, "u", "1", "shoe") == "accepted"  # it kept nothing on disk
    assert await history(store, "u") == ["shoe"]


async def test_a_restart_between_two_calls_costs_failures_only(
    store: RedisUserState, own_redis_server: RedisServer
) -> None:
    await append(store, "u", "1", "shoe")
    own_redis_server.kill()
    own_redis_server.start()
    async with asyncio.timeout(ENOUGH_SECONDS):
        while True:
            try:
                assert await append(store, "u", "2", "hat") in {"accepted", "duplicate"}
                break
            except StateUnavailableError:
                await asyncio.sleep(0.01)
    assert await history(store, "u") == ["hat"]


async def test_flushed_scripts_are_sent_again(
    store: RedisUserState, own_redis_server: RedisServer
) -> None:
    await append(store, "u", "1", "shoe")
    with own_redis_server.client() as client:
        client.script_flush()
    assert await append(store, "u", "2", "hat") == "accepted"
    assert await history(store, "u") == ["shoe", "hat"]
    await store.erase("u", deadline_seconds=5)

    async def nothing_is_left() -> bool:
        return own_redis_server.all_keys() == []

    await eventually(nothing_is_left, "the mark of the erasure expires")


async def test_a_server_that_is_down_at_start_is_found_later(
    own_redis_server: RedisServer,
) -> None:
    own_redis_server.kill()
    store = RedisUserState(own_redis_server.url, StateLimits(), Metrics(), LIMITS)
    await store.start()
    assert not store.is_available
    own_redis_server.start()
    await wait_until_available(store)
    assert await append(store, "u", "1", "shoe") == "accepted"
    await store.close()


async def test_whoever_listens_to_a_server_that_is_down_can_be_stopped(
    own_redis_server: RedisServer,
) -> None:
    limits = replace(LIMITS, probe_interval_seconds=0.001)
    async with connected(own_redis_server, limits) as store:
        own_redis_server.kill()
        for number in range(100):  # wherever it may be when it is told to end
            listening = asyncio.create_task(store.connection.listen("news", lambda: None))
            await asyncio.sleep(0.0002 * number)
            listening.cancel()
            ended, _ = await asyncio.wait({listening}, timeout=ENOUGH_SECONDS)
            assert ended


async def test_a_unix_socket_will_do(own_redis_server: RedisServer) -> None:
    url = f"unix://{own_redis_server.socket}"
    store = RedisUserState(url, StateLimits(), Metrics(), LIMITS)
    await store.start()
    assert await append(store, "u", "1", "shoe") == "accepted"
    await store.close()


async def test_a_server_that_refuses_writes_does_not_stop_reads(
    store: RedisUserState, own_redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await append(store, "u", "1", "shoe")
    with own_redis_server.client() as client:
        client.config_set("maxmemory", "1")
        client.config_set("maxmemory-policy", "noeviction")
    for number in range(2 * LIMITS.failures_max):
        with pytest.raises(StateUnavailableError) as error:
            await store.append("u", [Event(f"n{number}", "hat", 1)], deadline_seconds=5)
        assert error.value.reason == "error"
    told = {(record.message, vars(record)["reason"]) for record in caplog.records}
    assert told == {("redis_refused", "OOM")}
    assert store.is_available
    assert await history(store, "u") == ["shoe"]
    for _ in range(2):  # also where nothing is left to erase
        await store.erase("u", deadline_seconds=5)
    assert await history(store, "u") == []


async def test_the_circuit_and_the_operations_are_measured(
    own_redis_server: RedisServer,
) -> None:
    metrics = Metrics()
    store = RedisUserState(own_redis_server.url, StateLimits(), metrics, LIMITS)
    await store.start()
    await append(store, "u", "1", "shoe")
    await store.read("nobody", deadline_seconds=5)
    own_redis_server.kill()
    await open_breaker(store)
    with pytest.raises(StateUnavailableError):
        await store.read("u", deadline_seconds=READ_SECONDS)
    text = metrics.render().decode()
    count = "cofine_redis_operation_duration_seconds_count"
    assert f'{count}{{op="append",outcome="ok"}} 1.0' in text
    assert f'{count}{{op="read",outcome="miss"}} 1.0' in text
    assert f'{count}{{op="read",outcome="error"}} {float(LIMITS.failures_max)}' in text
    assert f'{count}{{op="read",outcome="open"}} 1.0' in text
    assert "cofine_redis_circuit_state 0.0" not in text
    await store.close()

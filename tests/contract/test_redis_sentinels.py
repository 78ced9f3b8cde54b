"""The store follows the master that sentinels name, through failovers."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.errors import StateUnavailableError
from service.metrics import Metrics
from service.redis_connection import ConnectionLimits
from service.redis_user_state import RedisUserState, user_keys
from service.user_state import Event, StateLimits
from tests.contract.redis_sentinels import SentinelServers
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

PATIENT_SECONDS = 2.0
LIMITS = ConnectionLimits(
    socket_timeout_seconds=PATIENT_SECONDS, failures_max=2, probe_interval_seconds=0.1
)


@pytest.fixture
async def store(own_sentinels: SentinelServers) -> AsyncIterator[RedisUserState]:
    store = RedisUserState(own_sentinels.url, StateLimits(), Metrics(), LIMITS)
    await store.start()
    yield store
    await store.close()


async def append(store: RedisUserState, name: str, item: str) -> str:
    event = Event(name, item, 1_000)
    return (await store.append("ann", [event], deadline_seconds=PATIENT_SECONDS))[0]


async def history(store: RedisUserState) -> list[str]:
    state = await store.read("ann", deadline_seconds=PATIENT_SECONDS)
    return [entry.item_id for entry in state.history]


async def replicated(sentinels: SentinelServers) -> bool:
    key = user_keys("ann")[0].encode()
    return all(key in server.all_keys() for server in sentinels.servers)


async def is_replaced(sentinels: SentinelServers) -> bool:
    """Whether the first sentinel knows what the others may have known before."""
    return sentinels.master_port() != sentinels.first_master.port


async def is_stored(store: RedisUserState, name: str, item: str) -> bool:
    try:
        return await append(store, name, item) in {"accepted", "duplicate"}
    except StateUnavailableError:
        return False


async def test_a_killed_master_is_replaced(
    store: RedisUserState, own_sentinels: SentinelServers
) -> None:
    assert await append(store, "1", "shoe") == "accepted"
    await eventually(lambda: replicated(own_sentinels), "the replicas have it")

    own_sentinels.first_master.kill()

    await eventually(lambda: is_stored(store, "2", "hat"), "the new master is used")
    assert await history(store) == ["shoe", "hat"]
    assert await append(store, "1", "shoe") == "duplicate"
    await eventually(lambda: is_replaced(own_sentinels), "every sentinel knows the new master")


async def test_a_hung_master_is_replaced_for_those_who_listen_too(
    store: RedisUserState, own_sentinels: SentinelServers
) -> None:
    heard = asyncio.Event()
    listening = asyncio.create_task(store.connection.listen("news", heard.set))
    try:
        await asyncio.wait_for(heard.wait(), 10)  # that it listens

        own_sentinels.first_master.pause()
        await eventually(lambda: is_stored(store, "1", "shoe"), "the new master is used")
        heard.clear()
        await eventually(lambda: is_replaced(own_sentinels), "every sentinel knows the new master")
        (master,) = (
            server for server in own_sentinels.servers if server.port == own_sentinels.master_port()
        )

        async def is_heard() -> bool:
            with master.client() as client:
                client.publish("news", "")
            return heard.is_set()

        await eventually(is_heard, "it listens to the new master")
    finally:
        listening.cancel()
        await asyncio.wait({listening})
        own_sentinels.first_master.resume()


async def test_an_unknown_master_is_told(
    own_sentinels: SentinelServers, caplog: pytest.LogCaptureFixture
) -> None:
    url = own_sentinels.url.replace("/cofine", "/other")
    store = RedisUserState(url, StateLimits(), Metrics(), LIMITS)
    await store.start()
    assert not store.is_available
    await store.close()
    (told,) = (vars(record)["reason"] for record in caplog.records if "start" in record.message)
    assert "No master found for 'other'" in told

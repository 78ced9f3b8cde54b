"""What every store of the rollout must do: in memory, on a real Redis server and a real cluster."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.errors import StateUnavailableError
from service.metrics import Metrics
from service.redis_connection import ConnectionLimits, RedisConnection
from service.redis_rollout import RedisRolloutStore
from service.rollout import BundleReference, MemoryRolloutStore, Rollout, RolloutStore
from tests.contract.redis_cluster_servers import ClusterServers
from tests.contract.redis_server import RedisServer
from tests.waiting import WAIT_SECONDS

pytestmark = pytest.mark.anyio

ONE, TWO = (BundleReference(name=name, bundle=name * 8) for name in ("one", "two"))
FIRST = Rollout(version=1, active=ONE)


@asynccontextmanager
async def on_redis(server: RedisServer | ClusterServers) -> AsyncIterator[RedisRolloutStore]:
    limits = ConnectionLimits(socket_timeout_seconds=5.0, probe_interval_seconds=0.01)
    connection = RedisConnection(server.url, limits, Metrics(), ())
    await connection.start()
    store = RedisRolloutStore(connection, deadline_seconds=5.0)
    await store.start()
    yield store
    await store.close()
    await connection.close()


@pytest.fixture(params=["memory", "redis_server", "redis_cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[RolloutStore]:
    if request.param == "memory":
        yield MemoryRolloutStore()
        return
    server: RedisServer | ClusterServers = request.getfixturevalue(request.param)
    server.flush()
    async with on_redis(server) as store:
        yield store


async def test_there_is_nothing_at_first(store: RolloutStore) -> None:
    assert await store.read() is None


async def test_what_was_written_is_read(store: RolloutStore) -> None:
    rollout = FIRST.with_role(TWO, "canary", 12.5).model_copy(update={"version": 1})
    assert await store.write(rollout)
    assert await store.read() == rollout


@pytest.mark.parametrize("version", [0, 1, 3, 17])
async def test_only_the_next_version_is_taken(store: RolloutStore, version: int) -> None:
    await store.write(FIRST)
    assert not await store.write(Rollout(version=version, active=TWO))
    assert await store.read() == FIRST


async def test_of_changes_at_the_same_time_one_is_taken(store: RolloutStore) -> None:
    written = await asyncio.gather(*(store.write(FIRST) for _ in range(20)))
    assert sum(written) == 1


@pytest.mark.parametrize("servers", ["redis_server", "redis_cluster"])
async def test_a_change_is_heard_elsewhere_at_once(
    servers: str, request: pytest.FixtureRequest
) -> None:
    server: RedisServer | ClusterServers = request.getfixturevalue(servers)
    server.flush()
    async with on_redis(server) as here, on_redis(server) as there:
        await there.wait_for_change(WAIT_SECONDS)  # that it listens now
        await here.write(FIRST)
        started = asyncio.get_running_loop().time()
        await there.wait_for_change(10 * WAIT_SECONDS)
        assert asyncio.get_running_loop().time() - started < WAIT_SECONDS
        assert await there.read() == FIRST


async def test_it_listens_again_after_an_outage(own_redis_server: RedisServer) -> None:
    async with on_redis(own_redis_server) as store:
        await store.wait_for_change(WAIT_SECONDS)
        own_redis_server.kill()
        own_redis_server.start()
        started = asyncio.get_running_loop().time()
        await store.wait_for_change(10 * WAIT_SECONDS)  # the new connection
        assert asyncio.get_running_loop().time() - started < WAIT_SECONDS


async def test_what_is_no_rollout_is_not_followed(redis_server: RedisServer) -> None:
    redis_server.flush()
    async with on_redis(redis_server) as store:
        with redis_server.client() as client:
            client.set("cofine:rollout:1", '{"version": 3, "active": "../../etc"}')
        with pytest.raises(StateUnavailableError):
            await store.read()

"""What every counter of requests must do: in memory, on a real Redis server and a real cluster."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from service.api_keys import Limit
from service.errors import StateUnavailableError
from service.metrics import Metrics
from service.rate_limits import BUCKETS_MAX, LocalRateLimits, RateLimits, retry_after_seconds
from service.redis_connection import ConnectionLimits, RedisConnection
from service.redis_rate_limits import RedisRateLimits
from tests.contract.redis_cluster_servers import ClusterServers
from tests.contract.redis_server import RedisServer
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 10.0
SLOW = Limit(requests_per_second=0.01, burst=5)
QUICK = Limit(requests_per_second=50, burst=2)


@pytest.fixture(params=["memory", "redis_server", "redis_cluster"])
async def limits(request: pytest.FixtureRequest) -> AsyncIterator[RateLimits]:
    if request.param == "memory":
        yield LocalRateLimits()
        return
    server: RedisServer | ClusterServers = request.getfixturevalue(request.param)
    server.flush()
    async with connected(server) as (limits, _):
        yield limits


class connected:  # noqa: N801 (read as a verb)
    """Rate limits on a server, with their metrics."""

    def __init__(
        self, server: RedisServer | ClusterServers, *, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        self.metrics = Metrics()
        quick = ConnectionLimits(socket_timeout_seconds=deadline_seconds, failures_max=1)
        self.connection = RedisConnection(server.url, quick, self.metrics, ())
        self.limits = RedisRateLimits(
            self.connection, self.metrics, deadline_seconds=deadline_seconds
        )

    async def __aenter__(self) -> tuple[RedisRateLimits, Metrics]:
        await self.connection.start()
        return self.limits, self.metrics

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()


async def test_a_burst_passes_and_what_comes_after_it_waits(limits: RateLimits) -> None:
    waits = [await limits.wait_seconds("a", SLOW) for _ in range(8)]
    assert waits[:5] == [0] * 5
    assert all(90 < wait <= 100 for wait in waits[5:])


async def test_what_was_refused_is_not_counted(limits: RateLimits) -> None:
    waits = [await limits.wait_seconds("a", SLOW) for _ in range(50)]
    assert waits[-1] <= 100  # not 45 intervals


async def test_buckets_are_apart(limits: RateLimits) -> None:
    for _ in range(6):
        await limits.wait_seconds("a", SLOW)
    assert await limits.wait_seconds("b", SLOW) == 0


async def test_many_at_once_pass_as_often_as_one_after_the_other(limits: RateLimits) -> None:
    waits = await asyncio.gather(*(limits.wait_seconds("a", SLOW) for _ in range(40)))
    assert sorted(wait > 0 for wait in waits) == [False] * 5 + [True] * 35


async def test_a_bucket_refills_evenly(limits: RateLimits) -> None:
    started = time.monotonic()
    passed = 0

    async def has_passed_ten() -> bool:
        nonlocal passed
        passed += await limits.wait_seconds("a", QUICK) == 0
        return passed == 10

    await eventually(has_passed_ten, "ten requests pass")
    # A burst of two, and eight more, one every 20 ms.
    assert time.monotonic() - started >= 8 / QUICK.requests_per_second - 0.005


async def test_the_wait_that_is_told_is_long_enough() -> None:
    now = 1_000.0
    limits = LocalRateLimits(lambda: now)
    for limit in (SLOW, QUICK, Limit(requests_per_second=7, burst=3)):
        bucket = str(limit)
        while (wait := await limits.wait_seconds(bucket, limit)) == 0:
            pass
        now += wait * 0.99
        assert await limits.wait_seconds(bucket, limit) > 0
        now += wait * 0.01
        assert await limits.wait_seconds(bucket, limit) == 0


def test_clients_are_told_whole_seconds() -> None:
    assert [retry_after_seconds(wait) for wait in (0.001, 1.0, 1.2)] == [1, 1, 2]


async def test_the_memory_of_buckets_is_bounded() -> None:
    limits = LocalRateLimits()
    for number in range(BUCKETS_MAX + 10):
        await limits.wait_seconds(str(number), SLOW)
    assert len(limits._whole_at) == BUCKETS_MAX


async def test_replicas_share_a_bucket_which_goes_by_itself(redis_server: RedisServer) -> None:
    redis_server.flush()
    async with connected(redis_server) as (one, _), connected(redis_server) as (other, _):
        waits = [await each.wait_seconds("a", SLOW) for each in (one, other) * 4]
        assert [wait > 0 for wait in waits] == [False] * 5 + [True] * 3
    with redis_server.client() as client:
        (key,) = redis_server.all_keys()
        assert key == b"cofine:rate:a:1"
        assert 490_000 < client.pttl(key) <= 500_000


async def test_without_redis_the_limit_holds_in_the_process(own_redis_server: RedisServer) -> None:
    async with connected(own_redis_server, deadline_seconds=0.2) as (limits, metrics):
        assert await limits.wait_seconds("a", SLOW) == 0
        own_redis_server.kill()
        waits = [await limits.wait_seconds("a", SLOW) for _ in range(7)]
        assert [wait > 0 for wait in waits] == [False] * 5 + [True] * 2
        assert b"cofine_rate_limit_local_total 7.0" in metrics.render()


async def test_a_forgotten_bucket_is_whole_and_leaves_nothing(limits: RateLimits) -> None:
    for bucket in ("a", "b"):
        while await limits.wait_seconds(bucket, SLOW) == 0:
            pass
    await limits.forget("a", deadline_seconds=DEADLINE_SECONDS)
    await limits.forget("unknown", deadline_seconds=DEADLINE_SECONDS)
    assert await limits.wait_seconds("b", SLOW) > 0
    assert await limits.wait_seconds("a", SLOW) == 0


async def test_what_is_counted_is_told(limits: RateLimits) -> None:
    assert await limits.counted("a", SLOW, deadline_seconds=DEADLINE_SECONDS) == 0
    for _ in range(7):  # two of them are refused
        await limits.wait_seconds("a", SLOW)
    await limits.wait_seconds("b", SLOW)
    counted = [await limits.counted(each, SLOW, deadline_seconds=10) for each in ("a", "b", "c")]
    assert counted == [5, 1, 0]
    await limits.forget("a", deadline_seconds=DEADLINE_SECONDS)
    assert await limits.counted("a", SLOW, deadline_seconds=DEADLINE_SECONDS) == 0


async def test_forgetting_is_refused_while_redis_is_away(own_redis_server: RedisServer) -> None:
    async with connected(own_redis_server, deadline_seconds=0.2) as (limits, _):
        own_redis_server.kill()
        with pytest.raises(StateUnavailableError):
            await limits.forget("a", deadline_seconds=0.2)


async def test_whole_buckets_are_dropped_from_memory() -> None:
    now = 1_000.0
    limits = LocalRateLimits(lambda: now)
    for number in range(10):
        await limits.wait_seconds(str(number), QUICK)
    now += 1 / QUICK.requests_per_second
    await limits.wait_seconds("last", QUICK)
    assert list(limits._whole_at) == ["last"]

"""Token buckets in Redis, shared by all replicas; in the process while Redis does not answer.

A bucket is one string, `cofine:rate:<bucket>:1`, the microsecond of Redis' own clock at which it is
whole again, when it also expires: the clocks of the replicas do not matter.
"""

from service.api_keys import Limit
from service.errors import StateUnavailableError
from service.metrics import Metrics
from service.rate_limits import LocalRateLimits, requests_in
from service.redis_connection import RedisConnection, Script

_TAKE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local whole_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + interval
local wait = whole_at - now - burst * interval
if wait > 0 then
  return math.ceil(wait)
end
redis.call('SET', KEYS[1], string.format('%.0f', whole_at),
           'PX', string.format('%.0f', math.ceil((whole_at - now) / 1000)))
return 0
""")
_COUNTED = Script("""
local time = redis.call('TIME')
return (tonumber(redis.call('GET', KEYS[1])) or 0) - time[1] * 1000000 - time[2]
""")
_FORGET = Script("return redis.call('DEL', KEYS[1])")
_MICROSECONDS = 1_000_000


class RedisRateLimits:
    """Means the same as `LocalRateLimits`, over all replicas.

    While Redis is away each replica counts alone, so that N of them let N times as much pass.
    """

    def __init__(
        self, connection: RedisConnection, metrics: Metrics, *, deadline_seconds: float
    ) -> None:
        self._connection = connection
        self._metrics = metrics
        self._deadline_seconds = deadline_seconds
        self._local = LocalRateLimits()

    async def wait_seconds(self, bucket: str, limit: Limit) -> float:
        """Count one request and return 0, or return after how long it would pass, uncounted."""
        interval = round(_MICROSECONDS / limit.requests_per_second)
        try:
            wait = await self._connection.run(
                _TAKE,
                [_key(bucket)],
                [interval, limit.burst],
                deadline_seconds=self._deadline_seconds,
            )
        except StateUnavailableError:
            self._metrics.rate_limit_local.inc()
            return await self._local.wait_seconds(bucket, limit)
        return int(wait) / _MICROSECONDS

    async def counted(self, bucket: str, limit: Limit, *, deadline_seconds: float) -> int:
        """Return how many requests the bucket still counts, in Redis and here.

        Raises:
            StateUnavailableError: Redis did not answer within `deadline_seconds`.
        """
        here = await self._local.counted(bucket, limit, deadline_seconds=deadline_seconds)
        left = await self._connection.run(
            _COUNTED, [_key(bucket)], [], deadline_seconds=deadline_seconds
        )
        return here + requests_in(int(left) / _MICROSECONDS, limit)

    async def forget(self, bucket: str, *, deadline_seconds: float) -> None:
        """Drop what is counted in the bucket, in Redis and here.

        What another replica counted alone it drops by itself once the bucket is whole.

        Raises:
            StateUnavailableError: Redis did not answer within `deadline_seconds`.
        """
        await self._local.forget(bucket, deadline_seconds=deadline_seconds)
        await self._connection.run(_FORGET, [_key(bucket)], [], deadline_seconds=deadline_seconds)


def _key(bucket: str) -> str:
    return f"cofine:rate:{bucket}:1"

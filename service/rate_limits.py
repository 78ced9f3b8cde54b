"""How often a caller may call: a token bucket per caller, kept in this process.

The algorithm is GCRA, which keeps one number per bucket: the time at which the bucket will be whole
again. `service/redis_rate_limits.py` keeps the same number in Redis, for all replicas.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from service.api_keys import Limit

BUCKETS_MAX = 100_000
"""Buckets kept in a process; beyond it those longest unused start anew."""


class RateLimits(Protocol):
    """Counts requests per bucket."""

    async def wait_seconds(self, bucket: str, limit: Limit) -> float:
        """Count one request and return 0, or return after how long it would pass, uncounted."""
        ...

    async def counted(self, bucket: str, limit: Limit, *, deadline_seconds: float) -> int:
        """Return how many requests the bucket still counts; 0 when it is full again.

        Raises:
            StateUnavailableError: this cannot be told now.
        """
        ...

    async def forget(self, bucket: str, *, deadline_seconds: float) -> None:
        """Drop what is counted in the bucket.

        Raises:
            StateUnavailableError: this is not known to have happened; repeat it.
        """
        ...


class LocalRateLimits:
    """Buckets of this process; used on one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._whole_at: OrderedDict[str, float] = OrderedDict()

    async def wait_seconds(self, bucket: str, limit: Limit) -> float:
        """Count one request and return 0, or return after how long it would pass, uncounted."""
        now = self._clock()
        self._drop_whole(now)
        interval = 1 / limit.requests_per_second
        whole_at = max(self._whole_at.get(bucket, now), now) + interval
        wait = whole_at - now - limit.burst * interval
        if wait > 1e-6:  # a clock's last digits refuse nobody
            return wait
        self._whole_at[bucket] = whole_at
        self._whole_at.move_to_end(bucket)
        if len(self._whole_at) > BUCKETS_MAX:
            self._whole_at.popitem(last=False)
        return 0.0

    async def counted(
        self,
        bucket: str,
        limit: Limit,
        *,
        deadline_seconds: float,  # noqa: ARG002
    ) -> int:
        """Return how many requests the bucket still counts; always in time."""
        return requests_in(self._whole_at.get(bucket, 0) - self._clock(), limit)

    async def forget(self, bucket: str, *, deadline_seconds: float) -> None:  # noqa: ARG002
        """Drop what is counted in the bucket; always in time."""
        self._whole_at.pop(bucket, None)

    def _drop_whole(self, now: float) -> None:
        """Drop what was used longest ago and says nothing any more: names are of users."""
        while self._whole_at and next(iter(self._whole_at.values())) <= now:
            self._whole_at.popitem(last=False)


def requests_in(seconds: float, limit: Limit) -> int:
    """Return how many requests a bucket counts that is whole again after some seconds."""
    return max(0, math.ceil(round(seconds * limit.requests_per_second, 3)))


def retry_after_seconds(wait: float) -> int:
    """Return a whole number of seconds after which waiting has been enough."""
    return max(1, math.ceil(wait))

"""The way to Redis that a URL names: one server, the master that sentinels name, or a cluster.

Whoever uses it writes scripts whose keys share one slot of a cluster: one key, or several with the
same hash tag, as `cofine:{u:<id>}:...` of a user. A message that a script publishes is heard on
every node.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from service.errors import StateUnavailableError
from service.metrics import CIRCUIT_STATES, Metrics
from service.redis_address import RedisAddress
from service.redis_cluster import RedisCluster
from service.redis_server import (
    ConnectionLimits,
    RedirectedError,
    RedisServer,
    Script,
    is_cancelled,
)

__all__ = ["ConnectionLimits", "RedisConnection", "Script"]


class RedisConnection:
    """Runs scripts on Redis."""

    def __init__(
        self, url: str, limits: ConnectionLimits, metrics: Metrics, scripts: Sequence[Script]
    ) -> None:
        """Take what is needed to connect.

        Args:
            url: as `RedisAddress.parse` reads it.
            limits: for every server.
            metrics: tell the state of the circuit breaker, the worst of a cluster's.
            scripts: to load in advance.

        Raises:
            ValueError: the URL cannot be used.
        """
        address = RedisAddress.parse(url)
        self._pause_seconds = limits.probe_interval_seconds
        self._redis: RedisServer | RedisCluster
        if address.kind == "cluster":
            self._redis = RedisCluster(address, limits, scripts)
        else:
            self._redis = RedisServer(address, limits, scripts)
        metrics.redis_circuit_state.set_function(lambda: CIRCUIT_STATES[self.circuit])

    @property
    def circuit(self) -> str:
        """The state of the breaker, of several the worst: `closed`, `half_open` or `open`."""
        redis = self._redis
        circuits = redis.circuits if isinstance(redis, RedisCluster) else [redis.circuit]
        return max(circuits, key=lambda circuit: CIRCUIT_STATES[circuit])

    @property
    def is_closed(self) -> bool:
        """Whether all calls are let through."""
        return self.circuit == "closed"

    async def start(self) -> None:
        """Connect; where Redis is down this takes two seconds at most, and it is found later."""
        await self._redis.start()

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.close()

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[str | int],
        *,
        deadline_seconds: float,
    ) -> Any:
        """Run the script atomically and return what it returns (bytes, int, list or None).

        A script that was not named at the beginning is sent whole the first time.

        Raises:
            StateUnavailableError: not within `deadline_seconds`, failed, or the breaker is open.
                The script may have run all the same.
        """
        try:
            return await self._redis.run(script, keys, arguments, deadline_seconds=deadline_seconds)
        except RedirectedError:  # a node of a cluster, which the URL calls a single server
            raise StateUnavailableError("error") from None

    async def listen(self, channel: str, on_message: Callable[[], None]) -> None:
        """Call `on_message` after every message of `channel`, until cancelled.

        It is also called at every new connection, since messages may have been missed before.
        """
        while True:
            await self._redis.hear(channel, on_message)
            if is_cancelled():
                return
            await asyncio.sleep(self._pause_seconds)

"""The one door to Redis: runs scripts within a deadline and keeps away from a server that fails.

Nothing here knows of users. A call is one EVALSHA; an unknown script is sent whole, once, inside
the same deadline. There are no retries. Three layers keep an answer in time when Redis hangs:

1. connect and socket timeouts, so that connections end by themselves;
2. the caller's deadline: the call is left behind, not awaited, because redis-py does not always
   give way to a cancellation;
3. a circuit breaker: after some failures in a row no call is tried. A background task probes with a
   *new* client, since a pool that has seen an outage may stay poisoned, and closes the breaker.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    NoScriptError,
    RedisError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from service.errors import StateUnavailableError
from service.metrics import CIRCUIT_STATES, Metrics

_LOGGER = logging.getLogger(__name__)
_PROBE_TIMEOUT_SECONDS = 1.0
_REFUSALS = ("OOM", "READONLY", "MISCONF", "NOREPLICAS", "NOPERM", "WRONGTYPE", "CROSSSLOT")


@dataclass(frozen=True)
class Script:
    """A Lua script and the name that Redis knows it by."""

    text: str

    @cached_property
    def sha(self) -> str:
        """Return the SHA-1 of the text, which Redis uses as the name."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class ConnectionLimits:
    """How much is tried, in the units that the names end with.

    Attributes:
        socket_timeout_seconds: for connecting and for each read; the longest deadline in use.
        connections_max: further calls wait for a free one, inside their deadline.
        failures_max: failures in a row that open the breaker.
        probe_interval_seconds: between probes while it is open, plus or minus 20 %.
    """

    socket_timeout_seconds: float = 0.25
    connections_max: int = 32
    failures_max: int = 5
    probe_interval_seconds: float = 1.0


class RedisConnection:
    """Runs scripts on one Redis server."""

    def __init__(
        self, url: str, limits: ConnectionLimits, metrics: Metrics, scripts: Sequence[Script]
    ) -> None:
        self._url = url
        self._limits = limits
        self._metrics = metrics
        self._scripts = scripts
        self._places = asyncio.Semaphore(limits.connections_max)
        self._client = self._new_client()
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None
        self._left_behind: set[asyncio.Task[Any]] = set()

    @property
    def is_closed(self) -> bool:
        """Whether the breaker lets calls through."""
        return self._probing is None

    async def start(self) -> None:
        """Connect; a server that is down opens the breaker instead, after a second at most."""
        failure = await self._probe(self._client)
        if failure is not None:
            _LOGGER.warning("redis_unavailable_at_start", extra={"reason": failure})
            self._client = self._new_client()
            self._open()

    async def close(self) -> None:
        """End the probe and close all connections."""
        tasks = [task for task in (self._probing, *self._left_behind) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_PROBE_TIMEOUT_SECONDS)
        await _close_client(self._client)

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
        if not self.is_closed:
            raise StateUnavailableError("open")
        client = self._client
        call = asyncio.create_task(self._call(client, script, keys, arguments))
        try:
            await asyncio.wait({call}, timeout=deadline_seconds)
        finally:
            if not call.done():
                self._leave_behind(call)
        if not call.done():
            self._count_failure(client, "timeout")
            raise StateUnavailableError("timeout")
        return self._result(client, call)

    async def listen(self, channel: str, on_message: Callable[[], None]) -> None:
        """Call `on_message` after every message of `channel`, until cancelled.

        It is also called at every new connection, since messages may have been missed before.
        """
        while True:
            client = self._new_client()
            try:
                async with client.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(channel)
                    on_message()
                    while True:
                        waited = await subscription.get_message(timeout=_PROBE_TIMEOUT_SECONDS)
                        if waited is not None:
                            on_message()
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(self._limits.probe_interval_seconds)
            finally:
                await _close_client(client)

    def _result(self, client: "Redis", call: "asyncio.Task[Any]") -> Any:
        error = call.exception()
        if error is None:
            self._failures = 0
            return call.result()
        reason = "timeout" if isinstance(error, RedisTimeoutError | TimeoutError) else "error"
        if isinstance(error, RedisTimeoutError | RedisConnectionError | OSError):
            self._count_failure(client, reason)
        elif isinstance(error, RedisError):
            # The server lives and says no (out of memory, read-only, ...): not the breaker's case.
            facts = {"error": type(error).__name__, "reason": _refusal(error)}
            _LOGGER.error("redis_refused", extra=facts)
        else:
            raise error
        raise StateUnavailableError(reason) from None

    async def _call(
        self, client: "Redis", script: Script, keys: Sequence[str], arguments: Sequence[str | int]
    ) -> Any:
        async with self._places:
            values = (len(keys), *keys, *arguments)
            try:
                return await client.execute_command(  # type: ignore[no-untyped-call]
                    "EVALSHA", script.sha, *values
                )
            except NoScriptError:  # a restarted or flushed server; EVAL also loads it
                return await client.execute_command(  # type: ignore[no-untyped-call]
                    "EVAL", script.text, *values
                )

    def _leave_behind(self, call: "asyncio.Task[Any]") -> None:
        """Cancel a call without waiting for it, and look at its result so that nobody warns."""
        call.cancel()
        self._left_behind.add(call)
        call.add_done_callback(self._left_behind.discard)
        call.add_done_callback(lambda task: task.cancelled() or task.exception())

    def _count_failure(self, client: "Redis", reason: str) -> None:
        if client is not self._client or not self.is_closed:
            return  # a late failure of an outage that is already known
        self._failures += 1
        if self._failures >= self._limits.failures_max:
            _LOGGER.warning("redis_circuit_opened", extra={"reason": reason})
            self._open()

    def _open(self) -> None:
        self._metrics.redis_circuit_state.set(CIRCUIT_STATES["open"])
        # In a context of its own: it outlives the request whose failure was one too many.
        self._probing = asyncio.create_task(self._probe_until_alive(), context=Context())

    async def _probe_until_alive(self) -> None:
        while True:
            jitter = random.uniform(0.8, 1.2)  # noqa: S311 (no replica in step) # nosec B311
            await asyncio.sleep(self._limits.probe_interval_seconds * jitter)
            self._metrics.redis_circuit_state.set(CIRCUIT_STATES["half_open"])
            client = self._new_client()
            if await self._probe(client) is None:
                break
            self._metrics.redis_circuit_state.set(CIRCUIT_STATES["open"])
        failed, self._client = self._client, client
        self._failures = 0
        self._probing = None
        self._metrics.redis_circuit_state.set(CIRCUIT_STATES["closed"])
        _LOGGER.info("redis_circuit_closed")
        await _close_client(failed)

    async def _probe(self, client: "Redis") -> str | None:
        """Have the server load all scripts, which shows that it works.

        Returns None, or why not; the client is closed then.
        """
        probe = asyncio.create_task(self._load_scripts(client))
        try:
            await asyncio.wait({probe}, timeout=_PROBE_TIMEOUT_SECONDS)
        finally:
            if not probe.done():
                self._leave_behind(probe)
        # Asked now: while the client closes, a probe that was left behind ends as cancelled.
        if not probe.done():
            reason = "timeout"
        elif (error := probe.exception()) is not None:
            reason = _first_line(error)
        else:
            return None
        await _close_client(client)
        return reason

    async def _load_scripts(self, client: "Redis") -> None:
        for script in self._scripts:
            await client.execute_command(  # type: ignore[no-untyped-call]
                "SCRIPT LOAD", script.text
            )

    def _new_client(self) -> "Redis":
        """Return a client that has not connected yet."""
        is_tcp = not self._url.startswith("unix://")
        pool = ConnectionPool.from_url(
            self._url,
            # One more than calls in flight, because a call that was left behind may hold one.
            max_connections=self._limits.connections_max + 1,
            socket_timeout=self._limits.socket_timeout_seconds,
            socket_connect_timeout=self._limits.socket_timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            client_name="cofine",
            driver_info=None,  # one round trip less per connection
            protocol=2,
            decode_responses=False,
            **({"socket_keepalive": True} if is_tcp else {}),
        )
        return Redis.from_pool(pool)


def _refusal(error: RedisError) -> str | None:
    """Redis' code for why it refuses; the rest of the text may hold what was sent.

    redis-py takes the code off the text, unless it stands inside the text of a script's error, as
    before Redis 7.
    """
    stated = getattr(error, "status_code", None)
    return next((code for code in _REFUSALS if code == stated or code in str(error)), None)


def _first_line(error: BaseException) -> str:
    """Why a probe failed. It sends nothing but our scripts, so the text holds nobody's data."""
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line[:200]}"


async def _close_client(client: "Redis") -> None:
    """Close the client's connections, whatever state they are in."""
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        await asyncio.wait_for(client.aclose(), _PROBE_TIMEOUT_SECONDS)

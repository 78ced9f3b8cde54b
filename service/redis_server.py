"""The one door to Redis: runs scripts within a deadline and keeps away from a server that fails.

Nothing here knows of users. A call is one EVALSHA; an unknown script is sent whole, once, inside
the same deadline. There are no retries. Four layers keep an answer in time when Redis hangs:

1. connect and socket timeouts, so that connections end by themselves;
2. the caller's deadline: the call is left behind, not awaited, because redis-py does not always
   give way to a cancellation;
3. after one missed deadline no call with such a deadline is tried until a ping in the background
   is answered sooner: a few requests wait for a server that hangs, not all of them;
4. a circuit breaker: after some failures in a row no call is tried. A background task probes with a
   *new* client, since a pool that has seen an outage may stay poisoned, and closes the breaker.
   Behind sentinels, a new client also asks anew who is the master.

A call in a hurry, with less time than the server is fairly given, is no failure of the server: it
only begins the pings, and these find out whether the server hangs.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from redis.asyncio import ConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from service.errors import StateUnavailableError
from service.redis_address import Node, RedisAddress

_LOGGER = logging.getLogger(__name__)
_PROBE_TIMEOUT_SECONDS = 1.0
_REFUSALS = (
    *("OOM", "READONLY", "MISCONF", "NOREPLICAS", "NOPERM", "WRONGTYPE", "CROSSSLOT"),
    *("TRYAGAIN", "MASTERDOWN"),
)
_FAILURES = (RedisTimeoutError, RedisConnectionError, ClusterDownError, OSError)


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
        connections_max: to one server; further calls wait for a free one, inside their deadline.
        failures_max: failures in a row that open the breaker.
        probe_interval_seconds: between probes while it is open, plus or minus 20 %.
        fair_seconds: a missed deadline that was shorter is the caller's fault, not the server's.
    """

    socket_timeout_seconds: float = 0.25
    connections_max: int = 32
    failures_max: int = 5
    probe_interval_seconds: float = 1.0
    fair_seconds: float = 0.015


class RedirectedError(Exception):
    """Another node of the cluster has the keys.

    Attributes:
        node: which one; its host is empty where it is that of the node that says so.
        is_moving: the keys are on their way to it, and this one call may follow them.
    """

    def __init__(self, node: Node, *, is_moving: bool) -> None:
        super().__init__(f"see {node.host}:{node.port}")
        self.node = node
        self.is_moving = is_moving


class RedisServer:
    """Runs scripts on one Redis server, or on whichever sentinels call the master."""

    def __init__(
        self, address: RedisAddress, limits: ConnectionLimits, scripts: Sequence[Script]
    ) -> None:
        self._address = address
        self._limits = limits
        self._scripts = scripts
        self._places = asyncio.Semaphore(limits.connections_max)
        self._client = self._new_client()
        self._failures = 0
        self._missed_seconds = 0.0
        self._probing: asyncio.Task[None] | None = None
        self._is_probed = False
        self._left_behind: set[asyncio.Task[Any]] = set()

    @property
    def circuit(self) -> str:
        """The state of the breaker: `closed`, `open`, or `half_open` while a probe runs."""
        if self._probing is None:
            return "closed" if self._missed_seconds < self._limits.fair_seconds else "half_open"
        return "half_open" if self._is_probed else "open"

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
        is_moving: bool = False,
    ) -> Any:
        """Run the script atomically and return what it returns (bytes, int, list or None).

        A script that was not named at the beginning is sent whole the first time. With `is_moving`
        it runs on keys that are on their way to this node.

        Raises:
            StateUnavailableError: not within `deadline_seconds`, failed, or the breaker is open.
                The script may have run all the same.
            RedirectedError: it has not run, because another node of the cluster has the keys.
        """
        if self._probing is not None or deadline_seconds <= self._missed_seconds:
            raise StateUnavailableError("open")
        client = self._client
        command = _asking if is_moving else _evaluate
        values = (len(keys), *keys, *arguments)
        call = asyncio.create_task(self._placed(lambda: command(client, script, values)))
        if not await self._waited(call, deadline_seconds):
            if deadline_seconds >= self._limits.fair_seconds:
                self._count_failure(client, "timeout")
            self._beware(client, deadline_seconds)
            raise StateUnavailableError("timeout")
        return self._result(client, call)

    async def slots(self) -> Any:
        """Return what CLUSTER SLOTS says, asked on a connection of its own.

        Raises:
            StateUnavailableError: the server does not answer, or is no node of a cluster.
        """
        client = self._new_client()
        try:
            asked = asyncio.create_task(client.execute_command("CLUSTER", "SLOTS"))  # type: ignore[no-untyped-call]
            if not await self._waited(asked, 2 * self._limits.socket_timeout_seconds):
                raise StateUnavailableError("timeout")
            return asked.result()
        except (RedisError, OSError) as error:
            raise StateUnavailableError("error") from error
        finally:
            await _close_client(client)

    async def hear(self, channel: str, on_message: Callable[[], None]) -> None:
        """Call `on_message` after every message of `channel`, until the connection fails.

        It is also called at first, since messages may have been missed before. It may return where
        it was cancelled.
        """
        client = self._new_client()
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as subscription:
                await subscription.subscribe(channel)
                on_message()
                is_answered = True
                while not is_cancelled():
                    heard = await subscription.get_message(timeout=_PROBE_TIMEOUT_SECONDS)
                    if heard is not None and heard["type"] == "message":
                        on_message()
                    elif heard is None:
                        # Silence is also what a server that hangs, or was replaced, has to say.
                        if not is_answered:
                            return
                        await subscription.ping()
                    is_answered = heard is not None
        except (RedisError, OSError, TimeoutError):
            return
        finally:
            await _close_client(client)

    def _result(self, client: "Redis", call: "asyncio.Task[Any]") -> Any:
        error = call.exception()
        if error is None:
            self._failures = 0
            return call.result()
        if isinstance(error, AskError):  # MOVED as well
            is_moving = not isinstance(error, MovedError)
            raise RedirectedError(Node(error.host, error.port), is_moving=is_moving) from None
        reason = "timeout" if isinstance(error, RedisTimeoutError | TimeoutError) else "error"
        if isinstance(error, _FAILURES):
            self._count_failure(client, reason)
        elif isinstance(error, RedisError):
            # The server lives and says no (out of memory, read-only, ...): not the breaker's case.
            facts = {"error": type(error).__name__, "reason": _refusal(error)}
            _LOGGER.error("redis_refused", extra=facts)
        else:
            raise error
        raise StateUnavailableError(reason) from None

    async def _placed(self, call: Callable[[], Awaitable[Any]]) -> Any:
        async with self._places:
            return await call()

    async def _waited(self, call: "asyncio.Task[Any]", seconds: float) -> bool:
        """Wait for a call, but no longer than that; return whether it ended."""
        try:
            await asyncio.wait({call}, timeout=seconds)
        finally:
            if not call.done():
                self._leave_behind(call)
        return call.done()

    def _leave_behind(self, call: "asyncio.Task[Any]") -> None:
        """Cancel a call without waiting for it, and look at its result so that nobody warns."""
        call.cancel()
        self._keep(call)

    def _keep(self, task: "asyncio.Task[Any]") -> None:
        self._left_behind.add(task)
        task.add_done_callback(self._left_behind.discard)
        task.add_done_callback(lambda task: task.cancelled() or task.exception())

    def _count_failure(self, client: "Redis", reason: str) -> None:
        if client is not self._client or self._probing is not None:
            return  # a late failure of an outage that is already known
        self._failures += 1
        if self._failures >= self._limits.failures_max:
            _LOGGER.warning("redis_circuit_opened", extra={"reason": reason})
            self._open()

    def _beware(self, client: "Redis", deadline_seconds: float) -> None:
        """Try no call with such a deadline until a ping is answered sooner."""
        if client is not self._client or self._probing is not None:
            return
        is_known = self._missed_seconds > 0
        self._missed_seconds = max(self._missed_seconds, deadline_seconds)
        if not is_known:
            pinging = self._ping_until_quick(client, deadline_seconds)
            self._keep(asyncio.create_task(pinging, context=Context()))

    async def _ping_until_quick(self, client: "Redis", deadline_seconds: float) -> None:
        """Ping until an answer comes within the deadline that was missed, or the breaker opens."""
        while client is self._client and self._probing is None:
            started = time.monotonic()
            ping = asyncio.create_task(self._placed(lambda: client.execute_command("PING")))  # type: ignore[no-untyped-call]
            if not await self._waited(ping, self._limits.socket_timeout_seconds):
                self._count_failure(client, "timeout")
            elif ping.exception() is not None:
                self._count_failure(client, "error")
            else:
                took = time.monotonic() - started
                self._missed_seconds = took if took >= deadline_seconds else 0.0
                if self._missed_seconds == 0:
                    return
            await asyncio.sleep(self._pause_seconds())

    def _open(self) -> None:
        # In a context of its own: it outlives the request whose failure was one too many.
        self._probing = asyncio.create_task(self._probe_until_alive(), context=Context())

    async def _probe_until_alive(self) -> None:
        while True:
            await asyncio.sleep(self._pause_seconds())
            self._is_probed = True
            client = self._new_client()
            failure = await self._probe(client)
            self._is_probed = False
            if failure is None:
                break
        failed, self._client = self._client, client
        self._failures, self._missed_seconds = 0, 0.0
        self._probing = None
        _LOGGER.info("redis_circuit_closed")
        await _close_client(failed)

    def _pause_seconds(self) -> float:
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 (no replica in step) # nosec B311
        return self._limits.probe_interval_seconds * jitter

    async def _probe(self, client: "Redis") -> str | None:
        """Have the server load all scripts, which shows that it works.

        Returns None, or why not; the client is closed then.
        """
        probe = asyncio.create_task(self._load_scripts(client))
        # Asked now: while the client closes, a probe that was left behind ends as cancelled.
        if not await self._waited(probe, _PROBE_TIMEOUT_SECONDS):
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
        timeouts = {
            "socket_timeout": self._limits.socket_timeout_seconds,
            "socket_connect_timeout": self._limits.socket_timeout_seconds,
            "retry": Retry(NoBackoff(), 0),
            "client_name": "cofine",
            "driver_info": None,  # one round trip less per connection
            "protocol": 2,
        }
        options = {
            **timeouts,
            # One more than calls in flight, because a call that was left behind may hold one.
            "max_connections": self._limits.connections_max + 1,
            "decode_responses": False,
            **({"socket_keepalive": True} if self._address.nodes else {}),
        }
        if self._address.kind == "sentinel":
            return _master_client(self._address, timeouts, options)
        return Redis.from_pool(ConnectionPool.from_url(self._address.url, **options))


def is_cancelled() -> bool:
    """Whether the current task is to end, also where redis-py has kept that to itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _MasterClient(Redis):
    """A client of the master; closing it also closes its connections to the sentinels."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        if isinstance(self.connection_pool, SentinelConnectionPool):
            await self.connection_pool.sentinel_manager.aclose()


def _master_client(
    address: RedisAddress, timeouts: dict[str, Any], options: dict[str, Any]
) -> "Redis":
    given: dict[str, Any] = dict(parse_url(address.url))
    for name in ("host", "port"):
        del given[name]
    if given.pop("connection_class", None) is SSLConnection:
        given["ssl"] = True
    transport = {name: value for name, value in given.items() if name.startswith("ssl")}
    login = {**timeouts, **transport, **address.sentinel_login}
    sentinels = Sentinel(address.nodes, sentinel_kwargs=login)  # type: ignore[no-untyped-call]
    client: Redis = sentinels.master_for(
        address.master, redis_class=_MasterClient, **given, **options
    )
    return client


async def _evaluate(client: "Redis", script: Script, values: Sequence[str | int]) -> Any:
    try:
        return await client.execute_command(  # type: ignore[no-untyped-call]
            "EVALSHA", script.sha, *values
        )
    except NoScriptError:  # a restarted or flushed server; EVAL also loads it
        return await client.execute_command(  # type: ignore[no-untyped-call]
            "EVAL", script.text, *values
        )


async def _asking(client: "Redis", script: Script, values: Sequence[str | int]) -> Any:
    async with client.pipeline(transaction=False) as both:  # on one connection
        both.execute_command("ASKING")
        both.execute_command("EVAL", script.text, *values)
        return (await both.execute())[-1]


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

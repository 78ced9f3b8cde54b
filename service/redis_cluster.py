"""Finds the server of a Redis Cluster that has a key, and goes on when the cluster changes.

Every master has connections and a breaker of its own, so that a lost master costs its own users
their state and nobody else. Which master has which slots is asked beside the calls, never within
one: at the start, and once a probe interval from a first failure or redirection until all is well.
That is why redis-py's own cluster client is not used: it asks inside a call that happens to fail,
which a short deadline then cuts off, together with all connections.
"""

import asyncio
import logging
import random
import time
from binascii import crc_hqx
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from service.errors import StateUnavailableError
from service.redis_address import Node, RedisAddress
from service.redis_server import ConnectionLimits, RedirectedError, RedisServer, Script

SLOTS: Final = 16_384
_START_SECONDS = 1.0
_REDIRECTIONS_MAX = 3
_LOGGER = logging.getLogger(__name__)


def slot_of(key: str) -> int:
    """Return the slot of a key: a checksum of what stands in its first braces, if anything."""
    content = key.encode()
    begin = content.find(b"{") + 1
    end = content.find(b"}", begin)
    tagged = content[begin:end] if 0 < begin < end else content
    return crc_hqx(tagged, 0) % SLOTS


class RedisCluster:
    """Runs each script on the master that has its keys, which must share a slot."""

    def __init__(
        self, address: RedisAddress, limits: ConnectionLimits, scripts: Sequence[Script]
    ) -> None:
        self._address = address
        self._limits = limits
        self._scripts = scripts
        self._nodes = address.nodes
        self._servers: dict[Node, RedisServer] = {}
        self._owners: list[Node | None] = [None] * SLOTS
        self._doubt = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def circuits(self) -> list[str]:
        """The state of every master's breaker; `open` for slots that no master is known of."""
        known = [server.circuit for server in self._servers.values()]
        return [*known, "open"] if None in self._owners else known

    async def start(self) -> None:
        """Connect; a cluster that is down is looked for later, after two seconds at most."""
        reason: str | None = "timeout"
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                reason = await self._look()
        if None in self._owners:
            facts = {"reason": reason or "some slots have no master"}
            _LOGGER.warning("redis_unavailable_at_start", extra=facts)
            self._doubt.set()
        await asyncio.gather(*(server.start() for server in self._servers.values()))
        self._spawn(self._follow())

    async def close(self) -> None:
        """Close all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_START_SECONDS)
        await asyncio.gather(*(server.close() for server in self._servers.values()))

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[str | int],
        *,
        deadline_seconds: float,
    ) -> Any:
        """Run the script where its keys are; as `RedisServer.run`."""
        until = time.monotonic() + deadline_seconds
        slot, is_moving = slot_of(keys[0]), False
        node = self._owners[slot]
        for _ in range(_REDIRECTIONS_MAX):
            if node is None:
                break
            try:
                return await self._server(node).run(
                    script,
                    keys,
                    arguments,
                    deadline_seconds=until - time.monotonic(),
                    is_moving=is_moving,
                )
            except RedirectedError as redirected:
                node, is_moving = _named(redirected.node, node), redirected.is_moving
                if not is_moving:
                    self._owners[slot] = node
                    self._doubt.set()
            except StateUnavailableError:
                self._doubt.set()
                raise
        self._doubt.set()
        raise StateUnavailableError("open" if node is None else "error")

    async def hear(self, channel: str, on_message: Callable[[], None]) -> None:
        """Call `on_message` after every message, until the connection fails.

        What is published on one node of a cluster is heard on all.
        """
        servers = list(self._servers.values())
        healthy = [server for server in servers if server.circuit == "closed"] or servers
        if healthy:
            await random.choice(healthy).hear(channel, on_message)  # noqa: S311 # nosec B311

    def _server(self, node: Node) -> RedisServer:
        if node not in self._servers:
            address = self._address.of_node(node)
            self._servers[node] = RedisServer(address, self._limits, self._scripts)
        return self._servers[node]

    async def _follow(self) -> None:
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            await self._look()
            await asyncio.sleep(self._limits.probe_interval_seconds)
            if set(self.circuits) != {"closed"}:
                self._doubt.set()

    async def _look(self) -> str | None:
        """Ask one node after the other who has what, until one answers; return why none did."""
        broken = {node for node, server in self._servers.items() if server.circuit != "closed"}
        nodes = dict.fromkeys((*self._nodes, *self._address.nodes))
        reason = None
        for node in sorted(nodes, key=lambda node: node in broken):
            server = RedisServer(self._address.of_node(node), self._limits, ())
            try:
                self._take(await server.slots(), node)
            except StateUnavailableError as error:
                reason = f"{node.host}:{node.port}: {error.__cause__ or error.reason}"
            else:
                return None
        return reason

    def _take(self, ranges: Any, asked: Node) -> None:
        """Do what CLUSTER SLOTS says: lists of first slot, last slot, master and replicas."""
        owners: list[Node | None] = [None] * SLOTS
        nodes: dict[Node, None] = {}
        for first, last, *holders in ranges:
            master, *replicas = (
                _named(Node((host or b"").decode(), port), asked) for host, port, *_ in holders
            )
            owners[first : last + 1] = [master] * (last + 1 - first)
            nodes |= dict.fromkeys((master, *replicas))
        masters = {owner for owner in owners if owner is not None}
        if owners != self._owners:
            _LOGGER.info("redis_cluster_changed", extra={"masters": len(masters)})
        self._nodes, self._owners = tuple(nodes), owners
        for node in self._servers.keys() - masters:
            self._spawn(self._servers.pop(node).close())
        for node in masters:
            self._server(node)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _named(node: Node, asked: Node) -> Node:
    """Return a node under the host that its neighbour was reached by, if it does not know its."""
    return node if node.host not in {"", "?"} else Node(asked.host, node.port)

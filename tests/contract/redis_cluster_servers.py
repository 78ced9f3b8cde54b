"""A real Redis Cluster of the tests' own: three masters, with a replica each where one is lost."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest
import redis

from service.redis_cluster import SLOTS, slot_of
from tests.contract.redis_server import (
    PASSWORD,
    USER,
    RedisServer,
    free_port,
    required_executable,
)
from tests.contract.redis_tls import Certificates

MASTERS = 3
NODE_TIMEOUT_MS = 1_000
FORMATION_SECONDS = 30.0
_BUS_OFFSET = 10_000


class ClusterServers:
    """Servers on free ports that form one cluster; masters come first in `servers`."""

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int,
        appendonly: bool = False,
        certificates: Certificates | None = None,
    ) -> None:
        """With `certificates` all of them talk with TLS, but to the tests."""
        self.servers: list[RedisServer] = []
        self._known_ports: list[int] = []
        for number in range(MASTERS * (1 + replicas)):
            own = folder / str(number)
            own.mkdir()
            options = [
                *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
                # A lost master is no reason to refuse what the others have.
                *("--cluster-require-full-coverage", "no"),
                *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
            ]
            known = port_with_bus()
            if certificates:
                options += ["--tls-cluster", "yes", *certificates.options(known)]
            server = RedisServer(
                required_executable(),
                own,
                appendonly=appendonly,
                options=options,
                port=free_port() if certificates else known,
            )
            self.servers.append(server)
            self._known_ports.append(known)
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._known_ports)
        self.url = f"redis+cluster://{USER}:{PASSWORD}@{hosts}"
        if certificates:
            self.url = certificates.url(self.url)

    def start(self) -> None:
        for server in self.servers:
            server.start()
        names = [str(_said(server, "CLUSTER", "MYID")) for server in self.servers]
        for epoch, server in enumerate(self.servers, start=1):
            _said(server, "CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for number, server in enumerate(self.masters):
            first, last = (SLOTS * one // MASTERS for one in (number, number + 1))
            _said(server, "CLUSTER", "ADDSLOTS", *range(first, last))
        for server in self.servers[1:]:
            _said(server, "CLUSTER", "MEET", "127.0.0.1", self._known_ports[0])
        self._wait_for("all know all", lambda server: server.known_nodes == len(self.servers))
        for number, server in enumerate(self.servers[MASTERS:]):
            _said(server, "CLUSTER", "REPLICATE", names[number % MASTERS])
        self._wait_for("the cluster is whole", lambda server: server.is_whole)

    def _wait_for(self, what: str, condition: Callable[["View"], bool]) -> None:
        give_up_at = time.monotonic() + FORMATION_SECONDS
        while not all(condition(View(server)) for server in self.servers):
            assert time.monotonic() < give_up_at, f"in vain for {FORMATION_SECONDS} s: {what}"
            time.sleep(0.02)

    @property
    def masters(self) -> list[RedisServer]:
        """Those that were masters at the beginning."""
        return self.servers[:MASTERS]

    def master_of(self, key: str) -> RedisServer:
        return self.masters[min(slot_of(key) * MASTERS // SLOTS, MASTERS - 1)]

    def is_served_without(self, lost: RedisServer) -> bool:
        """Whether all slots have a master again, as every other server sees it."""
        rest = [server for server in self.servers if server is not lost]
        views = [_said(server, "CLUSTER", "SLOTS") for server in rest]
        return all(
            sum(last - first + 1 for first, last, *_ in slots) == SLOTS
            and lost.port not in {master[1] for _, _, master, *_ in slots}
            for slots in views
        )

    @contextmanager
    def client(self) -> Iterator["redis.RedisCluster"]:
        client = redis.RedisCluster(host="127.0.0.1", port=self.servers[0].port, protocol=2)
        try:
            yield client
        finally:
            client.close()

    def all_keys(self) -> list[bytes]:
        return sorted(key for server in self.masters for key in server.all_keys())

    def flush(self) -> None:
        for server in self.masters:
            server.flush()

    def kill(self) -> None:
        for server in self.servers:
            server.kill()


class View:
    """What one server says of its cluster."""

    def __init__(self, server: RedisServer) -> None:
        said = str(_said(server, "CLUSTER", "INFO"))
        self._facts = dict(line.split(":", 1) for line in said.split())
        self._slots = _said(server, "CLUSTER", "SLOTS")
        self._replication = _said(server, "INFO", "replication")

    @property
    def known_nodes(self) -> int:
        return int(self._facts["cluster_known_nodes"])

    @property
    def is_whole(self) -> bool:
        """Whether all slots are served and every replica, of any master, follows it."""
        replicas = sum(len(holders) - 1 for _, _, *holders in self._slots)
        links = str(self._replication)
        return (
            self._facts["cluster_state"] == "ok"
            and sum(last - first + 1 for first, last, *_ in self._slots) == SLOTS
            and replicas == self.known_nodes - MASTERS
            and "master_link_status:down" not in links
        )


def _said(server: RedisServer, *command: str | int) -> Any:
    with redis.Redis(port=server.port, protocol=2) as client:
        connection = client.connection_pool.get_connection()
        connection.send_command(*command)
        said = connection.read_response()
        return said.decode() if isinstance(said, bytes) else said


def port_with_bus() -> int:
    """Return a port that is free together with that of the cluster's bus."""
    while True:
        port = SystemRandom().randrange(11_000, 22_000)
        with ExitStack() as sockets:
            try:
                for number in (port, port + _BUS_OFFSET):
                    sockets.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            return port


@contextmanager
def running_cluster(
    folder: Path, *, replicas: int = 0, appendonly: bool = False
) -> Iterator[ClusterServers]:
    """Run a cluster, or skip where there is no Redis."""
    cluster = ClusterServers(folder, replicas=replicas, appendonly=appendonly)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServers]:
    """A cluster shared by the session; leave it running and empty it before use."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def own_redis_cluster(tmp_path: Path) -> Iterator[ClusterServers]:
    """A cluster of one test, with replicas, which may kill its servers."""
    with running_cluster(tmp_path, replicas=1) as cluster:
        yield cluster

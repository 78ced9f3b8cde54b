"""A real master with two replicas and three sentinels of the tests' own."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.contract.redis_server import RedisServer, free_ports, required_executable
from tests.contract.redis_tls import Certificates

MASTER_NAME = "cofine"
SENTINELS = 3
DOWN_AFTER_MS = 500
READY_SECONDS = 30.0


class SentinelServers:
    """One master, two replicas and the sentinels that watch them."""

    def __init__(
        self, folder: Path, *, appendonly: bool = False, certificates: Certificates | None = None
    ) -> None:
        """With `certificates` all of them talk with TLS, but to the tests."""
        self._executable = required_executable()
        self._certificates = certificates
        self.servers: list[RedisServer] = []
        free = iter(free_ports(4 * SENTINELS))
        ports = [next(free) for _ in range(3)]
        known = [next(free) for _ in ports] if certificates else ports
        self._master_port = known[0]
        for number, port in enumerate(ports):
            own = folder / str(number)
            own.mkdir()
            options = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]
            if certificates:
                options += certificates.options(known[number])
            if number > 0:
                options += ["--replicaof", "127.0.0.1", str(self._master_port)]
            self.servers.append(
                RedisServer(
                    self._executable, own, appendonly=appendonly, options=options, port=port
                )
            )
        self._files = [folder / f"sentinel-{number}.conf" for number in range(SENTINELS)]
        self._ports = [next(free) for _ in self._files]
        self._tls_ports = [next(free) for _ in self._files if certificates]
        self._processes: list[subprocess.Popen[bytes]] = []
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._tls_ports or self._ports)
        self.url = f"redis+sentinel://{hosts}/{MASTER_NAME}"
        if certificates:
            self.url = certificates.url(self.url)

    @property
    def first_master(self) -> RedisServer:
        return self.servers[0]

    def start(self) -> None:
        for server in self.servers:
            server.start()
        for number, (file, port) in enumerate(zip(self._files, self._ports, strict=True)):
            watched = f"sentinel monitor {MASTER_NAME} 127.0.0.1 {self._master_port} 2"
            lines = [
                f"port {port}",
                "bind 127.0.0.1",
                f"dir {file.parent}",
                watched,
                f"sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}",
                f"sentinel failover-timeout {MASTER_NAME} 5000",
            ]
            if self._certificates:
                lines += self._certificates.settings(self._tls_ports[number])
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
            command = [self._executable, str(file), "--sentinel"]
            self._processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        give_up_at = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            assert time.monotonic() < give_up_at, "the sentinels do not find each other"
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            found = [self._watched(port) for port in self._ports]
        except redis.ConnectionError:
            return False
        return all(
            (one["num-other-sentinels"], one["num-slaves"]) == (SENTINELS - 1, 2)
            and one["flags"] == "master"
            for one in found
        )

    def _watched(self, port: int) -> dict[str, Any]:
        with redis.Redis(port=port, protocol=2) as client:
            found: Any = client.sentinel_master(MASTER_NAME)
            return dict(found)

    def is_replaced(self, lost: RedisServer) -> bool:
        """Whether any sentinel names another master: they learn of it up to two seconds apart."""
        return any(int(self._watched(port)["port"]) != lost.port for port in self._ports)

    def master_port(self) -> int:
        """Return the port of the master that the first sentinel knows."""
        return int(self._watched(self._ports[0])["port"])

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for server in self.servers:
            server.kill()


@contextmanager
def running_sentinels(folder: Path, *, appendonly: bool = False) -> Iterator[SentinelServers]:
    """Run them all, or skip where there is no Redis."""
    sentinels = SentinelServers(folder, appendonly=appendonly)
    try:
        sentinels.start()
        yield sentinels
    finally:
        sentinels.kill()


@pytest.fixture
def own_sentinels(tmp_path: Path) -> Iterator[SentinelServers]:
    """A master, replicas and sentinels of one test, which may kill any of them."""
    with running_sentinels(tmp_path) as sentinels:
        yield sentinels

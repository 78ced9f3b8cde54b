"""What docs/operations.md says of backups of Redis: its commands, run on real servers."""

import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import redis

from service.metrics import Metrics
from service.redis_connection import ConnectionLimits
from service.redis_user_state import RedisUserState
from service.user_state import Event, StateLimits, UserState, wall_clock_ms
from tests.contract.redis_cluster_servers import running_cluster
from tests.contract.redis_server import PASSWORD, RedisServer, free_ports, running_redis
from tests.required import skip_for_want_of

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 10.0
COMMAND_SECONDS = 60
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
AS_BACKUP = "export REDISCLI_AUTH=PASSWORD\nredis-cli -h HOST -p 6379 --user backup"
USERS = [f"user-{number}" for number in range(30)]


def documented(beginning: str, **places: object) -> str:
    """The block of commands that begins so, with what its places stand for here."""
    blocks = re.findall(r"^```\n(.+?)^```", OPERATIONS.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (block,) = (str(block) for block in blocks if str(block).startswith(beginning))
    for place, meant in places.items():
        assert place.lstrip("_") in block
        block = block.replace(place.lstrip("_"), str(meant))
    return block


def run(commands: str, folder: Path) -> None:
    """Run them in a shell, as who reads the page does."""
    for program in ("redis-server", "redis-cli"):
        if shutil.which(program) is None:
            skip_for_want_of("redis", f"install redis-server: {program} is not there")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],  # noqa: S607 (whichever is first)
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def add_backup_user(server: RedisServer) -> None:
    line = documented("ACL SETUSER backup", PASSWORD=PASSWORD)
    with server.client() as client:
        client.execute_command(*line.split())  # type: ignore[no-untyped-call]


@contextmanager
def ended_at_last(*ports: int) -> Iterator[None]:
    """End the servers that the commands left behind, whatever happened."""
    try:
        yield
    finally:
        for port in ports:
            with redis.Redis(port=port) as client:
                try:
                    client.shutdown(nosave=True)
                except redis.ConnectionError:
                    continue


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisUserState]:
    limits = ConnectionLimits(socket_timeout_seconds=DEADLINE_SECONDS)
    store = RedisUserState(url, StateLimits(), Metrics(), limits)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def some_events() -> list[Event]:
    return [Event(f"e{n}", f"i{n}", wall_clock_ms() - 1_000 + n) for n in range(5)]


async def written(store: RedisUserState, events: list[Event]) -> dict[str, UserState]:
    """What is stored of each user, after these events of all of them."""
    for user in USERS:
        await store.append(user, events, deadline_seconds=DEADLINE_SECONDS)
    return await read(store)


async def read(store: RedisUserState) -> dict[str, UserState]:
    return {user: await store.read(user, deadline_seconds=DEADLINE_SECONDS) for user in USERS}


async def test_a_restored_snapshot_is_the_state_as_it_was(tmp_path: Path) -> None:
    events = some_events()
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    with running_redis(old) as server:
        async with opened(server.url) as store:
            before = await written(store, events[:4])
        add_backup_user(server)
        places = {"HOST": "127.0.0.1", "_6379": server.port, "PASSWORD": PASSWORD}
        run(documented(f"{AS_BACKUP} --rdb", **places), new)

    (port,) = free_ports(1)
    with ended_at_last(port):
        run(documented("redis-server --port 6379 --appendonly no", FOLDER=new, _6379=port), new)
    (new / "state.rdb").unlink()  # what is read from now on is the append-only file
    with running_redis(new, appendonly=True) as server:
        async with opened(server.url) as store:
            assert await read(store) == before
            # What came after the snapshot is sent again, and counts once.
            again = await store.append("user-0", events[2:], deadline_seconds=DEADLINE_SECONDS)
    assert before["user-0"].events == 4
    assert again == ("duplicate", "duplicate", "accepted")


async def test_a_cluster_is_restored_from_the_snapshots_of_its_masters(tmp_path: Path) -> None:
    old, new, snapshots = (tmp_path / name for name in ("old", "new", "snapshots"))
    for folder in (old, new, snapshots):
        folder.mkdir()
    with running_cluster(old, replicas=1) as cluster:
        async with opened(cluster.url) as store:
            before = await written(store, some_events())
        for server in cluster.servers:
            add_backup_user(server)
        places = {"HOST": "127.0.0.1", "_6379": cluster.masters[0].port, "PASSWORD": PASSWORD}
        run(documented(f"{AS_BACKUP} cluster nodes", **places), snapshots)
    assert len(list(snapshots.iterdir())) == len(cluster.masters)

    (beside,) = free_ports(1)
    with running_cluster(new) as cluster, ended_at_last(beside):
        places = {"HOST": "127.0.0.1", "_6379": cluster.masters[0].port, "_7000": beside}
        run(documented("for snapshot in", FOLDER=snapshots, **places), snapshots)
        async with opened(cluster.url) as store:
            assert await read(store) == before

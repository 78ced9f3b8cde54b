"""What docs/operations.md says of backups of Redis: a snapshot, restored, is the users' state."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.metrics import Metrics
from service.redis_connection import ConnectionLimits
from service.redis_user_state import RedisUserState
from service.user_state import Event, StateLimits, wall_clock_ms
from tests.contract.redis_server import running_redis

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 10.0


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisUserState]:
    limits = ConnectionLimits(socket_timeout_seconds=DEADLINE_SECONDS)
    store = RedisUserState(url, StateLimits(), Metrics(), limits)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def test_a_restored_snapshot_is_the_state_as_it_was(tmp_path: Path) -> None:
    events = [Event(f"e{n}", f"i{n}", wall_clock_ms() - 1_000 + n) for n in range(5)]
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    with running_redis(old) as server:
        async with opened(server.url) as store:
            await store.append("ann", events[:4], deadline_seconds=DEADLINE_SECONDS)
            before = await store.read("ann", deadline_seconds=DEADLINE_SECONDS)
        with server.client() as client:
            client.save()
    shutil.copy(old / "dump.rdb", new)

    with running_redis(new) as server:
        async with opened(server.url) as store:
            assert await store.read("ann", deadline_seconds=DEADLINE_SECONDS) == before
            # What came after the snapshot is sent again, and counts once.
            again = await store.append("ann", events[2:], deadline_seconds=DEADLINE_SECONDS)
    assert before.events == 4
    assert again == ("duplicate", "duplicate", "accepted")

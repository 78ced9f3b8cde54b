"""Served lists in both stores: read back as they were kept, for 30 minutes."""

import pytest

from service.errors import StateUnavailableError
from service.served_lists import LIST_TTL_MS, MemoryLists
from tests.contract.test_user_state import DEADLINE_SECONDS, Clock, Suite, suite

__all__ = ["suite"]

pytestmark = pytest.mark.anyio


async def kept(suite: Suite, name: str, *items: str) -> None:
    await suite.store.keep_list(name, items, deadline_seconds=DEADLINE_SECONDS)


async def read(suite: Suite, name: str) -> tuple[str, ...] | None:
    return await suite.store.read_list(name, deadline_seconds=DEADLINE_SECONDS)


async def test_a_list_is_read_as_it_was_kept(suite: Suite) -> None:
    await kept(suite, "one", "b", "a", '\u00e9 |"{}')
    await kept(suite, "none")

    assert await read(suite, "one") == ("b", "a", '\u00e9 |"{}')
    assert await read(suite, "none") == ()
    assert await read(suite, "other") is None
    assert await read(suite, "one}:x") is None


async def test_a_list_is_no_users_state(suite: Suite) -> None:
    await kept(suite, "ann", "a")

    assert (await suite.read("ann")).events == 0
    await suite.erase("ann")
    assert await read(suite, "ann") == ("a",)


async def test_a_list_is_forgotten_in_time(suite: Suite) -> None:
    await kept(suite, "one", "a")

    if suite.server is not None:
        (key,) = suite.server.all_keys()
        with suite.server.client() as redis:
            assert LIST_TTL_MS - 60_000 < redis.pttl(key) <= LIST_TTL_MS
            redis.pexpire(key, 0)
    suite.clock.now_ms += LIST_TTL_MS - 1
    if suite.server is None:
        assert await read(suite, "one") == ("a",)
    suite.clock.now_ms += 1
    assert await read(suite, "one") is None


async def test_what_no_release_has_written_is_refused(suite: Suite) -> None:
    if suite.server is None:
        return
    await kept(suite, "one", "a")
    (key,) = suite.server.all_keys()
    for strange in ("5", "{", "\u00ff"):
        with suite.server.client() as redis:
            redis.set(key, strange)
        with pytest.raises(StateUnavailableError):
            await read(suite, "one")


def test_memory_drops_the_oldest_lists_beyond_its_bound() -> None:
    clock = Clock()
    lists = MemoryLists(5, clock)
    for name in "abc":
        lists.keep(name, ["x", "y"])

    assert [lists.read(name) for name in "abc"] == [None, ("x", "y"), ("x", "y")]
    assert lists.items == 4
    clock.now_ms += LIST_TTL_MS
    lists.keep("d", ["z"])
    assert lists.items == 1

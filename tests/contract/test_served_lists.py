"""Served lists in both stores: read back as they were kept, for 30 minutes."""

from typing import Any

import pytest

from service.errors import StateUnavailableError
from service.redis_user_state import lists_key
from service.served_lists import (
    ERASED_MS,
    LIST_ENTRIES,
    LIST_TTL_MS,
    USER_LISTS_MAX,
    MemoryLists,
)
from tests.contract.test_user_state import DEADLINE_SECONDS, Clock, Suite, suite
from tests.waiting import eventually

__all__ = ["suite"]

pytestmark = pytest.mark.anyio


async def kept(suite: Suite, name: str, *items: str, user: str | None = None) -> None:
    await suite.store.keep_list(user, name, items, deadline_seconds=DEADLINE_SECONDS)


async def read(suite: Suite, name: str, user: str | None = None) -> tuple[str, ...] | None:
    return await suite.store.read_list(user, name, deadline_seconds=DEADLINE_SECONDS)


async def test_a_list_is_read_as_it_was_kept(suite: Suite) -> None:
    await kept(suite, "one", "b", "a", '\u00e9 |"{}')
    await kept(suite, "none")

    assert await read(suite, "one") == ("b", "a", '\u00e9 |"{}')
    assert await read(suite, "none") == ()
    assert await read(suite, "other") is None
    assert await read(suite, "one}:x") is None


async def test_a_list_is_found_by_its_user_only(suite: Suite) -> None:
    await kept(suite, "one", "a", user="ann")
    await kept(suite, "two", "b")

    assert await read(suite, "one", "ann") == ("a",)
    for stranger in ("bob", "one", None):
        assert await read(suite, "one", stranger) is None
    assert await read(suite, "two", "ann") is None
    assert (await suite.read("ann")).events == 0


async def test_all_lists_of_a_user_are_told_newest_first(suite: Suite) -> None:
    await kept(suite, "one|\u00e9", "a", "b", user="ann")
    suite.clock.now_ms += 1_000
    await kept(suite, "two", user="ann")
    await kept(suite, "three", "c", user="bob")

    async def told(user: str) -> list[tuple[str, int, tuple[str, ...]]]:
        lists = await suite.store.lists_of(user, deadline_seconds=DEADLINE_SECONDS)
        return [(each.recommendation_id, each.expires_ms, each.items) for each in lists]

    end_ms = suite.clock.now_ms + LIST_TTL_MS
    assert await told("ann") == [("two", end_ms, ()), ("one|\u00e9", end_ms - 1_000, ("a", "b"))]
    assert await told("three") == []
    suite.clock.now_ms = end_ms - 1_000
    assert [name for name, _, _ in await told("ann")] == ["two"]
    await suite.erase("ann")
    assert await told("ann") == []


async def test_an_erasure_takes_the_users_lists_and_no_others(suite: Suite) -> None:
    await kept(suite, "one", "a", user="ann")
    await kept(suite, "two", "b", user="ann")
    await kept(suite, "three", "c", user="bob")
    await kept(suite, "ann", "d")

    await suite.erase("ann")

    assert [await read(suite, name, "ann") for name in ("one", "two")] == [None, None]
    assert await read(suite, "three", "bob") == ("c",)
    assert await read(suite, "ann") == ("d",)


async def test_what_is_kept_late_does_not_outlive_an_erasure(suite: Suite) -> None:
    await kept(suite, "one", "a", user="ann")
    await suite.erase("ann")
    await kept(suite, "two", "b", user="ann")
    await kept(suite, "three", "c", user="bob")
    assert await read(suite, "two", "ann") is None
    assert await read(suite, "three", "bob") == ("c",)

    assert await suite.store.lists_of("ann", deadline_seconds=DEADLINE_SECONDS) == ()

    async def is_kept_again() -> bool:
        await kept(suite, "four", "d", user="ann")
        return await read(suite, "four", "ann") == ("d",)

    suite.clock.now_ms += ERASED_MS  # of Redis its own clock counts
    await eventually(is_kept_again, "the mark of the erasure expires")


async def test_the_newest_lists_of_a_user_are_kept(suite: Suite) -> None:
    for number in range(USER_LISTS_MAX + 2):
        await kept(suite, f"list {number}", str(number), user="ann")

    found = [await read(suite, f"list {number}", "ann") for number in range(USER_LISTS_MAX + 2)]
    assert found == [None, None, *((str(number),) for number in range(2, USER_LISTS_MAX + 2))]


async def test_a_list_is_forgotten_in_time(suite: Suite) -> None:
    await kept(suite, "one", "a")

    if suite.server is not None:
        (key,) = suite.server.all_keys()
        with suite.server.client() as redis:
            assert LIST_TTL_MS - 60_000 < redis.pttl(key) <= LIST_TTL_MS
    suite.clock.now_ms += LIST_TTL_MS - 1
    assert await read(suite, "one") == ("a",)
    suite.clock.now_ms += 1
    assert await read(suite, "one") is None


async def test_what_no_release_has_written_is_refused(suite: Suite) -> None:
    if suite.server is None:
        return
    await kept(suite, "one", "a")
    key = lists_key(None, "one")
    with suite.server.client() as client:
        redis: Any = client  # whose types know no answers in bytes
        (entry,) = redis.lrange(key, 0, -1)
        name, expires, items = entry.split(b" ")
        strange_items = [(expires, strange) for strange in (b"5", b"{", b"\xff", b"")]
        strange_times = [(strange, items) for strange in (b"one", b"-", b"")]
        for written in strange_items + strange_times:
            redis.lset(key, 0, b" ".join((name, *written)))
            with pytest.raises(StateUnavailableError):
                await read(suite, "one")
        redis.set(key, entry)
    with pytest.raises(StateUnavailableError):
        await read(suite, "one")


def test_memory_drops_the_oldest_lists_beyond_its_bound() -> None:
    clock = Clock()
    lists = MemoryLists(2 * (LIST_ENTRIES + 2), clock)
    for name in "abc":
        lists.keep(None, name, ["x", "y"])

    assert [lists.read(None, name) for name in "abc"] == [None, ("x", "y"), ("x", "y")]
    assert lists.entries == 2 * (LIST_ENTRIES + 2)
    clock.now_ms += LIST_TTL_MS
    lists.keep(None, "d", ["z"])
    assert lists.entries == LIST_ENTRIES + 1


def test_memory_bounds_lists_without_items() -> None:
    lists = MemoryLists(100 * LIST_ENTRIES, Clock())
    for number in range(1_000):
        lists.keep(None, str(number), [])

    kept = [number for number in range(1_000) if lists.read(None, str(number)) is not None]
    assert kept == list(range(900, 1_000))


def test_memory_counts_what_a_user_displaces_and_what_is_forgotten() -> None:
    lists = MemoryLists(1_000, Clock())
    for number in range(USER_LISTS_MAX + 5):
        lists.keep("ann", str(number), ["x", "y"])
    lists.keep("bob", "0", ["z"])

    assert lists.entries == USER_LISTS_MAX * (LIST_ENTRIES + 2) + LIST_ENTRIES + 1
    lists.forget("ann")
    lists.forget("nobody")
    assert lists.entries == LIST_ENTRIES + 1

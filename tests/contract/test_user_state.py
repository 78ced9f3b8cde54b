"""What every user state store must do: in memory, on a real Redis server and a real cluster."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.metrics import Metrics
from service.redis_connection import ConnectionLimits
from service.redis_user_state import RedisUserState
from service.user_state import (
    Event,
    HistoryEntry,
    MemoryUserState,
    Outcome,
    StateLimits,
    UserState,
    UserStateStore,
    wall_clock_ms,
)
from tests.contract.redis_cluster_servers import ClusterServers
from tests.contract.redis_server import RedisServer
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

# Generous: these tests are about meaning, and the machine may be busy.
DEADLINE_SECONDS = 10.0
LIMITS = StateLimits(
    history_max_items=4, seen_max_items=6, event_ids_max=100, event_id_window_ms=60_000
)
StoreFactory = Callable[..., UserStateStore]


@dataclass
class Clock:
    now_ms: int = field(default_factory=wall_clock_ms)

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class Suite:
    """A store under test, its clock, and how to make another view of the same data."""

    store: UserStateStore
    clock: Clock
    server: RedisServer | ClusterServers | None

    async def append(self, user_id: str, *events: Event) -> tuple[Outcome, ...]:
        return await self.store.append(user_id, events, deadline_seconds=DEADLINE_SECONDS)

    async def read(self, user_id: str) -> UserState:
        return await self.store.read(user_id, deadline_seconds=DEADLINE_SECONDS)

    async def event_ids(self, user_id: str) -> tuple[str, ...]:
        return await self.store.event_ids(user_id, deadline_seconds=DEADLINE_SECONDS)

    async def erase(self, user_id: str) -> None:
        await self.store.erase(user_id, deadline_seconds=DEADLINE_SECONDS)

    async def items(self, user_id: str) -> list[str]:
        return [entry.item_id for entry in (await self.read(user_id)).history]


def redis_store(
    server: RedisServer | ClusterServers, limits: StateLimits, clock: Clock
) -> RedisUserState:
    patient = ConnectionLimits(socket_timeout_seconds=DEADLINE_SECONDS)
    return RedisUserState(server.url, limits, Metrics(), patient, clock_ms=clock)


@pytest.fixture(params=["memory", "redis_server", "redis_cluster"])
async def suite(request: pytest.FixtureRequest) -> AsyncIterator[Suite]:
    clock = Clock()
    server: RedisServer | ClusterServers | None = None
    store: UserStateStore
    if request.param == "memory":
        store = MemoryUserState(LIMITS, clock_ms=clock)
    else:
        server = request.getfixturevalue(request.param)
        assert server is not None
        server.flush()
        store = redis_store(server, LIMITS, clock)
    await store.start()
    yield Suite(store, clock, server)
    await store.close()


def event(name: str, item: str, at_ms: int = 1_000, kind: str = "view") -> Event:
    return Event(event_id=name, item_id=item, timestamp_ms=at_ms, type=kind)


async def test_an_unknown_user_has_an_empty_state(suite: Suite) -> None:
    assert await suite.read("nobody") == UserState()
    assert suite.store.is_available


async def test_what_was_appended_is_read(suite: Suite) -> None:
    outcomes = await suite.append(
        "u", event("1", "shoe", 1_700_000_000_123, "view"), event("2", "hat", 1_700_000_000_124)
    )
    assert outcomes == ("accepted", "accepted")
    state = await suite.read("u")
    assert state.history == (
        HistoryEntry("shoe", 1_700_000_000_123, "view"),
        HistoryEntry("hat", 1_700_000_000_124, "view"),
    )
    assert set(state.seen) == {"shoe", "hat"}
    assert state.events == 2


async def test_no_events_are_no_change(suite: Suite) -> None:
    assert await suite.append("u") == ()
    assert await suite.read("u") == UserState()


async def test_an_event_id_counts_once(suite: Suite) -> None:
    assert await suite.append("u", event("1", "shoe"), event("1", "hat")) == (
        "accepted",
        "duplicate",
    )
    before = await suite.read("u")
    assert await suite.append("u", event("1", "coat", 9_000)) == ("duplicate",)
    assert await suite.read("u") == before
    assert await suite.items("u") == ["shoe"]


async def test_event_ids_of_users_are_unrelated(suite: Suite) -> None:
    assert await suite.append("u", event("1", "shoe")) == ("accepted",)
    assert await suite.append("v", event("1", "hat")) == ("accepted",)
    assert await suite.items("u") == ["shoe"]


async def test_an_event_id_is_forgotten_after_the_window(suite: Suite) -> None:
    await suite.append("u", event("1", "shoe"))
    suite.clock.now_ms += LIMITS.event_id_window_ms - 1
    assert await suite.append("u", event("1", "shoe")) == ("duplicate",)
    suite.clock.now_ms += 1
    assert await suite.append("u", event("1", "shoe")) == ("accepted",)


async def test_only_the_last_event_ids_are_remembered(suite: Suite) -> None:
    await suite.append("u", event("first", "shoe"))
    suite.clock.now_ms += 1
    await suite.append("u", *(event(f"{n:03}", "hat") for n in range(LIMITS.event_ids_max)))
    assert await suite.append("u", event("000", "hat")) == ("duplicate",)
    assert await suite.append("u", event("first", "shoe")) == ("accepted",)


async def test_concurrent_duplicates_are_stored_exactly_once(suite: Suite) -> None:
    outcomes = await asyncio.gather(*(suite.append("u", event("1", "shoe")) for _ in range(25)))
    assert sorted(outcomes) == [("accepted",)] + [("duplicate",)] * 24
    assert await suite.items("u") == ["shoe"]


async def test_concurrent_events_are_all_kept(suite: Suite) -> None:
    await asyncio.gather(*(suite.append("u", event(str(n), f"i{n}", n)) for n in range(25)))
    assert await suite.items("u") == ["i21", "i22", "i23", "i24"]
    assert (await suite.read("u")).events == 25


async def test_a_late_event_is_put_in_its_place(suite: Suite) -> None:
    await suite.append("u", event("1", "first", 1_000), event("2", "third", 3_000))
    await suite.append("u", event("3", "second", 2_000))
    assert await suite.items("u") == ["first", "second", "third"]


async def test_events_of_one_time_keep_the_order_of_arrival(suite: Suite) -> None:
    await suite.append("u", event("1", "z"), event("2", "a"))
    await suite.append("u", event("3", "m"))
    assert await suite.items("u") == ["z", "a", "m"]


async def test_the_newest_events_stay_in_the_history(suite: Suite) -> None:
    await suite.append("u", *(event(str(n), f"i{n}", n) for n in range(7)))
    assert await suite.items("u") == ["i3", "i4", "i5", "i6"]
    assert await suite.append("u", event("late", "old", 1)) == ("accepted",)
    assert await suite.items("u") == ["i3", "i4", "i5", "i6"]


async def test_the_most_recently_seen_items_are_remembered(suite: Suite) -> None:
    await suite.append("u", *(event(str(n), f"i{n}", n) for n in range(8)))
    assert set((await suite.read("u")).seen) == {f"i{n}" for n in range(2, 8)}
    await suite.append("u", event("again", "i2", 100), event("new", "i8", 101))
    assert set((await suite.read("u")).seen) == {"i2", *(f"i{n}" for n in range(4, 9))}


async def test_a_late_event_does_not_age_a_seen_item(suite: Suite) -> None:
    await suite.append("u", event("1", "shoe", 500), event("2", "shoe", 1))
    await suite.append("u", *(event(f"x{n}", f"i{n}", 100 + n) for n in range(6)))
    assert "shoe" in (await suite.read("u")).seen


async def test_a_dislike_is_kept_apart_from_history_and_seen_items(suite: Suite) -> None:
    await suite.append("u", event("1", "shoe", 1_000), event("2", "hat", 2_000, "dislike"))
    state = await suite.read("u")
    assert [entry.item_id for entry in state.history] == ["shoe"]
    assert state.seen == ("shoe",)
    assert state.disliked == ("hat",)
    assert state.events == 2
    assert await suite.append("u", event("2", "hat", 2_000, "dislike")) == ("duplicate",)


async def test_a_dislike_takes_nothing_back_and_is_not_taken_back(suite: Suite) -> None:
    await suite.append("u", event("1", "hat"), event("2", "hat", 2_000, "dislike"))
    await suite.append("u", event("3", "hat", 3_000))
    state = await suite.read("u")
    assert [entry.timestamp_ms for entry in state.history] == [1_000, 3_000]
    assert (state.seen, state.disliked) == (("hat",), ("hat",))


async def test_the_most_recently_disliked_items_are_remembered(suite: Suite) -> None:
    await suite.append("u", *(event(str(n), f"i{n}", n, "dislike") for n in range(8)))
    assert set((await suite.read("u")).disliked) == {f"i{n}" for n in range(2, 8)}


async def test_the_version_grows_with_accepted_events_only(suite: Suite) -> None:
    await suite.append("u", event("1", "shoe"))
    first = (await suite.read("u")).version
    await suite.append("u", event("1", "shoe"))
    assert (await suite.read("u")).version == first
    await suite.append("u", event("2", "hat"), event("3", "coat"))
    assert (await suite.read("u")).version == first + 2


async def test_the_version_does_not_repeat_after_an_erasure(suite: Suite) -> None:
    await suite.append("u", event("1", "shoe"))
    before = (await suite.read("u")).version
    await suite.erase("u")
    suite.clock.now_ms += 1
    await suite.append("u", event("1", "shoe"))
    assert (await suite.read("u")).version > before


async def test_the_event_ids_of_a_user_are_told(suite: Suite) -> None:
    await suite.append("u", event("1", "shoe"), event("2 é|\n", "hat"))
    await suite.append("v", event("3", "hat"))
    assert sorted(await suite.event_ids("u")) == ["1", "2 é|\n"]
    await suite.erase("u")
    assert await suite.event_ids("u") == ()


async def test_erasure_is_total(suite: Suite) -> None:
    await suite.append("u", event("1", "shoe"), event("2", "coat", 1, "dislike"))
    await suite.append("v", event("1", "hat"))
    await suite.erase("u")
    await suite.erase("nobody")
    assert await suite.read("u") == UserState()
    assert await suite.items("v") == ["hat"]
    assert await suite.append("u", event("1", "shoe")) == ("accepted",)
    await suite.erase("u")
    await suite.erase("v")
    if suite.server is not None:
        server = suite.server

        async def nothing_is_left() -> bool:
            return server.all_keys() == []

        await eventually(nothing_is_left, "the marks of the erasures expire")


async def test_a_user_without_events_is_forgotten(suite: Suite) -> None:
    await suite.append("u", event("1", "shoe"), event("2", "coat", 1, "dislike"))
    ttl_ms = LIMITS.ttl_ms
    if suite.server is None:
        suite.clock.now_ms += round(0.89 * ttl_ms)
        assert await suite.items("u") == ["shoe"]
        suite.clock.now_ms += round(0.22 * ttl_ms)
        assert await suite.read("u") == UserState()
        return
    with suite.server.client() as client:
        left = {key.split(b":")[-2]: client.pttl(key) for key in suite.server.all_keys()}
    assert set(left) == {b"history", b"seen", b"disliked", b"event_ids", b"meta"}
    assert left[b"event_ids"] <= LIMITS.event_id_window_ms
    for what in (b"history", b"seen", b"disliked", b"meta"):
        assert 0.89 * ttl_ms < left[what] <= 1.1 * ttl_ms


async def test_the_time_to_live_varies() -> None:
    found = {LIMITS.jittered_ttl_ms() for _ in range(20)}
    assert len(found) > 1
    assert all(0.9 * LIMITS.ttl_ms <= ttl <= 1.1 * LIMITS.ttl_ms for ttl in found)


@pytest.mark.parametrize(
    "user_id",
    ["{u}", "}{", "a:b", "zoë 🧣", "line\nbreak", "nul\x00", "x" * 10_000, " ", "*", "../..", "|"],
)
async def test_odd_user_ids_are_kept_apart(suite: Suite, user_id: str) -> None:
    await suite.append(user_id, event("1", "shoe"))
    await suite.append(user_id + "!", event("1", "hat"))
    assert await suite.items(user_id) == ["shoe"]
    await suite.erase(user_id)
    assert await suite.read(user_id) == UserState()
    assert await suite.items(user_id + "!") == ["hat"]


@pytest.mark.parametrize("item_id", ["|", "a|b|c", "0" * 32, "é🧣", "line\nbreak", "x" * 5_000])
async def test_odd_item_ids_come_back(suite: Suite, item_id: str) -> None:
    await suite.append("u", event("1", item_id, 5, "add.to_cart-2"))
    state = await suite.read("u")
    assert state.history == (HistoryEntry(item_id, 5, "add.to_cart-2"),)
    assert state.seen == (item_id,)


async def test_all_keys_of_a_user_share_one_hash_tag(suite: Suite) -> None:
    if suite.server is None:
        return
    await suite.append("a{b}c", event("1", "shoe"), event("2", "coat", 1, "dislike"))
    keys = suite.server.all_keys()
    assert len(keys) == 5
    with suite.server.client() as client:
        slots = {key.split(b"{")[1].split(b"}")[0] for key in keys}
        assert {client.type(key) for key in keys} == {b"zset", b"hash"}
    assert len(slots) == 1
    assert all(key.startswith(b"cofine:{u:") and key.endswith(b":1") for key in keys)


async def test_two_views_of_one_redis_agree(redis_server: RedisServer) -> None:
    redis_server.flush()
    clock = Clock()
    views = [redis_store(redis_server, LIMITS, clock) for _ in range(2)]
    for view in views:
        await view.start()
    outcomes = await asyncio.gather(
        *(
            view.append("u", [event("1", "shoe")], deadline_seconds=DEADLINE_SECONDS)
            for view in views * 10
        )
    )
    assert sorted(outcomes) == [("accepted",)] + [("duplicate",)] * 19
    for view in views:
        await view.close()


async def test_memory_is_bounded_by_forgetting_the_longest_unused() -> None:
    store = MemoryUserState(StateLimits(), max_entries=9)  # an event makes three entries
    for user in ("a", "b", "c"):
        await store.append(user, [event("1", "shoe")], deadline_seconds=1)
    await store.read("a", deadline_seconds=1)
    await store.append("d", [event("1", "shoe")], deadline_seconds=1)
    known = [user for user in "abcd" if (await store.read(user, deadline_seconds=1)).history]
    assert known == ["a", "c", "d"]


@dataclass
class SimpleModel:
    """The store's meaning in the fewest words: keep everything, cut when read."""

    accepted: list[Event] = field(default_factory=list)

    def append(self, events: list[Event]) -> tuple[Outcome, ...]:
        outcomes: list[Outcome] = []
        for each in events:
            if each.event_id in {known.event_id for known in self.accepted}:
                outcomes.append("duplicate")
            else:
                self.accepted.append(each)
                outcomes.append("accepted")
        return tuple(outcomes)

    def history(self) -> list[str]:
        kept = [each for each in self.accepted if each.type != "dislike"]
        ordered = sorted(kept, key=lambda each: each.timestamp_ms)  # stable
        return [each.item_id for each in ordered][-LIMITS.history_max_items :]

    def items(self, *, disliked: bool) -> set[str]:
        newest: dict[str, int] = {}
        for each in self.accepted:
            if (each.type == "dislike") != disliked:
                continue
            newest[each.item_id] = max(newest.get(each.item_id, 0), each.timestamp_ms)
        ranked = sorted(newest, key=lambda item: (newest[item], item.encode()))
        return set(ranked[-LIMITS.seen_max_items :])


EVENTS = st.builds(
    Event,
    event_id=st.integers(0, 15).map(str),
    item_id=st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "é", "🧣", "a|b"]),
    timestamp_ms=st.integers(0, 6),
    type=st.sampled_from(["view", "purchase", "dislike"]),
)
STEPS = st.lists(st.one_of(st.just("erase"), st.lists(EVENTS, max_size=5)), max_size=8)
USER_NUMBERS = itertools.count()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
async def test_any_sequence_means_what_the_simple_model_means(
    suite: Suite, steps: list[Any]
) -> None:
    user_id = f"user {next(USER_NUMBERS)}"
    model = SimpleModel()
    for step in steps:
        if step == "erase":
            await suite.erase(user_id)
            model = SimpleModel()
        else:
            assert await suite.append(user_id, *step) == model.append(step)
        state = await suite.read(user_id)
        assert [entry.item_id for entry in state.history] == model.history()
        assert sorted(state.seen) == sorted(model.items(disliked=False))
        assert sorted(state.disliked) == sorted(model.items(disliked=True))
        assert state.events == len(model.accepted)


def test_limits_are_a_value() -> None:
    assert replace(LIMITS, ttl_ms=5).jittered_ttl_ms() in {4, 5, 6}

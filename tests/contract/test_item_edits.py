"""What every store of the catalogue's edits must do; on the one in memory and on a real Redis."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from service import item_edits, redis_item_edits
from service.errors import CatalogueFullError, CatalogueUnavailableError
from service.item_edits import PARTS, START, Change, EditStore, MemoryEdits, Parts, Position
from service.metrics import Metrics
from service.redis_connection import ConnectionLimits, RedisConnection
from service.redis_item_edits import RedisEdits
from tests.contract.redis_server import RedisServer
from tests.waiting import WAIT_SECONDS

pytestmark = pytest.mark.anyio

ODD_IDS = ["a:b", "item:a", "{catalogue}", "é 🦊", "*", "a" * 256]


@asynccontextmanager
async def on_redis(server: RedisServer) -> AsyncIterator[RedisEdits]:
    limits = ConnectionLimits(socket_timeout_seconds=20.0, probe_interval_seconds=0.01)
    connection = RedisConnection(server.url, limits, Metrics(), ())
    await connection.start()
    store = RedisEdits(connection, deadline_seconds=20.0)
    await store.start()
    yield store
    await store.close()
    await connection.close()


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[EditStore]:
    if request.param == "memory":
        yield MemoryEdits()
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    server.flush()
    async with on_redis(server) as store:
        yield store


class Reader:
    """Knows what it has read."""

    def __init__(self, store: EditStore) -> None:
        self.store = store
        self.position = START
        self.parts: dict[str, Parts] = {}

    async def look(self) -> None:
        update = await self.store.read(self.position)
        if update is not None:
            self.parts = ({} if update.is_whole else self.parts) | dict(update.parts)
            self.position = update.position


async def test_there_is_nothing_at_first(store: EditStore) -> None:
    assert await store.read(START) is None


async def test_what_was_written_is_read_and_told_once(store: EditStore) -> None:
    position = await store.write([Change("a", "item", '{"title":"A"}'), Change("a", "offer", "{}")])
    assert position.version == 1

    update = await store.read(START)
    assert update is not None
    assert update.position == position
    assert update.parts == {"a": {"item": '{"title":"A"}', "offer": "{}"}}
    again = await store.read(position)
    assert again is not None
    assert (again.parts, again.is_whole) == ({}, False)


async def test_parts_change_independently(store: EditStore) -> None:
    reader = Reader(store)
    for change in [
        Change("a", "item", "one"),
        Change("a", "hidden", "true"),
        Change("a", "item", "two"),
        Change("b", "offer", "three"),
        Change("a", "hidden", None),
    ]:
        await store.write([change])
        await reader.look()

    assert reader.parts == {"a": {"item": "two"}, "b": {"offer": "three"}}
    assert reader.position.version == 5


@pytest.mark.parametrize("item_id", ODD_IDS)
async def test_any_id_is_just_an_id(store: EditStore, item_id: str) -> None:
    await store.write([Change("a", "item", "other"), Change(item_id, "hidden", "true")])
    await store.write([Change(item_id, "hidden", None)])
    reader = Reader(store)
    await reader.look()
    assert reader.parts == {"a": {"item": "other"}}


async def test_a_reader_learns_that_an_item_is_forgotten(store: EditStore) -> None:
    await store.write([Change("a", "hidden", "true"), Change("b", "hidden", "true")])
    reader = Reader(store)
    await reader.look()

    await store.write([Change("a", part, None) for part in PARTS])
    await reader.look()

    assert reader.parts == {"b": {"hidden": "true"}}


async def test_more_than_is_kept_is_refused_whole(
    store: EditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (item_edits, redis_item_edits):
        monkeypatch.setattr(module, "EDITED_ITEMS_MAX", 2)
        monkeypatch.setattr(module, "EDITS_MAX_BYTES", 20)
    await store.write([Change("a", "item", "12345"), Change("b", "item", "12345")])

    for refused in (
        [Change("a", "hidden", "true"), Change("c", "hidden", "true")],
        [Change("a", "item", "x" * 16)],
    ):
        with pytest.raises(CatalogueFullError, match=":reset"):
            await store.write(refused)

    reader = Reader(store)
    await reader.look()
    assert reader.parts == {"a": {"item": "12345"}, "b": {"item": "12345"}}
    assert reader.position.version == 1
    await store.write([Change("a", "item", "x" * 15)])
    await store.write([Change("b", "item", None)])
    await store.write([Change("c", "item", "12345")])


def drawn(chance: random.Random) -> list[Change]:
    items = chance.sample("abcde", chance.randint(1, 3))
    return [
        Change(item, part, chance.choice([None, f"{chance.random()}"]))
        for item in items
        for part in chance.sample(PARTS, chance.randint(1, 3))
    ]


def said(writes: Sequence[Sequence[Change]]) -> Mapping[str, Parts]:
    """The meaning: the newest text of each part."""
    texts = {(each.item_id, each.part): each.text for write in writes for each in write}
    found: dict[str, dict[item_edits.Part, str]] = {}
    for (item_id, part), text in texts.items():
        if text is not None:
            found.setdefault(item_id, {})[part] = text
    return found


@pytest.mark.parametrize("seed", range(20))
async def test_readers_who_look_at_any_time_know_the_same(store: EditStore, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    readers = [Reader(store) for _ in range(3)]
    writes: list[list[Change]] = []
    for _ in range(12):
        writes.append(drawn(chance))
        await store.write(writes[-1])
        for reader in readers:
            if chance.random() < 0.4:
                await reader.look()
                assert reader.parts == said(writes)
    for reader in readers:
        await reader.look()
        assert reader.parts == said(writes)
        assert reader.position == readers[0].position


async def test_writes_at_the_same_time_have_a_version_each(store: EditStore) -> None:
    positions = await asyncio.gather(
        *(store.write([Change(f"item {n}", "hidden", "true")]) for n in range(20))
    )
    assert sorted(position.version for position in positions) == [*range(1, 21)]
    update = await store.read(START)
    assert update is not None
    assert len(update.parts) == 20


async def test_a_change_is_heard_elsewhere_at_once(redis_server: RedisServer) -> None:
    redis_server.flush()
    async with on_redis(redis_server) as here, on_redis(redis_server) as there:
        await there.wait_for_change(WAIT_SECONDS)  # that it listens now
        position = await here.write([Change("a", "hidden", "true")])
        started = asyncio.get_running_loop().time()
        await there.wait_for_change(10 * WAIT_SECONDS)
        assert asyncio.get_running_loop().time() - started < WAIT_SECONDS
        update = await there.read(START)
        assert update is not None
        assert update.position == position


async def test_an_emptied_server_is_given_back_what_a_reader_knows(
    redis_server: RedisServer,
) -> None:
    redis_server.flush()
    async with on_redis(redis_server) as store:
        for write in ([Change("a", "item", "1")], [Change("b", "hidden", "true")]):
            await store.write(write)
        reader, late = Reader(store), Reader(store)
        await reader.look()
        redis_server.flush()
        assert await store.read(reader.position) is None

        await store.restore(reader.position, reader.parts)
        await store.restore(Position(reader.position.store, 1), {"a": {"item": "1"}})

        await late.look()
        assert (late.parts, late.position) == (reader.parts, reader.position)
        assert (await store.write([Change("c", "item", "1")])).version == 3
        await store.restore(Position("another", 9), {})
        await late.look()
        assert late.parts == {**reader.parts, "c": {"item": "1"}}


async def test_a_server_put_back_to_an_earlier_state_is_brought_forward(
    redis_server: RedisServer,
) -> None:
    redis_server.flush()
    async with on_redis(redis_server) as store:
        first = await store.write([Change("a", "item", "1")])
        known = Position(first.store, 5)
        update = await store.read(known)
        assert update is not None
        assert update.position.version == 1

        await store.restore(known, {"b": {"item": "2"}})

        reader = Reader(store)
        await reader.look()
        assert (reader.parts, reader.position) == ({"b": {"item": "2"}}, known)


async def test_without_a_server_nothing_is_accepted(own_redis_server: RedisServer) -> None:
    async with on_redis(own_redis_server) as store:
        await store.write([Change("a", "hidden", "true")])
        own_redis_server.kill()
        with pytest.raises(CatalogueUnavailableError):
            await store.write([Change("a", "hidden", None)])
        with pytest.raises(CatalogueUnavailableError):
            await store.read(START)


async def test_what_nobody_here_has_written_is_not_followed(redis_server: RedisServer) -> None:
    redis_server.flush()
    async with on_redis(redis_server) as store:
        await store.write([Change("a", "hidden", "true")])
        with redis_server.client() as client:
            client.zadd("cofine:{catalogue}:1:order", {b"\xff\xfe": 7})
        with pytest.raises(CatalogueUnavailableError):
            await store.read(START)
        with redis_server.client() as client:
            client.set("cofine:{catalogue}:1:head", "text")
        with pytest.raises(CatalogueUnavailableError):
            await store.write([Change("a", "hidden", None)])

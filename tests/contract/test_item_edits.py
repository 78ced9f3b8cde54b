"""What every store of the catalogue's edits must do; on the one in memory and on a real Redis."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from service import item_edits, redis_item_edits
from service.errors import CatalogueFullError, CatalogueUnavailableError
from service.item_edits import (
    PARTS,
    START,
    Change,
    EditsLostError,
    EditStore,
    MemoryEdits,
    Parts,
    Position,
)
from service.metrics import Metrics
from service.redis_connection import ConnectionLimits, RedisConnection
from service.redis_item_edits import RedisEdits
from tests.contract.redis_cluster_servers import ClusterServers
from tests.contract.redis_server import RedisServer
from tests.waiting import WAIT_SECONDS

pytestmark = pytest.mark.anyio

ODD_IDS = ["a:b", "item:a", "{catalogue}", "é 🦊", "*", "a" * 256]


@asynccontextmanager
async def on_redis(server: RedisServer | ClusterServers) -> AsyncIterator[RedisEdits]:
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
    position = await store.write(
        [Change("a", "item", '{"title":"A"}'), Change("a", "offer", "{}")], START
    )
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
        await store.write([change], START)
        await reader.look()

    assert reader.parts == {"a": {"item": "two"}, "b": {"offer": "three"}}
    assert reader.position.version == 5


@pytest.mark.parametrize("item_id", ODD_IDS)
async def test_any_id_is_just_an_id(store: EditStore, item_id: str) -> None:
    await store.write([Change("a", "item", "other"), Change(item_id, "hidden", "true")], START)
    await store.write([Change(item_id, "hidden", None)], START)
    reader = Reader(store)
    await reader.look()
    assert reader.parts == {"a": {"item": "other"}}


async def test_a_reader_learns_that_an_item_is_forgotten(store: EditStore) -> None:
    await store.write([Change("a", "hidden", "true"), Change("b", "hidden", "true")], START)
    reader = Reader(store)
    await reader.look()

    await store.write([Change("a", part, None) for part in PARTS], START)
    await reader.look()

    assert reader.parts == {"b": {"hidden": "true"}}


async def test_more_than_is_kept_is_refused_whole(
    store: EditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (item_edits, redis_item_edits):
        monkeypatch.setattr(module, "EDITED_ITEMS_MAX", 2)
        monkeypatch.setattr(module, "EDITS_MAX_BYTES", 20)
    await store.write([Change("a", "item", "12345"), Change("b", "item", "12345")], START)

    for refused in (
        [Change("a", "hidden", "true"), Change("c", "hidden", "true")],
        [Change("a", "item", "x" * 16)],
    ):
        with pytest.raises(CatalogueFullError, match=":reset"):
            await store.write(refused, START)

    reader = Reader(store)
    await reader.look()
    assert reader.parts == {"a": {"item": "12345"}, "b": {"item": "12345"}}
    assert reader.position.version == 1
    await store.write([Change("a", "item", "x" * 15)], START)
    await store.write([Change("b", "item", None)], START)
    await store.write([Change("c", "item", "12345")], START)


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
        await store.write(writes[-1], START)
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
        *(store.write([Change(f"item {n}", "hidden", "true")], START) for n in range(20))
    )
    assert sorted(position.version for position in positions) == [*range(1, 21)]
    update = await store.read(START)
    assert update is not None
    assert len(update.parts) == 20


async def test_a_change_is_heard_elsewhere_at_once(redis_server: RedisServer) -> None:
    redis_server.flush()
    async with on_redis(redis_server) as here, on_redis(redis_server) as there:
        await there.wait_for_change(WAIT_SECONDS)  # that it listens now
        position = await here.write([Change("a", "hidden", "true")], START)
        started = asyncio.get_running_loop().time()
        await there.wait_for_change(10 * WAIT_SECONDS)
        assert asyncio.get_running_loop().time() - started < WAIT_SECONDS
        update = await there.read(START)
        assert update is not None
        assert update.position == position


@pytest.fixture(params=["redis_server", "redis_cluster"])
async def lossy(request: pytest.FixtureRequest) -> AsyncIterator["LossyStore"]:
    server: RedisServer | ClusterServers = request.getfixturevalue(request.param)
    server.flush()
    async with on_redis(server) as store:
        yield LossyStore(store, server)


class LossyStore(NamedTuple):
    """A store in Redis, and the servers that lose what is in it."""

    store: RedisEdits
    server: RedisServer | ClusterServers

    async def knowing(self, *changes: Change) -> Reader:
        """A reader who knows what is stored, and these changes."""
        reader = Reader(self.store)
        for change in changes:
            await self.store.write([change], START)
        await reader.look()
        return reader

    def saved(self) -> dict[str, bytes]:
        """A copy of what is stored, by key."""
        with self._keeper().client() as client:
            found = {key: client.dump(key) for key in redis_item_edits._KEYS}
        return {key: content for key, content in found.items() if content is not None}

    def put_back(self, saved: Mapping[str, bytes]) -> None:
        """Have the servers hold the copy and nothing else."""
        self.server.flush()
        with self._keeper().client() as client:
            for key, content in saved.items():
                client.restore(key, 0, content)

    def _keeper(self) -> RedisServer:
        """The server that has the keys, all of one slot."""
        if isinstance(self.server, RedisServer):
            return self.server
        return self.server.master_of(redis_item_edits._KEYS[0])


HIDE_A, HIDE_B, HIDE_C = (Change(item_id, "hidden", "true") for item_id in "abc")
HIDDEN: Parts = {"hidden": "true"}


async def test_an_emptied_server_tells_that_it_has_lost_what_is_known(lossy: LossyStore) -> None:
    store, server = lossy
    reader = await lossy.knowing(HIDE_A)
    server.flush()

    with pytest.raises(EditsLostError):
        await store.read(reader.position)
    with pytest.raises(EditsLostError):
        await store.write([HIDE_B], reader.position)

    assert await store.read(START) is None
    assert (await store.write([HIDE_B], START)).version == 1
    for call in (store.read(reader.position), store.write([HIDE_C], reader.position)):
        with pytest.raises(EditsLostError):
            await call


async def test_an_emptied_server_is_given_back_what_a_reader_knows(lossy: LossyStore) -> None:
    store, server = lossy
    reader = await lossy.knowing(Change("a", "item", "1"), HIDE_B)
    late = Reader(store)
    server.flush()

    await asyncio.gather(*(store.restore(reader.position, reader.parts) for _ in range(2)))
    await store.restore(Position(reader.position.store, 1), {"a": {"item": "1"}})

    await late.look()
    assert (late.parts, late.position.version) == (reader.parts, 3)
    assert (await store.write([HIDE_C], reader.position)).version == 4
    for each in (reader, late):
        await each.look()
        assert each.parts == {"a": {"item": "1"}, "b": HIDDEN, "c": HIDDEN}
    assert reader.position == late.position


async def test_who_knows_less_may_give_back_and_write_first(lossy: LossyStore) -> None:
    """Versions come twice then, and what the other one knows is still not lost."""
    store, server = lossy
    less = await lossy.knowing(HIDE_A, Change("d", "offer", "1"), HIDE_B)
    more = await lossy.knowing(Change("b", "hidden", None), Change("d", "offer", "2"))
    server.flush()

    await store.restore(less.position, less.parts)
    for change in (HIDE_C, Change("a", "offer", "3")):
        await store.write([change], less.position)
    with pytest.raises(EditsLostError):
        await store.read(more.position)
    await store.restore(more.position, more.parts)

    for reader in (less, more, Reader(store)):
        await reader.look()
        assert reader.parts == {
            "a": {"hidden": "true", "offer": "3"},
            "c": HIDDEN,
            "d": {"offer": "2"},
        }


@pytest.mark.parametrize("further", [0, 3])
async def test_a_version_that_was_lost_and_given_out_again_is_noticed(
    lossy: LossyStore, further: int
) -> None:
    """As a master that dies before its replica has heard of the newest write."""
    store = lossy.store
    less = await lossy.knowing(HIDE_A)
    saved = lossy.saved()
    more = await lossy.knowing(HIDE_B)
    lossy.put_back(saved)

    for number in range(1 + further):
        await store.write([Change(f"c{number}", "hidden", "true")], less.position)
    with pytest.raises(EditsLostError):
        await store.read(more.position)
    with pytest.raises(EditsLostError):
        await store.write([HIDE_C], more.position)
    await store.restore(more.position, more.parts)

    for reader in (less, more):
        await reader.look()
        assert reader.position.version == 3 + further
        assert set(reader.parts) == {"a", "b", *(f"c{number}" for number in range(1 + further))}


async def test_what_was_said_to_an_emptied_server_stays(lossy: LossyStore) -> None:
    """By one who has just started, and knows of nothing."""
    store, server = lossy
    reader = await lossy.knowing(HIDE_A, Change("b", "offer", "1"))
    server.flush()
    newcomer = await lossy.knowing(Change("a", "offer", "2"), Change("b", "offer", "3"), HIDE_C)

    await store.restore(reader.position, reader.parts)

    for each in (newcomer, reader):
        await each.look()
        assert each.parts == {
            "a": {"hidden": "true", "offer": "2"},
            "b": {"offer": "3"},
            "c": HIDDEN,
        }
        assert each.position.version == 4


@pytest.mark.parametrize("losses", [0, 1])
async def test_a_server_put_back_to_an_earlier_state_is_brought_forward(
    lossy: LossyStore, losses: int
) -> None:
    store, server = lossy
    reader = await lossy.knowing(HIDE_A, Change("b", "offer", "1"))
    saved = lossy.saved()
    for _ in range(losses):
        server.flush()
        await store.restore(reader.position, reader.parts)
    reader = await lossy.knowing(Change("a", "hidden", None), Change("b", "offer", "2"), HIDE_C)
    lossy.put_back(saved)

    with pytest.raises(EditsLostError):
        await store.write([HIDE_B], reader.position)
    await store.restore(reader.position, reader.parts)

    late = await lossy.knowing()
    assert late.parts == reader.parts == {"b": {"offer": "2"}, "c": HIDDEN}
    assert late.position.version == reader.position.version + 1


async def test_what_was_given_back_may_be_more_than_is_taken_and_become_less(
    lossy: LossyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, server = lossy
    reader = await lossy.knowing(HIDE_A, HIDE_B)
    server.flush()
    await lossy.knowing(HIDE_C)
    monkeypatch.setattr(redis_item_edits, "EDITED_ITEMS_MAX", 1)
    monkeypatch.setattr(item_edits, "EDITED_ITEMS_MAX", 1)
    await store.restore(reader.position, reader.parts)

    with pytest.raises(CatalogueFullError, match="4 items"):
        await store.write([Change("d", "hidden", "true")], reader.position)
    await store.write([Change("a", "hidden", None)], reader.position)

    await reader.look()
    assert reader.parts == {"b": HIDDEN, "c": HIDDEN}


async def test_without_a_server_nothing_is_accepted(own_redis_server: RedisServer) -> None:
    async with on_redis(own_redis_server) as store:
        await store.write([Change("a", "hidden", "true")], START)
        own_redis_server.kill()
        with pytest.raises(CatalogueUnavailableError):
            await store.write([Change("a", "hidden", None)], START)
        with pytest.raises(CatalogueUnavailableError):
            await store.read(START)


async def test_what_nobody_here_has_written_is_not_followed(redis_server: RedisServer) -> None:
    redis_server.flush()
    async with on_redis(redis_server) as store:
        await store.write([Change("a", "hidden", "true")], START)
        with redis_server.client() as client:
            client.zadd("cofine:{catalogue}:1:order", {b"\xff\xfe": 7})
        with pytest.raises(CatalogueUnavailableError):
            await store.read(START)
        with redis_server.client() as client:
            client.set("cofine:{catalogue}:1:head", "text")
        with pytest.raises(CatalogueUnavailableError):
            await store.write([Change("a", "hidden", None)], START)

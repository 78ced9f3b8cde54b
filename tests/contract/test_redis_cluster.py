"""What is only true of a cluster: masters are lost one at a time, and slots move."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest
import redis

from service.errors import StateUnavailableError
from service.metrics import Metrics
from service.redis_cluster import slot_of
from service.redis_connection import ConnectionLimits
from service.redis_user_state import RedisUserState, lists_key, user_keys
from service.user_state import Event, StateLimits
from tests.contract.redis_cluster_servers import ClusterServers
from tests.contract.redis_server import PASSWORD, USER, RedisServer
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

PATIENT_SECONDS = 5.0
LIMITS = ConnectionLimits(socket_timeout_seconds=PATIENT_SECONDS, probe_interval_seconds=0.1)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RedisUserState]:
    store = RedisUserState(url, StateLimits(), Metrics(), LIMITS)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def append(store: RedisUserState, user_id: str, name: str, item: str) -> str:
    event = Event(name, item, 1_000)
    return (await store.append(user_id, [event], deadline_seconds=PATIENT_SECONDS))[0]


async def history(store: RedisUserState, user_id: str) -> list[str]:
    state = await store.read(user_id, deadline_seconds=PATIENT_SECONDS)
    return [entry.item_id for entry in state.history]


def on_different_masters(cluster: ClusterServers) -> dict[str, RedisServer]:
    """A user of each master."""
    found: dict[RedisServer, str] = {}
    number = 0
    while len(found) < len(cluster.masters):
        user_id = f"user-{number}"
        found.setdefault(cluster.master_of(user_keys(user_id)[0]), user_id)
        number += 1
    return {user_id: server for server, user_id in found.items()}


@pytest.mark.parametrize(
    "key", ["a", "cofine:{u:YQ}:meta:1", "{}a", "a{}{b}", "{a", "a}b{c}d{e}", "{{a}}", "é{ü}"]
)
def test_slots_are_those_of_redis(key: str, redis_cluster: ClusterServers) -> None:
    with redis_cluster.servers[0].client() as client:
        assert slot_of(key) == client.cluster("KEYSLOT", key)


async def test_users_are_spread_over_the_masters(redis_cluster: ClusterServers) -> None:
    redis_cluster.flush()
    async with connected(redis_cluster.url) as store:
        for user_id, server in on_different_masters(redis_cluster).items():
            assert await append(store, user_id, "1", user_id) == "accepted"
            assert await history(store, user_id) == [user_id]
            assert user_keys(user_id)[0].encode() in server.all_keys()


async def test_one_node_of_the_url_is_enough(redis_cluster: ClusterServers) -> None:
    redis_cluster.flush()
    known, other = redis_cluster.servers[0], "redis+cluster://127.0.0.1:1,"
    async with connected(f"{other}127.0.0.1:{known.port}") as store:
        for user_id in on_different_masters(redis_cluster):
            assert await append(store, user_id, "1", "shoe") == "accepted"
        assert store.is_available


async def test_a_password_is_given_to_every_node(redis_cluster: ClusterServers) -> None:
    redis_cluster.flush()
    users = on_different_masters(redis_cluster)
    with ExitStack() as at_end:
        for server in redis_cluster.servers:
            client = at_end.enter_context(server.client())
            client.config_set("requirepass", "s/e,c@ret")
            at_end.callback(client.config_set, "requirepass", "")
        protected = redis_cluster.url.replace(f"{USER}:{PASSWORD}", ":s%2Fe%2Cc%40ret")
        async with connected(protected) as store:
            outcomes = [await append(store, user_id, "1", "shoe") for user_id in users]
        async with connected(redis_cluster.url.replace(f"{USER}:{PASSWORD}@", "")) as store:
            assert not store.is_available
    assert outcomes == ["accepted"] * len(users)


async def test_a_lost_master_costs_its_users_their_state_until_its_replica_is_promoted(
    own_redis_cluster: ClusterServers,
) -> None:
    users = on_different_masters(own_redis_cluster)
    (lost, server), (kept, _), *_ = users.items()
    async with connected(own_redis_cluster.url) as store:
        for user_id in users:
            await append(store, user_id, "1", "shoe")
        await eventually(lambda: replicated(own_redis_cluster, lost), "the replica has it")

        server.kill()

        with pytest.raises(StateUnavailableError):
            await history(store, lost)
        assert await history(store, kept) == ["shoe"]

        async def is_back() -> bool:
            try:
                return await history(store, lost) == ["shoe"]
            except StateUnavailableError:
                return False

        await eventually(is_back, "the replica is used")
        assert await append(store, lost, "1", "shoe") == "duplicate"
        assert await append(store, lost, "2", "hat") == "accepted"


async def replicated(cluster: ClusterServers, user_id: str) -> bool:
    key = user_keys(user_id)[0].encode()
    return sum(key in server.all_keys() for server in cluster.servers) == 2


async def test_a_slot_on_its_way_is_followed(redis_cluster: ClusterServers) -> None:
    redis_cluster.flush()
    user_id, source = next(iter(on_different_masters(redis_cluster).items()))
    target = next(server for server in redis_cluster.masters if server is not source)
    slot = slot_of(user_keys(user_id)[0])
    async with connected(redis_cluster.url) as store:
        with source.client() as here, target.client() as there:
            ids = {each: each.cluster("MYID") for each in (here, there)}
            move(there, slot, "IMPORTING", ids[here])
            move(here, slot, "MIGRATING", ids[there])
            try:
                # One key is followed; several wait for the end of the move.
                await store.keep_list(user_id, "one", ["a"], deadline_seconds=PATIENT_SECONDS)
                found = await store.read_list(user_id, "one", deadline_seconds=PATIENT_SECONDS)
                assert found == ("a",)
                assert lists_key(user_id, "one").encode() in target.all_keys()
                with pytest.raises(StateUnavailableError):
                    await append(store, user_id, "1", "shoe")
                assert store.is_available
            finally:
                for each in (there, here):
                    move(each, slot, "NODE", ids[there])
            try:
                assert await append(store, user_id, "1", "shoe") == "accepted"
                assert await history(store, user_id) == ["shoe"]
            finally:
                target.flush()
                for each in (here, there):
                    move(each, slot, "NODE", ids[here])


def move(client: "redis.Redis", slot: int, how: str, node: object) -> None:
    client.cluster("SETSLOT", slot, how, node)


async def test_a_cluster_that_is_down_at_start_is_found_later(
    own_redis_cluster: ClusterServers,
) -> None:
    own_redis_cluster.kill()
    async with connected(own_redis_cluster.url) as store:
        assert not store.is_available
        with pytest.raises(StateUnavailableError):
            await history(store, "ann")
        for server in own_redis_cluster.servers:
            server.start()

        async def is_stored() -> bool:
            try:
                return await append(store, "ann", "1", "shoe") in {"accepted", "duplicate"}
            except StateUnavailableError:
                return False

        await eventually(is_stored, "the cluster is used")


async def test_a_node_called_a_single_server_is_refused_and_costs_no_time(
    redis_cluster: ClusterServers,
) -> None:
    users = on_different_masters(redis_cluster)
    async with connected(redis_cluster.servers[0].url) as store:
        outcomes = []
        for user_id in users:
            try:
                outcomes.append(await append(store, user_id, "1", "shoe"))
            except StateUnavailableError as error:
                outcomes.append(error.reason)
    assert sorted(outcomes) == ["accepted", "error", "error"]


async def test_a_single_server_called_a_cluster_is_told(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(f"redis+cluster://127.0.0.1:{redis_server.port}") as store:
        assert not store.is_available
    (told,) = (vars(record)["reason"] for record in caplog.records if "start" in record.message)
    assert "cluster support disabled" in told

"""What is told of a user is everything, and an erasure leaves nothing: all stores are searched."""

import base64
import gc
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from tests.contract.redis_server import RedisServer
from tests.end_to_end.service_process import (
    ServiceProcess,
    ids,
    post_event,
    recommend,
    running_service,
    wait_until,
)
from tests.keys import headers_of, write_keys
from tests.service.conftest import running_app

USER = "erin-who-wants-to-be-forgotten"
EVENT = "the-event-of-erin"
ITEM = "an-item-that-only-erin-saw"
TRACES = (USER, EVENT, ITEM)


def spellings(text: str) -> list[bytes]:
    """How a text may stand in a store."""
    encoded = base64.urlsafe_b64encode(text.encode()).rstrip(b"=")
    return [
        text.encode(),
        encoded,
        base64.b64encode(text.encode()).rstrip(b"="),
        repr(text).encode(),
    ]


def traces_in(content: bytes) -> list[str]:
    return [text for text in TRACES if any(each in content for each in spellings(text))]


def everything_in(server: RedisServer) -> bytes:
    """All keys of all databases and all their values."""
    found = []
    with server.client() as client:
        for database in client.info("keyspace"):
            number = int(database.removeprefix("db"))
            with redis.Redis(port=server.port, db=number, protocol=2) as one:
                for key in one.scan_iter("*"):
                    found += [key, repr(value_of(one, key)).encode()]
    return b"\n".join(found)


def value_of(client: "redis.Redis", key: bytes) -> Any:
    kind = client.type(key).decode()  # type: ignore[union-attr]
    match kind:
        case "string":
            return client.get(key)
        case "hash":
            return client.hgetall(key)
        case "zset":
            return client.zrange(key, 0, -1, withscores=True)
        case "list":
            return client.lrange(key, 0, -1)
        case "set":
            return client.smembers(key)
        case "stream":
            return client.xrange(key)
        case _:
            raise AssertionError(f"{key!r} is a {kind}, which this test cannot search")


def everything_on_disk(folder: Path) -> bytes:
    """All files of the service's working folder: its logs, and whatever it keeps."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return b"\n".join(path.read_bytes() for path in files)


def leave_traces(client: httpx2.Client) -> str:
    """Use everything that may remember a user; returns an item that the catalogue has."""
    client.headers.update(headers_of("read"))
    known = ids(recommend(client, k=1))[0]
    client.headers.update(headers_of("publishable", USER))
    for event_id, item_id in ((EVENT, ITEM), ("2", known)):
        assert post_event(client, event_id, USER, item_id).status_code == 200
    assert recommend(client, user_id=USER)["items"]
    assert recommend(client, user_id=USER, history=[ITEM], explain=True)["items"]
    refused = client.post("/v1/recommend", json={"user_id": USER, "colour": ITEM})
    assert refused.status_code == 422
    client.headers.update(headers_of("read"))
    del client.headers["X-User-Token"]
    return known


@pytest.fixture
def service(
    shop_bundle: Path, tmp_path: Path, own_redis_server: RedisServer
) -> Iterator[ServiceProcess]:
    folder = tmp_path / "service"
    folder.mkdir()
    chosen = {"keys": write_keys(tmp_path), "log_level": "DEBUG", "deadline_ms": 20_000}
    deadlines = {"state_read_deadline_ms": 5_000, "state_write_deadline_ms": 5_000}
    url = own_redis_server.url
    with running_service(shop_bundle, folder, state_url=url, **chosen, **deadlines) as service:
        yield service


def test_all_is_told_and_nothing_is_left_in_redis_files_logs_or_metrics(
    service: ServiceProcess, own_redis_server: RedisServer, tmp_path: Path
) -> None:
    folder = tmp_path / "service"
    with service.client() as client:
        known = leave_traces(client)
        told = client.get(f"/v1/users/{USER}").json()
        assert [entry["item_id"] for entry in told["history"]] == [ITEM, known]
        assert sorted(told["seen"]) == sorted([ITEM, known])
        assert told["event_ids"] == sorted([EVENT, "2"])
        # The search finds what is there.
        assert traces_in(everything_in(own_redis_server)) == list(TRACES)

        client.headers.update(headers_of("write"))
        assert client.delete(f"/v1/users/{USER}").status_code == 204

        client.headers.update(headers_of("read"))
        told = client.get(f"/v1/users/{USER}").json()
        empty = {"history": [], "seen": [], "event_ids": [], "events": 0}
        assert {name: told[name] for name in empty} == empty
        client.get("/livez", headers={"X-Request-ID": "the-last"})
        wait_until(lambda: b"the-last" in everything_on_disk(folder), "the log is written")
        assert traces_in(everything_in(own_redis_server)) == []
        assert traces_in(everything_on_disk(folder)) == []
        for address in ("/metrics", "/v1/info", "/readyz"):
            assert traces_in(client.get(address).content) == []


SKIPPED = (types.ModuleType, types.FunctionType, types.CodeType, type, types.FrameType)


def texts_reachable_from(root: object) -> set[str]:
    """Every text that an object leads to: what the service remembers in its own memory."""
    found: set[str] = set()
    known = {id(root)}
    waiting = [root]
    while waiting:
        one = waiting.pop()
        # Of a dictionary the collector leaves out keys that are texts.
        keys = list(one) if isinstance(one, dict) else []
        for each in [*keys, *gc.get_referents(one)]:
            if isinstance(each, str):
                found.add(each)
            elif isinstance(each, bytes):
                found.add(each.decode("utf-8", "replace"))
            elif id(each) not in known and not isinstance(each, SKIPPED):
                known.add(id(each))
                waiting.append(each)
    return found


@pytest.mark.anyio
async def test_nothing_is_left_in_the_services_memory(tmp_path: Path) -> None:
    async with running_app(keys=write_keys(tmp_path)) as client:

        def remembered() -> list[str]:
            roots = [client.app.state.serving, client.app.middleware_stack]
            texts = "\n".join(text for root in roots for text in texts_reachable_from(root))
            return traces_in(texts.encode("utf-8", "replace"))

        for scope in ("publishable", "write"):
            body = {"event_id": EVENT, "user_id": USER, "item_id": ITEM}
            sent = await client.post("/v1/events", json=body, headers=headers_of(scope, USER))
            assert sent.status_code == 200
        headers = headers_of("publishable", USER)
        answer = await client.post("/v1/recommend", json={"user_id": USER}, headers=headers)
        assert answer.status_code == 200
        client.queries.clear()  # the test's own memory
        assert remembered() == list(TRACES)
        erased = await client.delete(f"/v1/users/{USER}", headers=headers_of("write"))
        assert erased.status_code == 204
        assert remembered() == []

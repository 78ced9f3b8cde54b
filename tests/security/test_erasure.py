"""What is told of a user is everything, and an erasure leaves nothing: all stores are searched."""

import base64
import gc
import hashlib
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from model.event_log import compact
from service.api_keys import entry_text
from tests.contract.redis_server import RedisServer
from tests.end_to_end.service_process import (
    ServiceProcess,
    environment,
    ids,
    post_event,
    recommend,
    running_service,
    wait_until,
)
from tests.keys import KEYS, headers_of, write_keys
from tests.service.conftest import running_app

USER = "erin-who-wants-to-be-forgotten"
EVENT = "the-event-of-erin"
ITEM = "an-item-that-only-erin-saw"
CONTEXT = "what-erin-was-reading"
DIGEST = hashlib.sha256(USER.encode()).hexdigest()[:32]
"""What the user is called where no name may stand: in rate limits and, longer, in the event log."""
REMEMBERED = (USER, EVENT, ITEM, DIGEST)


def spellings(text: str) -> list[bytes]:
    """How a text may stand in a store."""
    encoded = base64.urlsafe_b64encode(text.encode()).rstrip(b"=")
    return [
        text.encode(),
        encoded,
        base64.b64encode(text.encode()).rstrip(b"="),
        repr(text).encode(),
    ]


def traces_in(content: bytes, traces: Sequence[str]) -> list[str]:
    return [text for text in traces if any(each in content for each in spellings(text))]


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
    """What a key holds, whatever it is; an unknown type fails the test."""
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"stream": client.xrange,
        b"none": lambda _: None,  # it has expired since it was listed
    }
    return readers[client.type(key)](key)  # type: ignore[index]


def everything_on_disk(folder: Path) -> bytes:
    """All files of the service's working folder: its logs, and whatever it keeps."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return b"\n".join(path.read_bytes() for path in files)


def write_slow_keys(folder: Path) -> Path:
    """Keys of every scope; what the publishable one's users spent is counted for half an hour."""
    entries = {scope: entry_text(f"key-{scope}", key, [scope]) for scope, key in KEYS.items()}
    slow = "requests_per_second = 0.1, burst = 200"
    entries["publishable"] = entries["publishable"].replace(
        "requests_per_second = 5, burst = 20", slow
    )
    assert slow in entries["publishable"]
    return write_keys(folder, entries.values())


def shown_to_user(client: httpx2.Client) -> tuple[list[str], list[str]]:
    """Use all that recommends; returns the ids of the user's recommendations, and of choices."""
    first = recommend(client, user_id=USER, k=3, context={"page": CONTEXT}, exploration=0.5)
    second = recommend(client, user_id=USER, k=3, after=first["recommendation_id"])
    assert second["degraded"] is None
    assert not set(ids(first)) & set(ids(second))
    inline = recommend(client, user_id=USER, history=[ITEM], explain=True)
    explored = client.post("/v1/explore", json={"user_id": USER})
    assert explored.status_code == 200, explored.text
    places = [explored.json(), *explored.json()["choices"]]
    client.headers.update(headers_of("read"))
    batch = {"requests": [{"user_id": USER, "k": 3, "after": second["recommendation_id"]}]}
    batched = client.post("/v1/recommend:batch", json=batch)
    assert batched.status_code == 200, batched.text
    (third,) = [each["answer"] for each in batched.json()["results"]]
    assert third["degraded"] is None
    assert not {*ids(first), *ids(second)} & set(ids(third))
    recommended = [answer["recommendation_id"] for answer in (first, second, inline, third)]
    return recommended, [place["recommendation_id"] for place in places]


def leave_traces(client: httpx2.Client) -> tuple[str, list[str], list[str]]:
    """Use everything that may remember a user.

    Returns an item that the catalogue has, and the ids of what the user was shown: those that have
    a next page, and those of the tree, which only the event log keeps.
    """
    client.headers.update(headers_of("publishable", USER))
    answer = recommend(client, user_id=USER, k=1)
    (known,) = ids(answer)
    assert post_event(client, EVENT, USER, ITEM).status_code == 200
    followed = {"event_id": "2", "user_id": USER, "item_id": known}
    stored = client.post(
        "/v1/events", json={**followed, "recommendation_id": answer["recommendation_id"]}
    )
    assert stored.json()["results"][0]["attribution"] == "attributed", stored.text
    refused = client.post("/v1/recommend", json={"user_id": USER, "colour": ITEM})
    assert refused.status_code == 422
    shown, explored = shown_to_user(client)
    assert len(explored) > 1
    del client.headers["X-User-Token"]
    return known, [answer["recommendation_id"], *shown], explored


@pytest.fixture
def event_log(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


@pytest.fixture(params=["folder", "redis"])
def logs_to(request: pytest.FixtureRequest, event_log: Path) -> str:
    """Where the service logs to, as its setting says it."""
    return "redis" if request.param == "redis" else str(event_log)


@pytest.fixture
def service(
    shop_bundle: Path, tmp_path: Path, logs_to: str, own_redis_server: RedisServer
) -> Iterator[ServiceProcess]:
    folder = tmp_path / "service"
    folder.mkdir()
    chosen = {"keys": write_slow_keys(tmp_path), "log_level": "DEBUG", "deadline_ms": 20_000}
    deadlines = {"state_read_deadline_ms": 5_000, "state_write_deadline_ms": 5_000}
    places = {"state_url": own_redis_server.url, "event_log": logs_to}
    with running_service(shop_bundle, folder, **places, **chosen, **deadlines) as service:
        yield service


def logged_of_user(client: httpx2.Client) -> bytes:
    response = client.get("/v1/event-log", params={"user_id": USER})
    assert response.status_code == 200, response.text
    return response.content


def check_told(
    client: httpx2.Client, known: str, shown: Sequence[str], explored: Sequence[str]
) -> None:
    """All that was remembered of the user is told."""
    told = client.get(f"/v1/users/{USER}").json()
    assert [entry["item_id"] for entry in told["history"]] == [ITEM, known]
    assert sorted(told["seen"]) == sorted([ITEM, known])
    assert told["event_ids"] == sorted([EVENT, "2"])
    assert {each["recommendation_id"] for each in told["served_lists"]} == {*shown}
    assert all(each["items"] for each in told["served_lists"])
    [counted] = told["counted_requests"]
    assert counted["key"] == "key-publishable"
    assert counted["requests"] > 0
    logged = [USER, EVENT, ITEM, CONTEXT, *shown, *explored]
    wait_until(
        lambda: traces_in(logged_of_user(client), logged) == logged,
        "events and impressions are logged",
    )


def check_nothing_told(client: httpx2.Client) -> None:
    told = client.get(f"/v1/users/{USER}").json()
    left = {name: value for name, value in told.items() if value}
    assert left == {"user_id": USER}
    assert logged_of_user(client) == b""


def drain(server: RedisServer, folder: Path) -> None:
    """Move the log out of Redis, as before a training."""
    settings = {"state_url": server.url, "event_log": "redis"}
    subprocess.run(
        [sys.executable, "-m", "service.drain_log", folder],
        env=environment(**settings),
        check=True,
    )


def test_all_is_told_and_nothing_is_left_in_redis_files_logs_or_metrics(
    service: ServiceProcess,
    own_redis_server: RedisServer,
    tmp_path: Path,
    event_log: Path,
    logs_to: str,
) -> None:
    folder = tmp_path / "service"
    with service.client() as client:
        known, shown, explored = leave_traces(client)
        traces = [*REMEMBERED, CONTEXT, *shown, *explored]
        check_told(client, known, shown, explored)
        # The searches find what is there.
        assert traces_in(everything_in(own_redis_server), [*REMEMBERED, *shown]) == [
            *REMEMBERED,
            *shown,
        ]

        client.headers.update(headers_of("write"))
        assert client.delete(f"/v1/users/{USER}").status_code == 204
        client.headers.update(headers_of("read"))
        check_nothing_told(client)

        # What was logged of the user counts no more, and goes with the next compaction.
        if logs_to == "redis":
            drain(own_redis_server, event_log)
        assert DIGEST.encode() in everything_on_disk(event_log)
        wait_until(lambda: compact(event_log).in_use == 0, "the service ends its segment")
        assert traces_in(everything_on_disk(event_log), traces) == []
        check_nothing_told(client)
        client.get("/livez", headers={"X-Request-ID": "the-last"})
        wait_until(lambda: b"the-last" in everything_on_disk(folder), "the log is written")
        wait_until(
            lambda: traces_in(everything_in(own_redis_server), traces) == [],
            "the mark of the erasure expires",
        )
        assert traces_in(everything_on_disk(folder), traces) == []
        for address in ("/metrics", "/v1/info", "/readyz"):
            assert traces_in(client.get(address).content, traces) == []


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
async def test_nothing_is_left_in_the_services_memory(tmp_path: Path, event_log: Path) -> None:
    async with running_app(keys=write_slow_keys(tmp_path), event_log=event_log) as client:
        traces = [*REMEMBERED]

        def remembered() -> list[str]:
            roots = [client.app.state.serving, client.app.middleware_stack]
            texts = "\n".join(text for root in roots for text in texts_reachable_from(root))
            return traces_in(texts.encode("utf-8", "replace"), traces)

        for scope in ("publishable", "write"):
            body = {"event_id": EVENT, "user_id": USER, "item_id": ITEM}
            sent = await client.post("/v1/events", json=body, headers=headers_of(scope, USER))
            assert sent.status_code == 200
        headers = headers_of("publishable", USER)
        asked = {"user_id": USER, "k": 2}
        explored = await client.post("/v1/explore", json=asked, headers=headers)
        answer = await client.post("/v1/recommend", json=asked, headers=headers)
        assert (explored.status_code, answer.status_code) == (200, 200)
        places = [explored.json(), *explored.json()["choices"]]
        logged = [place["recommendation_id"] for place in places if place["recommendation_id"]]
        assert logged
        traces.append(answer.json()["recommendation_id"])
        client.queries.clear()  # the test's own memory
        assert remembered() == traces
        erased = await client.delete(f"/v1/users/{USER}", headers=headers_of("write"))
        assert erased.status_code == 204
        traces += logged  # which is for the event log to remember
        assert remembered() == []

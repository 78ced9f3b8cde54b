"""Redis: what users write cannot leave their keys, and what others write there does little harm."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

from service.redis_user_state import user_keys
from tests.contract.redis_server import RedisServer
from tests.end_to_end.service_process import (
    ServiceProcess,
    post_event,
    recommend,
    running_service,
    stored,
)
from tests.service.problem_shape import check_problem

CANARY = {b"canary": b"alive", b"soap": b"alive", b"*": b"alive"}
INJECTIONS = [
    "x'); redis.call('FLUSHALL') --",
    "]] redis.call('SET', 'canary', 'dead') --[[",
    "x\\r\\nFLUSHALL\\r\\n",
    "*1 $8 FLUSHALL",
    "}:history:1",
    "u}:seen:1",
    "*",
    "canary",
    "KEYS[1]",
    "-inf",
    "nan",
    "%s%n%016.0f",
    "9999999999999999buy|canary",
]


@pytest.fixture(scope="module")
def redis_service(
    shop_bundle: Path, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    redis_server.flush()
    # Generous deadlines: this is about meaning, and the machine may be busy.
    patient = {"state_read_deadline_ms": 5_000, "state_write_deadline_ms": 5_000}
    folder = tmp_path_factory.mktemp("redis_service")
    with running_service(shop_bundle, folder, state_url=redis_server.url, **patient) as service:
        yield service


@pytest.fixture
def client(redis_service: ServiceProcess, redis_server: RedisServer) -> Iterator[httpx2.Client]:
    with redis_server.client() as redis:
        redis.flushdb()
        redis.mset(CANARY)
    with redis_service.client() as client:
        yield client


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_id_is_a_command_or_another_users_key(
    client: httpx2.Client, redis_server: RedisServer, text: str
) -> None:
    assert post_event(client, text, text, text).status_code == 200
    assert post_event(client, "1", "u", "soap").status_code == 200
    for user in (text, "u"):
        dislike = {"event_id": "2", "user_id": user, "item_id": text, "type": "dislike"}
        assert client.post("/v1/events", json=dislike).status_code == 200
        recommend(client, user_id=user, k=1)  # which keeps a list of its own

    assert stored(client, quote(text, safe="")) == [text]
    assert stored(client, "u") == ["soap"]
    ours = [key.encode() for user in (text, "u") for key in user_keys(user)]
    assert redis_server.all_keys() == sorted([*CANARY, *ours])
    assert client.delete(f"/v1/users/{quote(text, safe='')}").status_code == 204
    assert stored(client, "u") == ["soap"]
    with redis_server.client() as redis:
        assert redis.mget(list(CANARY)) == list(CANARY.values())


VERSION = "0" * 16
POISON: dict[str, tuple[int, str, tuple[str | bytes | float, ...]]] = {
    "bytes that are no text": (0, "ZADD", (1, VERSION.encode() + b"view|\xff\xfe")),
    "a seen item that is no text": (1, "ZADD", (1, b"\xff\xfe")),
    "an endless time": (0, "ZADD", ("inf", f"{VERSION}view|soap")),
    "a version that is no number": (3, "HSET", ("version", b"\x80cos\nsystem\n")),
    "a key of another type": (0, "SET", ("x",)),
    "a disliked item that is no text": (4, "ZADD", (1, b"\xff\xfe")),
}


@pytest.mark.parametrize("kind", POISON)
def test_a_state_that_nobody_could_have_written_degrades_the_answer(
    client: httpx2.Client, redis_server: RedisServer, kind: str
) -> None:
    key, command, arguments = POISON[kind]
    with redis_server.client() as redis:
        redis.execute_command(command, user_keys("victim")[key], *arguments)  # type: ignore[no-untyped-call]

    answer = client.post("/v1/recommend", json={"user_id": "victim", "k": 3})

    assert answer.status_code == 200
    assert answer.json()["degraded"] == {
        "state_unavailable": True,
        "levels": None,
        "paging": False,
        "explanations": False,
    }
    assert len(answer.json()["items"]) == 3
    check_problem(client.get("/v1/users/victim"), 503, "state_unavailable")
    assert client.get("/readyz").json()["state"]["available"]  # one user's harm alone
    assert client.delete("/v1/users/victim").status_code == 204
    assert post_event(client, "1", "victim", "soap").status_code == 200
    assert stored(client, "victim") == ["soap"]

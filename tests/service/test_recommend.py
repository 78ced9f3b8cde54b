import asyncio
import json
import re
import threading
import time
from typing import Any

import pytest

from model.query import Query, Recommendation
from tests.contract.redis_server import RedisServer
from tests.service.conftest import AppClient, Client
from tests.service.fakes import BrokenRecommender, GatedRecommender, TableRecommender, always
from tests.service.problem_shape import check_problem

pytestmark = pytest.mark.anyio


async def recommend(client: Client, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/recommend", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


async def test_a_history_is_answered_with_items(client: Client) -> None:
    answer = await recommend(client, history=["polish"], k=2)
    assert answer["items"][0] == {
        "item_id": "file",
        "rank": 1,
        "score": -1.0,
        "source": "generated",
        "title": "Nail file",
        "path": ["Makeup", "Nails"],
        "semantic_id": [0, 1],
        "level_log_probs": None,
        "explanation": None,
        "propensity": None,
    }
    assert answer["items"][1]["source"] == "popular"
    assert answer["bundle"] == "table"
    assert answer["catalogue_version"] == 3
    assert answer["degraded"] is None
    assert answer["certified"] is True
    assert answer["took_ms"] > 0
    assert answer["unknown_history_items"] == 0


async def test_every_answer_has_an_id_of_its_own(client: Client) -> None:
    found = [await recommend(client) for _ in range(3)]
    assert len({answer["recommendation_id"] for answer in found}) == 3


async def test_explain_adds_the_levels(client: Client) -> None:
    answer = await recommend(client, history=["polish"], k=2, explain=True)
    assert [item["level_log_probs"] for item in answer["items"]] == [[-0.5, -0.25], None]


@pytest.mark.parametrize("body", [{}, {"history": []}, {"user_id": "nobody"}, {"history": None}])
async def test_nothing_known_is_a_cold_start(client: Client, body: dict[str, Any]) -> None:
    answer = await recommend(client, **body)
    assert ids(answer) == ["polish", "file", "lipstick", "soap", "a/b é"]
    assert {item["source"] for item in answer["items"]} == {"popular"}
    assert answer["degraded"] is None
    assert answer["certified"] is None


async def test_unknown_items_are_skipped_and_counted(client: Client) -> None:
    answer = await recommend(client, history=["gone", "soap", "lost"])
    assert answer["unknown_history_items"] == 2
    assert answer["items"][0]["item_id"] == "a/b é"


async def test_the_filters_reach_the_recommender(client: Client) -> None:
    answer = await recommend(
        client,
        history=["polish"],
        exclude=["file"],
        categories=[["Makeup"], ["Bath"]],
        exclude_seen=False,
        k=3,
    )
    assert ids(answer) == ["polish", "lipstick", "soap"]
    categories = [["Makeup"], ["Bath"]]
    assert client.queries == [
        Query(["polish"], 3, ["file"], [], exclude_seen=False, categories=categories, anchors=[])
    ]


async def test_a_stored_history_is_used(client: Client) -> None:
    for number, item in enumerate(["soap", "polish"]):
        event = {"event_id": str(number), "user_id": "u", "item_id": item, "timestamp": number}
        assert (await client.post("/v1/events", json=event)).status_code == 200
    assert ids(await recommend(client, user_id="u")) == ["file", "lipstick", "a/b é"]
    assert list(client.queries[0].history) == ["soap", "polish"]
    assert set(client.queries[0].seen) == {"soap", "polish"}


async def test_a_given_history_replaces_the_stored_one_but_not_what_was_seen(
    client: Client,
) -> None:
    event = {"event_id": "1", "user_id": "u", "item_id": "soap"}
    await client.post("/v1/events", json=event)
    assert ids(await recommend(client, user_id="u", history=["polish"])) == [
        "file",
        "lipstick",
        "a/b é",
    ]
    assert list(client.queries[0].history) == ["polish"]


INVALID = [
    ({"k": 0}, "#/k"),
    ({"k": 101}, "#/k"),
    ({"k": "5"}, "#/k"),
    ({"k": 5.5}, "#/k"),
    ({"k": True}, "#/k"),
    ({"K": 5}, "#/K"),
    ({"a/b~c": 5}, "#/a~1b~0c"),
    ({"user_id": ""}, "#/user_id"),
    ({"user_id": "x" * 257}, "#/user_id"),
    ({"user_id": "line\nbreak"}, "#/user_id"),
    ({"user_id": "end\n"}, "#/user_id"),
    ({"user_id": "\x85"}, "#/user_id"),
    ({"user_id": 7}, "#/user_id"),
    ({"history": "polish"}, "#/history"),
    ({"history": ["polish", ""]}, "#/history/1"),
    ({"history": [None]}, "#/history/0"),
    ({"history": ["x"] * 1001}, "#/history"),
    ({"exclude": ["x"] * 1001}, "#/exclude"),
    ({"exclude": None}, "#/exclude"),
    ({"exclude_seen": "yes"}, "#/exclude_seen"),
    ({"explain": 1}, "#/explain"),
    ({"categories": ["Makeup"]}, "#/categories/0"),
    ({"categories": [[]]}, "#/categories/0"),
    ({"categories": [["Makeup"], [""]]}, "#/categories/1/0"),
    ({"categories": [["x"] * 17]}, "#/categories/0"),
    ({"categories": [["x"]] * 51}, "#/categories"),
    ({"beam": 0}, "#/beam"),
    ({"beam": 1001}, "#/beam"),
    ({"beam": 1.5}, "#/beam"),
    ({"beam": "wide"}, "#/beam"),
    ({"beam": True}, "#/beam"),
    ({"beam": [5]}, "#/beam"),
    ({"deadline_ms": 0}, "#/deadline_ms"),
    ({"deadline_ms": "5"}, "#/deadline_ms"),
    ({"deadline_ms": 600_001}, "#/deadline_ms"),
]


@pytest.mark.parametrize(("body", "pointer"), INVALID, ids=[str(case)[:40] for case in INVALID])
async def test_unusable_fields_are_pointed_at(
    client: Client, body: dict[str, Any], pointer: str
) -> None:
    found = check_problem(await client.post("/v1/recommend", json=body), 422, "invalid_request")
    assert [error["pointer"] for error in found["errors"]] == [pointer]
    assert client.queries == []


@pytest.mark.parametrize(
    "text", ['{"user_id": "\\ud800"}', '{"\\ud800": 1}', '{"categories": [["\\udfff"]]}']
)
async def test_halves_of_characters_are_refused(client: Client, text: str) -> None:
    response = await client.post(
        "/v1/recommend", content=text, headers={"content-type": "application/json"}
    )
    check_problem(response, 422, "invalid_request")


@pytest.mark.parametrize("text", ["[]", "7", "null", '"text"'])
async def test_a_body_that_is_no_object_is_refused(client: Client, text: str) -> None:
    response = await client.post(
        "/v1/recommend", content=text, headers={"content-type": "application/json"}
    )
    assert check_problem(response, 422, "invalid_request")["errors"][0]["pointer"] == "#"


async def test_the_number_of_errors_shown_is_bounded(client: Client) -> None:
    body = {"history": [""] * 500}
    found = check_problem(await client.post("/v1/recommend", json=body), 422, "invalid_request")
    assert len(found["errors"]) == 20


async def test_an_unknown_category_is_pointed_at(client: Client) -> None:
    body = {"categories": [["Makeup"], ["Makeup", "Hair"]]}
    found = check_problem(await client.post("/v1/recommend", json=body), 422, "invalid_request")
    assert found["errors"][0]["pointer"] == "#/categories/1"


async def test_beyond_the_queue_requests_are_refused(start_app: AppClient) -> None:
    slow = GatedRecommender()
    async with start_app(always(slow), queue_max_requests=2, deadline_ms=30_000) as client:
        computing = asyncio.create_task(recommend(client))
        assert await asyncio.to_thread(slow.entered.acquire, timeout=10)
        waiting = [asyncio.create_task(recommend(client)) for _ in range(2)]
        await until(lambda: queue_length(client) == 2)
        refused = await client.post("/v1/recommend", json={})
        found = check_problem(refused, 429, "queue_full")
        assert "2 requests" in found["detail"]
        assert 'cofine_admission_rejected_total{reason="queue_full"} 1.0' in await client.scrape()
        slow.gate.set()
        assert all(ids(answer) for answer in await asyncio.gather(computing, *waiting))


async def test_as_many_requests_as_workers_never_wait(start_app: AppClient) -> None:
    slow = GatedRecommender()
    async with start_app(always(slow), workers=3, queue_max_requests=1) as client:
        answers = [asyncio.create_task(recommend(client)) for _ in range(4)]
        for _ in range(3):
            assert await asyncio.to_thread(slow.entered.acquire, timeout=10)
        slow.gate.set()
        assert len(await asyncio.gather(*answers)) == 4


async def test_a_request_whose_time_is_up_leaves_the_queue(start_app: AppClient) -> None:
    slow = GatedRecommender()
    async with start_app(always(slow), deadline_ms=500) as client:
        computed = asyncio.create_task(client.post("/v1/recommend", json={}))
        assert await asyncio.to_thread(slow.entered.acquire, timeout=10)
        queued = await client.post("/v1/recommend", json={})
        check_problem(queued, 504, "deadline_exceeded")
        check_problem(await computed, 504, "deadline_exceeded")
        assert queue_length(client) == 0
        slow.gate.set()
        text = await client.scrape()
        assert 'cofine_deadline_exceeded_total{stage="queue"} 1.0' in text
        assert 'cofine_deadline_exceeded_total{stage="compute"} 1.0' in text
    assert slow.answered == 1


async def test_a_request_whose_client_is_gone_leaves_the_queue(start_app: AppClient) -> None:
    slow = GatedRecommender()
    async with start_app(always(slow), deadline_ms=30_000) as client:
        computing = asyncio.create_task(recommend(client))
        assert await asyncio.to_thread(slow.entered.acquire, timeout=10)
        leave = asyncio.Event()
        gone = asyncio.create_task(post_and_leave(client, leave))
        await until(lambda: queue_length(client) == 1)
        leave.set()
        assert await gone == 499
        assert queue_length(client) == 0
        assert 'cofine_abandoned_total{stage="queue"} 1.0' in await client.scrape()
        slow.gate.set()
        await computing
    assert slow.answered == 1


class WaitingRecommender:
    """Computes until nobody waits for its answer any more."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.left = threading.Event()

    def recommend(self, query: Query) -> Recommendation:
        assert not query.is_abandoned()
        self.entered.release()
        give_up_at = time.monotonic() + 30
        while not query.is_abandoned():
            assert time.monotonic() < give_up_at, "the client's leaving was never told"
            time.sleep(0.001)
        self.left.set()
        return TableRecommender().recommend(query)


async def test_a_computation_is_told_when_its_client_is_gone(start_app: AppClient) -> None:
    waiting = WaitingRecommender()
    async with start_app(always(waiting), deadline_ms=30_000) as client:
        leave = asyncio.Event()
        gone = asyncio.create_task(post_and_leave(client, leave))
        assert await asyncio.to_thread(waiting.entered.acquire, timeout=10)
        leave.set()
        assert await gone == 499
        assert await asyncio.to_thread(waiting.left.wait, 10)
        assert 'cofine_abandoned_total{stage="compute"} 1.0' in await client.scrape()


async def test_a_client_that_leaves_while_its_state_is_read_is_counted(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = asyncio.Event()

    async def read(*_: Any, **__: Any) -> Any:
        reading.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(client.app.state.serving.store, "read", read)
    leave = asyncio.Event()
    gone = asyncio.create_task(post_and_leave(client, leave, b'{"user_id":"u"}'))
    await asyncio.wait_for(reading.wait(), 10)
    leave.set()
    assert await gone == 499
    assert 'cofine_abandoned_total{stage="state"} 1.0' in await client.scrape()


async def post_and_leave(client: Client, leave: asyncio.Event, content: bytes = b"{}") -> int:
    """Send a request over bare ASGI, close the connection, and return the status."""
    body = [{"type": "http.request", "body": content, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if body:
            return body.pop()
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/recommend",
        "raw_path": b"/v1/recommend",
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
        ],
    }
    await client.app(scope, receive, send)
    status: int = sent[0]["status"]
    return status


async def test_a_defect_shows_nothing(start_app: AppClient) -> None:
    shop = "https://shop.example"
    async with start_app(always(BrokenRecommender()), cors_origins=shop) as client:
        asked = {"history": ["polish"]}
        response = await client.post("/v1/recommend", json=asked, headers={"Origin": shop})
        check_problem(response, 500, "internal_error")
        assert response.headers["access-control-allow-origin"] == shop
        assert "secret-user" not in response.text
        assert "KeyError" not in response.text
        again = await client.post("/v1/recommend", json={})  # the worker lives on
        check_problem(again, 500, "internal_error")


async def test_a_stopping_service_refuses_what_waits(start_app: AppClient) -> None:
    slow = GatedRecommender()
    async with start_app(always(slow), deadline_ms=30_000) as client:
        computing = asyncio.create_task(recommend(client))
        assert await asyncio.to_thread(slow.entered.acquire, timeout=10)
        waiting = asyncio.create_task(client.post("/v1/recommend", json={}))
        await until(lambda: queue_length(client) == 1)
        stopping = asyncio.create_task(client.app.state.serving.engine.stop())
        check_problem(await waiting, 503, "not_ready")
        slow.gate.set()
        assert ids(await computing)
        await stopping
        check_problem(await client.post("/v1/recommend", json={}), 503, "not_ready")


async def test_without_redis_the_given_history_answers(
    start_app: AppClient, own_redis_server: RedisServer
) -> None:
    async with start_app(state_url=own_redis_server.url, state_read_deadline_ms=200) as client:
        event = {"event_id": "1", "user_id": "u", "item_id": "polish"}
        assert (await client.post("/v1/events", json=event)).status_code == 200
        assert "polish" not in ids(await recommend(client, user_id="u"))
        own_redis_server.pause()
        answer = await recommend(client, user_id="u", history=["soap"])
        whole = {"levels": None, "paging": False, "explanations": False}
        without_state = {"state_unavailable": True, **whole}
        assert answer["degraded"] == without_state
        assert answer["items"][0]["item_id"] == "a/b é"
        for _ in range(10):
            answer = await recommend(client, user_id="u")
            assert answer["degraded"] == without_state
            assert ids(answer)[0] == "polish"
        # The last ones did not even wait for it.
        assert re.search(r'op="read",outcome="open"} [1-9]', await client.scrape())
        assert (await recommend(client, history=["soap"]))["degraded"] is None
        refused = await client.post("/v1/events", json={**event, "event_id": "2"})
        found = check_problem(refused, 503, "events_not_stored", more=("results",))
        assert found["results"] == [{"event_id": "2", "status": "unconfirmed", "attribution": None}]
        for request in (client.get("/v1/users/u"), client.delete("/v1/users/u")):
            check_problem(await request, 503, "state_unavailable")
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["state"] == {"kind": "redis", "available": False}
        text = await client.scrape()
        assert 'cofine_degraded_total{reason="state_unavailable"} 11.0' in text
        assert 'cofine_state_events_total{outcome="dropped"} 1.0' in text
        own_redis_server.resume()
        await until(lambda: client.app.state.serving.store.is_available)
        assert (await recommend(client, user_id="u"))["degraded"] is None


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def queue_length(client: Client) -> int:
    return client.app.state.serving.engine.queue_length  # type: ignore[no-any-return]


async def test_answers_are_json_with_any_title(client: Client) -> None:
    response = await client.post("/v1/recommend", json={})
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.content)["items"][4]["item_id"] == "a/b é"

"""Requests are refused from their head alone when they could not be answered in time."""

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

import pytest

from model.query import Query, Recommendation
from service.admission import LOG_SECONDS
from service.engine import Refusal
from tests.service.conftest import AppClient, Client
from tests.service.fakes import GatedRecommender, TableRecommender, always
from tests.service.problem_shape import check_problem

pytestmark = pytest.mark.anyio

COMPUTE_SECONDS = 0.3


class SlowRecommender(TableRecommender):
    """Takes as long as a machine that is too small."""

    def recommend(self, query: Query) -> Recommendation:
        time.sleep(COMPUTE_SECONDS)
        return super().recommend(query)


BODIES: dict[str, Any] = {
    "/v1/recommend": {"history": ["polish"]},
    "/v1/recommend:batch": {"requests": [{"history": ["polish"]}]},
    "/v1/explore": {"history": ["polish"]},
}


async def post(client: Client, route: str = "/v1/recommend", **headers: str) -> Any:
    return await client.post(route, json=BODIES[route], headers=headers)


async def on_bare_asgi(client: Client, receive: Any) -> list[Any]:
    """What the application sends to a request of which only the head is here."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    path = "/v1/recommend"
    addressed = {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""}
    headers = [(b"content-type", b"application/json"), (b"content-length", b"100")]
    await client.app(
        {"type": "http", "method": "POST", "headers": headers, **addressed}, receive, send
    )
    return sent


@pytest.mark.parametrize("route", BODIES)
async def test_a_refusal_is_a_whole_problem_with_the_clients_request_id(
    start_app: AppClient, route: str
) -> None:
    slow = GatedRecommender()
    async with start_app(always(slow), queue_max_requests=1, deadline_ms=30_000) as client:
        asked = [asyncio.create_task(post(client, route)) for _ in range(12)]
        done: set[asyncio.Task[Any]] = set()
        while len(done) < 10:  # all but the one that is computed and the one that waits
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        for refused in done:
            found = check_problem(refused.result(), 429, "queue_full")
            assert "1 requests are waiting" in found["detail"]
        own = await post(client, route, **{"X-Request-ID": "mine-7"})
        assert check_problem(own, 429, "queue_full")["request_id"] == "mine-7"
        slow.gate.set()
        answers = await asyncio.gather(*asked)
        text = await client.scrape()
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 10
    assert 'cofine_admission_rejected_total{reason="queue_full"} 11.0' in text
    labels = f'method="POST",route="{route}",status="429"'
    assert f"cofine_http_request_duration_seconds_count{{{labels}}} 11.0" in text
    assert f'cofine_http_unavailable_total{{route="{route}"}} 11.0' in text


async def test_a_web_page_may_read_a_refusal(start_app: AppClient) -> None:
    slow, shop = GatedRecommender(), "https://shop.example"
    options = {"queue_max_requests": 1, "deadline_ms": 30_000, "cors_origins": shop}
    async with start_app(always(slow), **options) as client:
        asked = [asyncio.create_task(post(client, Origin=shop)) for _ in range(12)]
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        slow.gate.set()
        await asyncio.gather(*asked)
    (refused, *_) = [task.result() for task in done]
    check_problem(refused, 429, "queue_full")
    assert refused.headers["access-control-allow-origin"] == shop
    assert "Retry-After" in refused.headers["access-control-expose-headers"]


async def test_who_would_wait_longer_than_the_deadline_is_refused_at_once(
    start_app: AppClient,
) -> None:
    deadline_ms = 1_000
    async with start_app(always(SlowRecommender()), deadline_ms=deadline_ms) as client:
        assert (await post(client)).status_code == 200  # and now its time is known
        answers = await asyncio.gather(*(post(client) for _ in range(12)))
        text = await client.scrape()
    refused = [answer for answer in answers if answer.status_code == 429]
    # One is computed, and at most three can be waited for.
    assert len(refused) >= 12 - 1 - deadline_ms / 1_000 // COMPUTE_SECONDS
    for answer in refused:
        assert "longer than" in check_problem(answer, 429, "queue_full")["detail"]
    assert f'cofine_admission_rejected_total{{reason="deadline"}} {len(refused)}.0' in text


class PickyRecommender(SlowRecommender):
    """Takes no time for what it refuses."""

    def recommend(self, query: Query) -> Recommendation:
        if query.categories:
            return TableRecommender().recommend(query)
        return super().recommend(query)


async def test_refused_queries_say_nothing_of_how_long_others_take(start_app: AppClient) -> None:
    async with start_app(always(PickyRecommender()), deadline_ms=30_000) as client:
        assert (await post(client)).status_code == 200
        wrong = {"categories": [["Nowhere"]]}
        for _ in range(60):
            assert (await client.post("/v1/recommend", json=wrong)).status_code == 422
        engine = client.app.state.serving.engine
        assert engine.refusal(1, COMPUTE_SECONDS / 2) is Refusal.DEADLINE


async def test_the_body_of_a_refused_request_is_never_read(start_app: AppClient) -> None:
    slow = GatedRecommender()

    async def receive() -> Any:
        raise AssertionError

    async with start_app(always(slow), queue_max_requests=1, deadline_ms=30_000) as client:
        asked = [asyncio.create_task(post(client)) for _ in range(2)]
        assert await asyncio.to_thread(slow.entered.acquire, timeout=10)
        sent = await on_bare_asgi(client, receive)
        slow.gate.set()
        assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200, 200]
    assert sent[0]["status"] == 429


async def test_bodies_that_do_not_come_hold_nobody_up(start_app: AppClient) -> None:
    async def receive() -> Any:
        await asyncio.Event().wait()

    async with start_app(queue_max_requests=1) as client:
        stuck = [asyncio.create_task(on_bare_asgi(client, receive)) for _ in range(5)]
        await asyncio.sleep(0)
        assert (await post(client)).status_code == 200
        for task in stuck:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert (await post(client)).status_code == 200


async def test_refusals_are_counted_in_one_line(
    start_app: AppClient, caplog: pytest.LogCaptureFixture
) -> None:
    slow = GatedRecommender()
    async with start_app(always(slow), queue_max_requests=1, deadline_ms=30_000) as client:
        caplog.clear()
        asked = [asyncio.create_task(post(client)) for _ in range(9)]
        with caplog.at_level(logging.WARNING):
            async with asyncio.timeout(10 * LOG_SECONDS):
                while not caplog.records:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        slow.gate.set()
        await asyncio.gather(*asked)
    (line,) = caplog.records
    assert (line.message, line.__dict__["refused"]) == ("requests_refused", 7)

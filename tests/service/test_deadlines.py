"""A request's own time, and its own beam."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from model.query import Query, Recommendation
from service.routes.recommend import ANSWER_SECONDS
from tests.service.conftest import AppClient, Client
from tests.service.fakes import GatedRecommender, TableRecommender, always
from tests.service.problem_shape import check_problem
from tests.service.test_admission import COMPUTE_SECONDS, SlowRecommender

pytestmark = pytest.mark.anyio


async def post(client: Client, **body: Any) -> Any:
    return await client.post("/v1/recommend", json={"history": ["polish"], **body})


class HurriedRecommender(TableRecommender):
    """Has time for one level."""

    def recommend(self, query: Query) -> Recommendation:
        whole = super().recommend(query)
        items = tuple(replace(item, source="partial") for item in whole.items)
        return replace(whole, items=items, certified=None, levels=1)


@pytest.mark.parametrize("beam", [None, 1, 1_000, "auto"])
async def test_the_beam_reaches_the_recommender(client: Client, beam: Any) -> None:
    assert (await post(client, beam=beam)).status_code == 200
    assert (await post(client)).status_code == 200
    assert [query.beam for query in client.queries] == [beam, None]


@pytest.mark.parametrize(
    ("asked", "served"),
    [(None, 20_000), (8_000, 8_000), (20_000, 20_000), (50_000, 20_000)],
)
async def test_the_time_is_the_requests_or_else_the_services(
    start_app: AppClient, asked: int | None, served: int
) -> None:
    async with start_app(deadline_ms=20_000) as client:
        before = time.perf_counter()
        assert (await post(client, deadline_ms=asked)).status_code == 200
        after = time.perf_counter()
        (query,) = client.queries
    lasts = served / 1_000 - ANSWER_SECONDS
    assert before + lasts <= query.deadline <= after + lasts


async def test_levels_that_there_was_no_time_for_are_told(start_app: AppClient) -> None:
    async with start_app(always(HurriedRecommender())) as client:
        answer = (await post(client, deadline_ms=9_000)).json()
        text = await client.scrape()
    assert answer["degraded"] == {
        "state_unavailable": False,
        "levels": 1,
        "paging": False,
        "explanations": False,
    }
    assert answer["certified"] is None
    assert {item["source"] for item in answer["items"]} == {"partial"}
    assert 'cofine_degraded_total{reason="levels"} 1.0' in text
    assert 'cofine_recommendations_total{source="partial"} 1.0' in text


@pytest.mark.parametrize(("server_ms", "request_ms"), [(30_000, 30), (30, 30_000)])
async def test_the_shorter_time_ends_the_wait(
    start_app: AppClient, server_ms: int, request_ms: int
) -> None:
    slow = GatedRecommender()
    async with start_app(always(slow), deadline_ms=server_ms) as client:
        check_problem(await post(client, deadline_ms=request_ms), 504, "deadline_exceeded")
        assert 'cofine_http_unavailable_total{route="/v1/recommend"} 1.0' in await client.scrape()
        slow.gate.set()


async def test_who_has_less_time_than_the_wait_is_refused(start_app: AppClient) -> None:
    async with start_app(always(SlowRecommender()), deadline_ms=30_000) as client:
        assert (await post(client)).status_code == 200  # and now its time is known
        waiting = [asyncio.create_task(post(client)) for _ in range(3)]
        await asyncio.sleep(0)
        answer = await post(client, deadline_ms=round(COMPUTE_SECONDS * 1_000 / 2))
        found = check_problem(answer, 429, "queue_full")
        assert "longer than" in found["detail"]
        text = await client.scrape()
        assert 'cofine_admission_rejected_total{reason="deadline"} 1.0' in text
        assert 'cofine_http_unavailable_total{route="/v1/recommend"} 1.0' in text
        assert [(await task).status_code for task in waiting] == [200] * 3

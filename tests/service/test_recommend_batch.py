"""Several recommendations in one request: each as if it were alone."""

from typing import Any

import pytest

from service.batch_schemas import REQUESTS_MAX
from tests.service.conftest import AppClient, Client
from tests.service.fakes import BrokenRecommender, always
from tests.service.problem_shape import check_problem

pytestmark = pytest.mark.anyio


async def test_answers_come_in_the_order_of_the_requests(client: Client) -> None:
    requests: list[dict[str, Any]] = [
        {"history": ["polish"], "k": 1},
        {"k": 2},
        {"history": ["soap"]},
    ]

    response = await client.post("/v1/recommend:batch", json={"requests": requests})

    assert response.status_code == 200
    results = response.json()["results"]
    assert [each["problem"] for each in results] == [None, None, None]
    for each, body in zip(results, requests, strict=True):
        alone = (await client.post("/v1/recommend", json=body)).json()
        assert each["answer"]["items"] == alone["items"]
    assert len({each["answer"]["recommendation_id"] for each in results}) == 3


async def test_every_answer_counts_what_it_shows_and_what_follows_it(client: Client) -> None:
    batch = {"requests": [{"history": ["polish"], "k": 4}, {"k": 2}]}
    first, second = (
        each["answer"]
        for each in (await client.post("/v1/recommend:batch", json=batch)).json()["results"]
    )
    for answer, place in ((first, 0), (second, 1)):
        click = {
            "event_id": f"{place}",
            "user_id": "ann",
            "item_id": answer["items"][place]["item_id"],
            "recommendation_id": answer["recommendation_id"],
        }
        assert (await client.post("/v1/events", json=click)).json()["accepted"] == 1

    text = await client.scrape()
    for line in (
        'cofine_impressions_total{rank="1",source="generated"} 1.0',
        'cofine_impressions_total{rank="1",source="popular"} 1.0',
        'cofine_impressions_total{rank="2-3",source="popular"} 3.0',
        'cofine_impressions_total{rank="4-10",source="popular"} 1.0',
        'cofine_attributed_events_total{rank="1",source="generated",type="view"} 1.0',
        'cofine_attributed_events_total{rank="2-3",source="popular",type="view"} 1.0',
    ):
        assert line in text


async def test_one_refusal_leaves_the_others_be(client: Client) -> None:
    requests = [{"categories": [["Moon"]]}, {"k": 1}, {"filters": {"colour": "red"}}]

    response = await client.post("/v1/recommend:batch", json={"requests": requests})

    first, second, third = response.json()["results"]
    assert first["answer"] is None
    assert first["problem"]["status"] == 422
    assert first["problem"]["errors"][0]["pointer"] == "#/categories/0"
    assert second["answer"]["items"][0]["item_id"] == "polish"
    assert third["problem"]["errors"][0]["pointer"] == "#/filters/colour"


async def test_a_batch_is_not_refused_for_its_own_length(start_app: AppClient) -> None:
    async with start_app(workers=1, queue_max_requests=1) as client:
        requests = [{"k": 1}] * REQUESTS_MAX
        response = await client.post("/v1/recommend:batch", json={"requests": requests})

    assert all(each["answer"] for each in response.json()["results"])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/requests"),
        ({"requests": []}, "#/requests"),
        ({"requests": [{}] * (REQUESTS_MAX + 1)}, "#/requests"),
        ({"requests": [{}, {"k": 0}]}, "#/requests/1/k"),
    ],
)
async def test_an_unusable_batch_is_refused_whole(client: Client, body: Any, pointer: str) -> None:
    response = await client.post("/v1/recommend:batch", json=body)

    found = check_problem(response, 422, "invalid_request")
    assert found["errors"][0]["pointer"] == pointer


async def test_a_defect_is_not_told_as_an_answer(start_app: AppClient) -> None:
    async with start_app(always(BrokenRecommender())) as client:
        response = await client.post("/v1/recommend:batch", json={"requests": [{}]})

    check_problem(response, 500, "internal_error")

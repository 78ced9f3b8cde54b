"""Anchors, diversity, exploration and context over HTTP."""

import json
from typing import Any

import pytest

from tests.service.conftest import Client
from tests.service.problem_shape import check_problem
from tests.service.test_explore import shop

__all__ = ["shop"]

pytestmark = pytest.mark.anyio


async def test_anchors_are_the_newest_of_the_history_and_not_returned(client: Client) -> None:
    body = {"history": ["polish"], "anchor": ["soap"], "exclude": ["file"], "exclude_seen": False}

    response = await client.post("/v1/recommend", json=body)

    assert response.status_code == 200
    (query,) = client.queries
    assert list(query.history) == ["polish", "soap"]
    assert list(query.exclude) == ["file", "soap"]
    items = [item["item_id"] for item in response.json()["items"]]
    assert items[0] == "a/b \u00e9"  # of the anchor's category
    assert "soap" not in items


async def test_the_order_reaches_the_recommender(client: Client) -> None:
    await client.post("/v1/recommend", json={"diversity": 0.25})
    await client.post("/v1/recommend", json={"exploration": 1})

    assert [(each.diversity, each.exploration) for each in client.queries] == [(0.25, 0), (0, 1)]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"diversity": 1.01}, "#/diversity"),
        ({"diversity": -0.1}, "#/diversity"),
        ({"diversity": "1"}, "#/diversity"),
        ({"exploration": 2}, "#/exploration"),
        ({"exploration": 0.5, "diversity": 0.5}, "#"),
        ({"anchor": ["a"] * 11}, "#/anchor"),
        ({"context": {str(number): 1 for number in range(17)}}, "#/context"),
        ({"context": {"": 1}}, "#/context/"),
    ],
)
async def test_unusable_orders_are_pointed_at(client: Client, body: Any, pointer: str) -> None:
    response = await client.post("/v1/recommend", json=body)

    found = check_problem(response, 422, "invalid_request")
    assert found["errors"][0]["pointer"].startswith(pointer)


async def test_context_and_propensities_are_logged_with_the_answer(
    shop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="service.routes.recommend")
    context = {"page": "home", "slot": 2, "is_app": True}
    body = {"history": ["a"], "k": 3, "exploration": 0.5, "context": context}

    answer = (await shop.post("/v1/recommend", json=body)).json()
    await shop.post("/v1/recommend", json={"history": ["a"]})

    (record,) = [each for each in caplog.records if each.message == "recommended"]
    logged = record.__dict__
    assert logged["recommendation_id"] == answer["recommendation_id"]
    assert logged["context"] == context
    assert logged["items"] == [item["item_id"] for item in answer["items"]]
    assert logged["propensities"] == [item["propensity"] for item in answer["items"]]
    assert json.dumps(logged["context"])

"""Anchors, diversity, exploration and context over HTTP."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.event_log import segments
from tests.service.conftest import Client
from tests.service.problem_shape import check_problem
from tests.service.test_explore import running_shop

pytestmark = pytest.mark.anyio


async def test_anchors_reach_the_recommender_and_are_not_returned(client: Client) -> None:
    body = {"history": ["polish"], "anchor": ["soap"], "exclude": ["file"], "exclude_seen": False}

    response = await client.post("/v1/recommend", json=body)

    assert response.status_code == 200
    (query,) = client.queries
    assert list(query.history) == ["polish"]
    assert list(query.anchors) == ["soap"]
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


async def test_context_and_propensities_are_in_the_event_log_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    context = {"page": "the page of ann", "slot": 2, "is_app": True}
    body = {"history": ["a"], "k": 3, "exploration": 0.5, "context": context}

    async with running_shop(event_log=tmp_path) as shop:
        answer = (await shop.post("/v1/recommend", json=body)).json()
        await shop.post("/v1/recommend", json={"history": ["a"]})

    text = "".join(path.read_text(encoding="utf-8") for path in segments(tmp_path))
    logged, plain = [json.loads(line) for line in text.splitlines()]
    assert logged["recommendation_id"] == answer["recommendation_id"]
    assert logged["context"] == context
    for name in ("item_id", "propensity"):
        assert [item[name] for item in logged["items"]] == [item[name] for item in answer["items"]]
    assert "context" not in plain
    # Lines of the process are kept by others, beyond any erasure.
    assert not any("the page of ann" in str(record.__dict__) for record in caplog.records)

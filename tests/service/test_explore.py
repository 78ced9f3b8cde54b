"""Browsing over HTTP: the toy bundle behind the real application."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from model.event_log import segments
from model.recommender import Recommender
from service.app import create_app
from service.settings import load_settings
from tests.model.training.evaluation.toy_bundle import toy_bundle
from tests.service.problem_shape import check_problem

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running_shop(**chosen: object) -> AsyncIterator[httpx2.AsyncClient]:
    """The application on the toy bundle; `chosen` are settings."""
    bundle = toy_bundle()
    app = create_app(load_settings(**{"workers": 1, **chosen}), bundle, lambda: Recommender(bundle))
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://cofine.test") as client,
    ):
        yield client


@pytest.fixture
async def shop() -> AsyncIterator[httpx2.AsyncClient]:
    async with running_shop() as client:
        yield client


async def explored(shop: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await shop.post("/v1/explore", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_narrowing_down_from_everything_to_an_item(shop: httpx2.AsyncClient) -> None:
    answer = await explored(shop, history=["a"], exclude_seen=False)
    assert answer["path"] == []
    assert answer["probability"] == pytest.approx(1)
    assert answer["items_here"] == 12
    assert {choice["name"] for choice in answer["choices"]} == {"Kitchen", "Bath", "Garden"}

    clicks, chosen = 0, answer
    while answer["choices"]:
        total = sum(choice["probability"] for choice in answer["choices"])
        assert total == pytest.approx(answer["probability"], rel=1e-5)
        assert sum(choice["items"] for choice in answer["choices"]) == answer["items_here"]
        chosen = answer["choices"][0]
        assert len(chosen["best"]) == min(3, chosen["items"])
        answer = await explored(shop, history=["a"], exclude_seen=False, path=chosen["path"])
        assert answer["probability"] == pytest.approx(chosen["probability"])
        clicks += 1
    assert clicks >= 2
    assert chosen["kind"] == "item"
    assert [item["item_id"] for item in answer["items"]] == [chosen["item_id"]]


async def test_a_users_events_move_the_probabilities(shop: httpx2.AsyncClient) -> None:
    cold = await explored(shop, user_id="ann")
    event = {"event_id": "1", "user_id": "ann", "item_id": "j"}
    assert (await shop.post("/v1/events", json=event)).status_code == 200

    warm = await explored(shop, user_id="ann")

    shares = [{c["name"]: c["probability"] for c in each["choices"]} for each in (cold, warm)]
    assert shares[0] != shares[1]
    inline = await explored(shop, history=["j"])
    assert {c["name"]: c["probability"] for c in inline["choices"]} == shares[1]


async def test_filters_leave_out_choices(shop: httpx2.AsyncClient) -> None:
    answer = await explored(shop, filters={"price": {"max": 5}}, k=0, items_per_choice=1)

    assert {choice["name"]: choice["items"] for choice in answer["choices"]} == {
        "Kitchen": 4,
        "Bath": 2,
    }
    assert answer["items"] == []
    assert all(len(choice["best"]) == 1 for choice in answer["choices"])


async def test_choices_alone_count_as_no_recommendation(shop: httpx2.AsyncClient) -> None:
    answer = await explored(shop, history=["a"], k=1)
    assert answer["items"][0]["source"] == "generated"
    for _ in range(2):
        await explored(shop, history=["a"], k=0)

    counted = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in (await shop.get("/metrics")).text.splitlines()
        if line.startswith(("cofine_recommendations_total", "cofine_certified_total"))
    }
    assert {name: number for name, number in counted.items() if number} == {
        'cofine_recommendations_total{source="generated"}': 1,
        "cofine_certified_total": 1,
    }


async def test_a_path_in_a_recommendation_keeps_to_its_place(shop: httpx2.AsyncClient) -> None:
    body = {"history": ["a"], "path": ["Garden"], "k": 12}
    items = (await shop.post("/v1/recommend", json=body)).json()["items"]

    assert {item["item_id"] for item in items} == set("ijkl")


@pytest.mark.parametrize("route", ["/v1/explore", "/v1/recommend"])
async def test_a_path_that_leads_nowhere_is_pointed_at(
    shop: httpx2.AsyncClient, route: str
) -> None:
    response = await shop.post(route, json={"path": ["Garden", "Moon"]})

    body = check_problem(response, 422, "invalid_request")
    assert body["errors"][0]["pointer"] == "#/path/1"
    assert "there is no 'Moon' below Garden" in body["detail"]


async def test_the_tree_can_be_listed_without_a_user(shop: httpx2.AsyncClient) -> None:
    root = (await shop.get("/v1/taxonomy")).json()
    assert [(each["name"], each["items"]) for each in root["choices"]] == [
        ("Kitchen", 4),
        ("Bath", 4),
        ("Garden", 4),
    ]

    bath = await shop.get("/v1/taxonomy", params=[("path", "Home"), ("path", "Bath")])
    assert bath.json()["path"] == ["Home", "Bath"]
    assert bath.json()["items_here"] == 4
    kinds = {each["name"]: (each["kind"], each["item_id"]) for each in bath.json()["choices"]}
    assert kinds["The e"] == ("item", "e")
    assert ("group", None) in kinds.values()


async def test_a_place_that_is_not_there_is_not_found(shop: httpx2.AsyncClient) -> None:
    response = await shop.get("/v1/taxonomy", params={"path": "Moon"})

    body = check_problem(response, 404, "place_not_found")
    assert "there is no 'Moon' below the root" in body["detail"]


async def test_explain_tells_the_way_and_the_history(shop: httpx2.AsyncClient) -> None:
    body = {"history": ["b", "a", "e"], "k": 2, "explain": True}
    items = (await shop.post("/v1/recommend", json=body)).json()["items"]

    for item in items:
        explanation = item["explanation"]
        assert explanation["way"][0]["name"] == item["path"][-1]
        assert explanation["way"][-1]["kind"] == "item"
        assert [each["item_id"] for each in explanation["influences"]] == ["e", "a", "b"]
        drops = [each["log_prob_drop"] for each in explanation["influences"]]
        # The toy encoder reads the newest item only; something followed a in training, not b.
        assert [drop != 0 for drop in drops] == [True, True, False]
        assert explanation["certified"] is True


async def test_too_long_a_path_is_refused(shop: httpx2.AsyncClient) -> None:
    response = await shop.get("/v1/taxonomy", params=[("path", "x")] * 33)

    assert check_problem(response, 422, "invalid_request")["errors"][0]["parameter"] == "path"


async def test_clicks_on_what_was_explored_are_attributed(
    shop: httpx2.AsyncClient, tmp_path: Path
) -> None:
    async with running_shop(event_log=tmp_path) as logged:
        answer = await explored(logged, user_id="ann", history=["a"], k=2, items_per_choice=2)
        lists = [
            (answer["recommendation_id"], answer["items"]),
            *((each["recommendation_id"], each["best"]) for each in answer["choices"]),
        ]
        clicks = [
            {
                "event_id": f"{number}",
                "user_id": "ann",
                "item_id": items[-1]["item_id"],
                "recommendation_id": recommendation_id,
            }
            for number, (recommendation_id, items) in enumerate(lists)
        ]
        results = (await logged.post("/v1/events", json={"events": clicks})).json()["results"]

    assert [each["attribution"] for each in results] == ["attributed"] * len(lists)
    text = "".join(path.read_text(encoding="utf-8") for path in segments(tmp_path))
    records = {
        record["recommendation_id"]: record
        for record in map(json.loads, text.splitlines())
        if record["kind"] == "impression"
    }
    for recommendation_id, items in lists:
        shown = [(item["item_id"], item["source"]) for item in items]
        written = records[recommendation_id]["items"]
        assert [(item["item_id"], item["source"]) for item in written] == shown
        assert [item["rank"] for item in written] == list(range(1, len(items) + 1))
    empty = await explored(shop, k=0, items_per_choice=0)
    assert empty["recommendation_id"] is None
    assert {each["recommendation_id"] for each in empty["choices"]} == {None}

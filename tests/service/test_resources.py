from urllib.parse import quote

import pytest

from tests.service.conftest import AppClient, Client
from tests.service.problem_shape import check_problem

pytestmark = pytest.mark.anyio


async def test_an_unknown_user_is_empty(client: Client) -> None:
    response = await client.get("/v1/users/nobody")
    assert response.status_code == 200
    assert response.json() == {
        "user_id": "nobody",
        "history": [],
        "history_items": 0,
        "seen_items": 0,
        "disliked": [],
        "seen": [],
        "event_ids": [],
        "events": 0,
        "history_version": 0,
        "served_lists": [],
        "counted_requests": [],
    }


@pytest.mark.parametrize("user_id", ["u", "a/b", "zoë 🧣", "{x}", "50%", "a?b#c", "x" * 256])
async def test_a_user_is_read_and_erased_by_any_id(client: Client, user_id: str) -> None:
    address = f"/v1/users/{quote(user_id, safe='')}"
    event = {"event_id": "1", "user_id": user_id, "item_id": "soap"}
    assert (await client.post("/v1/events", json=event)).status_code == 200
    found = (await client.get(address)).json()
    assert found["user_id"] == user_id
    assert found["history_items"] == found["seen_items"] == found["events"] == 1
    assert (found["seen"], found["event_ids"]) == (["soap"], ["1"])
    erased = await client.delete(address)
    assert erased.status_code == 204
    assert erased.content == b""
    assert (await client.get(address)).json()["history"] == []
    assert (await client.delete(address)).status_code == 204


@pytest.mark.parametrize("address", ["/v1/users/" + "x" * 257, "/v1/users/a%09b", "/v1/users/"])
async def test_an_impossible_user_id_is_refused(client: Client, address: str) -> None:
    for method in ("GET", "DELETE"):
        found = check_problem(await client.request(method, address), 422, "invalid_request")
        assert found["errors"][0]["parameter"] == "user_id"


async def test_an_item_is_described(client: Client) -> None:
    response = await client.get("/v1/items/file")
    assert response.status_code == 200
    assert response.json() == {
        "item_id": "file",
        "title": "Nail file",
        "path": ["Makeup", "Nails"],
        "paths": [["Makeup", "Nails"], ["Gifts"]],
        "semantic_id": [0, 1],
        "available": True,
        "bundle": "table",
        "catalogue_version": 3,
        "neighbours": None,
    }


async def test_an_item_has_neighbours(client: Client) -> None:
    found = (await client.get("/v1/items/polish", params={"neighbours": 2})).json()["neighbours"]
    assert [each["item_id"] for each in found] == ["file", "lipstick"]
    assert found[0] == {
        "item_id": "file",
        "title": "Nail file",
        "path": ["Makeup", "Nails"],
        "semantic_id": [0, 1],
        "likeness": pytest.approx(0.984808, abs=1e-6),
    }
    refused = await client.get("/v1/items/polish", params={"neighbours": 51})
    error = check_problem(refused, 422, "invalid_request")["errors"][0]
    assert error["parameter"] == "neighbours"


async def test_an_item_may_have_an_odd_id(client: Client) -> None:
    assert (await client.get("/v1/items/a%2Fb%20%C3%A9")).json()["title"] == "Odd name"


async def test_an_unknown_item_is_not_found(client: Client) -> None:
    check_problem(await client.get("/v1/items/gone"), 404, "item_not_found")


async def test_info_tells_bundle_levels_and_limits(start_app: AppClient) -> None:
    async with start_app(deadline_ms=77) as client:
        found = (await client.get("/v1/info")).json()
    assert found["bundle"] == "table"
    assert found["items"] == 5
    assert found["levels"] == [
        {"name": "category", "codebook_size": 3},
        {"name": "title", "codebook_size": 5},
    ]
    assert found["limits"]["deadline_ms"] == 77
    assert found["limits"]["history_used_items"] == 20
    assert found["limits"]["category_path_max_names"] == 16
    assert found["limits"]["neighbours_max_candidates"] == 100_000
    assert found["limits"]["pages_seconds"] == 1_800
    assert found["state"] == {"kind": "memory", "available": True}


async def test_alive_and_ready(client: Client) -> None:
    assert (await client.get("/livez")).json() == {"status": "alive"}
    ready = await client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ready",
        "bundle": "table",
        "state": {"kind": "memory", "available": True},
    }


async def test_a_draining_service_lives_and_answers_but_is_not_ready(client: Client) -> None:
    client.app.state.serving.is_draining = True
    check_problem(await client.get("/readyz"), 503, "not_ready")
    assert (await client.get("/livez")).status_code == 200
    assert (await client.post("/v1/recommend", json={})).status_code == 200


async def test_ready_never_waits_for_redis(start_app: AppClient) -> None:
    async with start_app(state_url="redis://127.0.0.1:1/0") as client:
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["state"] == {"kind": "redis", "available": False}


async def test_the_documentation_has_examples_and_the_error_shape(client: Client) -> None:
    document = (await client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    assert schemas["RecommendRequest"]["examples"]
    assert schemas["EventBody"]["examples"]
    assert {"status", "code", "errors"} <= set(schemas["Problem"]["properties"])
    assert "FieldError" in schemas
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], (path, status)
    answers = document["paths"]["/v1/recommend"]["post"]["responses"]
    refused = {"400", "401", "403", "408", "413", "415", "422", "429", "503", "504"}
    assert set(answers) == {"200", *refused}
    promising = {status for status, answer in answers.items() if "headers" in answer}
    assert promising == {"429", "503", "504"}

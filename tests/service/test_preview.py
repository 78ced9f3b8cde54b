"""What a bundle would recommend, seen by an operator only."""

from pathlib import Path

import pytest

from tests.keys import headers_of, write_keys
from tests.service.conftest import AppClient
from tests.service.problem_shape import check_problem

pytestmark = pytest.mark.anyio

BODY = {"history": ["polish"], "k": 2}


async def test_a_preview_is_the_recommendation_without_its_traces(
    start_app: AppClient, tmp_path: Path
) -> None:
    async with start_app(keys=write_keys(tmp_path)) as client:
        admin = headers_of("admin")
        [name] = [
            each["name"]
            for each in (await client.get("/v1/bundles", headers=admin)).json()["bundles"]
        ]
        before = await client.scrape()
        shown = await client.post(f"/v1/bundles/{name}:preview", json=BODY, headers=admin)
        after = await client.scrape()
        served = await client.post("/v1/recommend", json=BODY, headers=headers_of("read"))

    assert shown.status_code == 200, shown.text
    answer = shown.json()
    assert answer["items"] == served.json()["items"]
    assert answer["certified"] is True
    assert (answer["name"], answer["bundle"]) == (name, "table")
    assert "recommendation_id" not in answer

    def counted(text: str) -> list[str]:
        names = ("cofine_impressions_total", "cofine_recommendations_total", "cofine_variant_")
        return [line for line in text.splitlines() if line.startswith(names)]

    assert counted(before) == counted(after)


async def test_a_users_stored_history_counts(start_app: AppClient, tmp_path: Path) -> None:
    async with start_app(keys=write_keys(tmp_path), bundle=tmp_path / "this") as client:
        event = {"event_id": "1", "user_id": "ann", "item_id": "soap"}
        await client.post("/v1/events", json=event, headers=headers_of("write"))
        body = {"user_id": "ann", "k": 1}
        address = "/v1/bundles/this:preview"
        answer = (await client.post(address, json=body, headers=headers_of("admin"))).json()
    assert answer["items"][0]["item_id"] == "a/b é"


async def test_a_scenario_counts(start_app: AppClient, tmp_path: Path) -> None:
    scenarios = tmp_path / "scenarios.toml"
    scenarios.write_text('[home]\nk = 1\npins = [{ position = 1, item_id = "soap" }]\n', "utf-8")
    settings = {"keys": write_keys(tmp_path), "scenarios": scenarios, "bundle": tmp_path / "this"}
    async with start_app(**settings) as client:
        address, body = "/v1/bundles/this:preview", {"scenario": "home"}
        shown = await client.post(address, json=body, headers=headers_of("admin"))
        assert shown.status_code == 200, shown.text
        [query] = client.queries[-1:]
        body = {"scenario": "attic"}
        refused = await client.post(address, json=body, headers=headers_of("admin"))
    assert (query.k, dict(query.pins)) == (1, {1: "soap"})
    problem = check_problem(refused, 422, "invalid_request")
    assert problem["errors"][0]["pointer"] == "#/scenario"


async def test_a_bundle_that_is_not_open_is_not_found(start_app: AppClient, tmp_path: Path) -> None:
    async with start_app(keys=write_keys(tmp_path)) as client:
        response = await client.post(
            "/v1/bundles/other:preview", json=BODY, headers=headers_of("admin")
        )
    assert ":load" in check_problem(response, 404, "bundle_not_found")["detail"]

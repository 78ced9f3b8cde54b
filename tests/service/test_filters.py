"""Conditions on attributes as a request spells them, and what is said of unusable ones."""

import json
from typing import Any

import pytest

from model.attributes import AnyOf, Range
from tests.service.conftest import Client
from tests.service.problem_shape import check_problem

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("Acme", AnyOf(("Acme",))),
        (3, AnyOf((3,))),
        (True, AnyOf((True,))),
        (["a", "b"], AnyOf(("a", "b"))),
        ({"min": 1}, Range(1, None)),
        ({"min": 1, "max": 2.5}, Range(1, 2.5)),
    ],
)
async def test_a_condition_reaches_the_recommender(client: Client, given: Any, meant: Any) -> None:
    response = await client.post("/v1/recommend", json={"filters": {"price": given}})

    assert response.status_code == 200
    assert client.queries[0].filters == {"price": meant}


async def test_an_unknown_attribute_is_named_with_the_ones_there_are(client: Client) -> None:
    response = await client.post("/v1/recommend", json={"filters": {"co/lour": "red"}})

    body = check_problem(response, 422, "invalid_request")
    assert body["errors"][0]["pointer"] == "#/filters/co~1lour"
    assert "'co/lour' is no attribute of this bundle; there is price" in body["detail"]


@pytest.mark.parametrize(
    ("filters", "pointer", "said"),
    [
        ({"price": None}, "#/filters/price", "give a text"),
        ({"price": ""}, "#/filters/price", "give a text"),
        ({"price": "\ud800"}, "#/filters/price", "give a text"),
        ({"price": []}, "#/filters/price", "at least 1 item"),
        ({"price": [None]}, "#/filters/price/0", "give a text"),
        ({"price": ["a"] * 101}, "#/filters/price", "at most 100 items"),
        ({"price": {}}, "#/filters/price", "give min, max or both"),
        ({"price": {"least": 1}}, "#/filters/price/least", "no such field"),
        ({"price": {"min": "1"}}, "#/filters/price/min", "valid number"),
        ({"price": 10**30}, "#/filters/price", "finite number"),
        ({f"a{number}": 1 for number in range(17)}, "#/filters", "at most 16 items"),
        ([], "#/filters", "valid dictionary"),
    ],
)
async def test_an_unusable_condition_is_pointed_at(
    client: Client, filters: Any, pointer: str, said: str
) -> None:
    escaped = json.dumps({"filters": filters})  # spells half surrogate pairs, too
    headers = {"content-type": "application/json"}
    response = await client.post("/v1/recommend", content=escaped, headers=headers)

    body = check_problem(response, 422, "invalid_request")
    assert body["errors"][0]["pointer"] == pointer
    assert said in body["errors"][0]["detail"]


async def test_info_lists_the_attributes(client: Client) -> None:
    info = (await client.get("/v1/info")).json()

    assert info["attributes"] == [{"name": "price", "type": "float"}]
    assert info["limits"]["filters_max_attributes"] == 16

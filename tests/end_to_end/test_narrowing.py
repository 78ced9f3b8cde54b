"""Narrowing and ordering answers, on a real bundle of either decoder, over a real connection."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from model.bundle import Bundle
from tests.end_to_end.service_process import ServiceProcess, ids, recommend
from tests.service.problem_shape import check_problem


@pytest.fixture
def client(shop_service: ServiceProcess) -> Iterator[httpx2.Client]:
    with shop_service.client() as client:
        yield client


@pytest.fixture(scope="module")
def history(shop: Bundle) -> list[str]:
    return [shop.catalog.item_id(leaf) for leaf in (10, 11, 120, 121, 12)]


def explored(client: httpx2.Client, **body: object) -> dict[str, Any]:
    response = client.post("/v1/explore", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_choices_lead_from_everything_to_an_item(
    client: httpx2.Client, shop: Bundle, history: list[str]
) -> None:
    if shop.manifest.decoder == "diffusion":
        response = client.post("/v1/explore", json={"history": history})
        found = check_problem(response, 422, "invalid_request")
        assert "autoregressive bundle" in found["errors"][0]["detail"]
        return
    answer = explored(client, history=history, exclude_seen=False)
    assert answer["items_here"] == len(shop.catalog)
    chosen: dict[str, Any] = {}
    while answer["choices"]:
        total = sum(choice["probability"] for choice in answer["choices"])
        assert total == pytest.approx(answer["probability"], rel=1e-4)
        chosen = answer["choices"][0]
        listed = client.get("/v1/taxonomy", params={"path": answer["path"]}).json()
        assert chosen["path"] in [choice["path"] for choice in listed["choices"]]
        answer = explored(client, history=history, exclude_seen=False, path=chosen["path"])
        assert answer["items_here"] == chosen["items"]
        here = recommend(client, history=history, exclude_seen=False, path=chosen["path"])
        assert ids(here) == ids(answer)
    assert (chosen["kind"], ids(answer)) == ("item", [chosen["item_id"]])


def test_a_place_and_filters_hold_whatever_the_decoder(
    client: httpx2.Client, shop: Bundle, history: list[str]
) -> None:
    top = client.get("/v1/taxonomy").json()["choices"]
    assert sum(choice["items"] for choice in top) == len(shop.catalog)
    place = shop.browse.find(top[0]["path"])
    answer = recommend(client, history=history, path=top[0]["path"], exclude_seen=False, k=100)
    leaves = {shop.catalog.leaf(item_id) for item_id in ids(answer)}
    assert leaves <= set(range(place.first_leaf, place.end_leaf))
    assert len(leaves) == min(100, top[0]["items"])

    dear = ids(recommend(client, history=history, filters={"price": {"min": 20}}, k=100))
    cheap = ids(recommend(client, history=history, filters={"price": {"max": 19.99}}, k=100))
    assert dear
    assert cheap
    assert not set(dear) & set(cheap)
    if shop.manifest.decoder == "autoregressive":  # the other's scores may change with filters
        assert set(ids(recommend(client, history=history, k=100))) <= {*dear, *cheap}


def test_pages_and_a_batch_repeat_nothing_and_lose_nothing(
    client: httpx2.Client, shop: Bundle, history: list[str]
) -> None:
    shown: list[str] = []
    after = None
    for _ in range(4):
        answer = recommend(client, history=history, k=25, after=after)
        shown += ids(answer)
        after = answer["recommendation_id"]
    assert len(set(shown)) == 100

    requests = [{"history": history, "k": 3}, {"categories": [["nowhere"]]}, {"k": 2}]
    results = client.post("/v1/recommend:batch", json={"requests": requests}).json()["results"]
    assert ids(results[0]["answer"]) == shown[:3]
    assert results[1]["problem"]["status"] == 422
    assert len(results[2]["answer"]["items"]) == 2


def test_other_orders_certify_nothing_and_tell_their_chance(
    client: httpx2.Client, history: list[str]
) -> None:
    drawn = recommend(client, history=history, exploration=0.5, k=5)
    assert all(0 < item["propensity"] <= 1 for item in drawn["items"])
    mixed = recommend(client, history=history, diversity=1.0, anchor=history[:1], k=5)
    assert len(set(ids(mixed))) == 5
    assert drawn["certified"] is mixed["certified"] is None

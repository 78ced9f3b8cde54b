"""Everything the API offers, on a real bundle, over a real connection."""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from model.bundle import Bundle
from service.schemas import BEAM_MAX
from tests.end_to_end.service_process import (
    ServiceProcess,
    ids,
    post_event,
    recommend,
    stored,
    wait_until,
)
from tests.service.problem_shape import check_problem

CHAIN = ("generated", "popular_in_category", "popular", "default")


@pytest.fixture
def client(shop_service: ServiceProcess) -> Iterator[httpx2.Client]:
    with shop_service.client() as client:
        yield client


@pytest.fixture(scope="module")
def history(shop: Bundle) -> list[str]:
    """A history made of catalogue items that are not the most popular ones."""
    return [shop.catalog.item_id(leaf) for leaf in (10, 11, 120, 121, 12)]


def check_answer(answer: dict[str, Any], shop: Bundle, *, k: int) -> None:
    """What holds of every answer: k items of the catalogue, best first, none twice."""
    items = answer["items"]
    assert answer["bundle"] == shop.bundle_id
    assert answer["catalogue_version"] == shop.catalogue_version
    assert [item["rank"] for item in items] == list(range(1, k + 1))
    assert len(set(ids(answer))) == k
    scores = [item["score"] for item in items]
    assert scores == sorted(scores, reverse=True)
    sources = [item["source"] for item in items]
    assert sources == sorted(sources, key=CHAIN.index), "one link of the chain follows the other"
    for item in items:
        leaf = shop.catalog.leaf(item["item_id"])
        assert leaf is not None
        assert item["title"] == shop.catalog.title(leaf)
        assert tuple(item["path"]) == shop.catalog.path(leaf)
        assert tuple(item["semantic_id"]) == shop.catalog.semantic_id(leaf)


def test_a_history_gets_generated_items(
    client: httpx2.Client, shop: Bundle, history: list[str]
) -> None:
    answer = recommend(client, history=history, k=7)
    check_answer(answer, shop, k=7)
    assert {item["source"] for item in answer["items"]} == {"generated"}
    assert answer["degraded"] is None
    assert answer["unknown_history_items"] == 0
    assert answer["took_ms"] > 0
    assert not set(ids(answer)) & set(history)
    again = recommend(client, history=history, k=7)
    assert again["items"] == answer["items"]
    assert again["recommendation_id"] != answer["recommendation_id"]


@pytest.mark.parametrize("k", [1, 100])
def test_k_items_come_back(client: httpx2.Client, shop: Bundle, history: list[str], k: int) -> None:
    check_answer(recommend(client, history=history, k=k), shop, k=k)


def test_a_whole_number_may_be_written_as_a_decimal(client: httpx2.Client) -> None:
    assert len(recommend(client, k=3.0)["items"]) == 3


def test_nobody_an_empty_history_and_an_unknown_user_are_cold_starts(
    client: httpx2.Client, shop: Bundle
) -> None:
    by_popularity = ids(recommend(client))
    check_answer(recommend(client), shop, k=10)
    leaves = [shop.catalog.leaf(item_id) for item_id in by_popularity]
    counts = [int(shop.popularity[leaf]) for leaf in leaves]
    assert counts == sorted(shop.popularity.tolist(), reverse=True)[:10]
    bodies: tuple[dict[str, object], ...] = (
        {"history": []},
        {"user_id": "nobody-yet"},
        {"history": ["not an item"]},
    )
    for body in bodies:
        answer = recommend(client, **body)
        assert ids(answer) == by_popularity
        assert {item["source"] for item in answer["items"]} == {"popular"}
    assert recommend(client, history=["x", "y"])["unknown_history_items"] == 2


def test_each_event_is_visible_to_the_next_request(
    client: httpx2.Client, shop: Bundle, history: list[str]
) -> None:
    for number, item_id in enumerate(history, start=1):
        response = post_event(client, f"e{number}", "walker", item_id)
        assert response.json()["accepted"] == 1
        assert stored(client, "walker") == history[:number]
        answer = recommend(client, user_id="walker")
        assert answer["items"] == recommend(client, history=history[:number])["items"]


def test_events_are_stored_once_in_order_of_time_and_erased(
    client: httpx2.Client, history: list[str]
) -> None:
    def event(number: int, at: float) -> dict[str, object]:
        ids = {"event_id": f"b{number}", "user_id": "batch/ü", "item_id": history[number]}
        return {**ids, "timestamp": at, "type": "purchase"}

    batch = {"events": [event(0, 3_000.5), event(1, 1_000), event(0, 3_000.5)]}
    answer = client.post("/v1/events", json=batch).json()
    assert [result["status"] for result in answer["results"]] == [
        "accepted",
        "accepted",
        "duplicate",
    ]
    user = client.get("/v1/users/batch/ü").json()
    assert [entry["item_id"] for entry in user["history"]] == [history[1], history[0]]
    assert user["history"][1] == {
        "item_id": history[0],
        "timestamp": 3_000.5,
        "type": "purchase",
    }
    assert (user["events"], user["seen_items"], user["history_items"]) == (2, 2, 2)
    assert client.delete("/v1/users/batch/ü").status_code == 204
    user = client.get("/v1/users/batch/ü").json()
    assert (user["events"], user["history"], user["history_version"]) == (0, [], 0)


def test_inline_history_keeps_what_the_user_has_stored_as_seen(
    client: httpx2.Client, history: list[str]
) -> None:
    first = ids(recommend(client, history=history))
    post_event(client, "s1", "seer", first[0])
    assert first[0] not in ids(recommend(client, user_id="seer", history=history))
    every = recommend(client, user_id="seer", history=history, exclude_seen=False, k=100)
    assert first[0] in ids(every)


def test_excluded_items_give_way_to_the_next_best(
    client: httpx2.Client, shop: Bundle, history: list[str]
) -> None:
    # So wide that no search leaves out what it finds without the excluded ones.
    wide = {"history": history, "beam": BEAM_MAX}
    answer = recommend(client, **wide, k=20)
    dropped = ids(answer)[:10:2]
    rest = recommend(client, **wide, k=15, exclude=[*dropped, "no such item"])
    check_answer(rest, shop, k=15)
    assert ids(rest) == [item_id for item_id in ids(answer) if item_id not in dropped]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_category_filters_whatever_the_history(
    client: httpx2.Client, shop: Bundle, history: list[str], depth: int
) -> None:
    other = shop.catalog.path(200)[:depth]
    legal = {
        shop.catalog.item_id(leaf)
        for leaf in range(len(shop.catalog))
        if any(path[:depth] == other for path in shop.catalog.paths(leaf))
    } - set(history)
    for asked in (history, []):
        answer = recommend(client, history=asked, categories=[list(other)], k=100)
        assert set(ids(answer)) <= legal
        assert len(answer["items"]) == min(100, len(legal))


def test_explain_adds_a_log_probability_per_level(
    client: httpx2.Client, shop: Bundle, history: list[str]
) -> None:
    if shop.manifest.decoder == "diffusion":
        response = client.post("/v1/recommend", json={"history": history, "explain": True})
        found = check_problem(response, 422, "invalid_request")
        assert found["errors"][0]["pointer"] == "#/explain"
        return
    answer = recommend(client, history=history, explain=True)
    for item in answer["items"]:
        probs = item["level_log_probs"]
        assert len(probs) == len(shop.manifest.levels) + 1
        assert max(probs) <= 1e-6
        assert item["score"] <= sum(probs) + 1e-4
    plain = recommend(client, history=history)
    assert {item["level_log_probs"] for item in plain["items"]} == {None}


def test_items_and_info_tell_the_bundle(client: httpx2.Client, shop: Bundle) -> None:
    item_id = shop.catalog.item_id(42)
    item = client.get(f"/v1/items/{item_id}").json()
    assert item["title"] == shop.catalog.title(42)
    assert tuple(item["semantic_id"]) == shop.catalog.semantic_id(42)
    assert [tuple(path) for path in item["paths"]] == list(shop.catalog.paths(42))
    info = client.get("/v1/info").json()
    assert info["decoder"] == shop.manifest.decoder
    assert (info["bundle"], info["items"]) == (shop.bundle_id, len(shop.catalog))
    assert [level["name"] for level in info["levels"]] == [
        level.name for level in shop.manifest.levels
    ]
    assert info["limits"]["history_used_items"] == shop.manifest.history_length
    assert info["state"] == {"kind": "memory", "available": True}


def test_probes_documentation_and_metrics_answer(
    client: httpx2.Client, shop: Bundle, shop_service: ServiceProcess
) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json()["bundle"] == shop.bundle_id
    document = client.get("/openapi.json").json()
    assert "/v1/recommend" in document["paths"]
    count = (
        'cofine_http_request_duration_seconds_count{method="POST",route="/v1/recommend",'
        'status="200"}'
    )
    before = shop_service.metric(count)
    recommend(client)
    assert shop_service.metric(count) == before + 1
    assert shop_service.metric("cofine_catalog_items") == len(shop.catalog)
    assert "promhttp" not in client.get("/metrics").text


def test_request_ids_are_echoed_or_made(client: httpx2.Client) -> None:
    for path in ("/livez", "/nowhere", "/v1/items/none"):
        response = client.get(path, headers={"X-Request-ID": "mine-1"})
        assert response.headers["x-request-id"] == "mine-1"
    made = client.get("/livez", headers={"X-Request-ID": "spaces are bad"}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", made)


BAD_BODIES: list[tuple[str, object, str]] = [
    ("/v1/recommend", {"k": 0}, "#/k"),
    ("/v1/recommend", {"k": 101}, "#/k"),
    ("/v1/recommend", {"k": "7"}, "#/k"),
    ("/v1/recommend", {"k": 7.5}, "#/k"),
    ("/v1/recommend", {"k": True}, "#/k"),
    ("/v1/recommend", {"histroy": []}, "#/histroy"),
    ("/v1/recommend", {"history": ["a", 7]}, "#/history/1"),
    ("/v1/recommend", {"history": ["i"] * 1_001}, "#/history"),
    ("/v1/recommend", {"user_id": "a\u0000b"}, "#/user_id"),
    ("/v1/recommend", {"user_id": ""}, "#/user_id"),
    ("/v1/recommend", {"categories": [["no such category"]]}, "#/categories/0"),
    ("/v1/recommend", {"categories": [[]]}, "#/categories/0"),
    ("/v1/recommend", [], "#"),
    ("/v1/recommend", None, "#"),
    ("/v1/events", {"user_id": "u", "item_id": "i"}, "#/event_id"),
    ("/v1/events", {"events": []}, "#/events"),
    ("/v1/events", {"events": [{"event_id": "e", "user_id": "u"}]}, "#/events/0/item_id"),
    (
        "/v1/events",
        {"event_id": "e", "user_id": "u", "item_id": "i", "timestamp": 1_700_000_000_000},
        "#/timestamp",
    ),
]


@pytest.mark.parametrize(("path", "body", "pointer"), BAD_BODIES)
def test_bad_fields_are_pointed_at(
    client: httpx2.Client, path: str, body: object, pointer: str
) -> None:
    found = check_problem(client.post(path, json=body), 422, "invalid_request")
    assert found["errors"][0]["pointer"] == pointer


def test_other_bad_requests_are_problems_too(client: httpx2.Client) -> None:
    json_type = {"Content-Type": "application/json"}
    for broken in (b"{", b"\xff", b'{"k": 1', b"{'k': 1}"):
        response = client.post("/v1/recommend", content=broken, headers=json_type)
        check_problem(response, 400, "malformed_request")
    response = client.post("/v1/recommend", content=b"k=1", headers={"Content-Type": "text/plain"})
    check_problem(response, 415, "unsupported_media_type")
    response = client.post("/v1/recommend", content=b" " * 1_048_577, headers=json_type)
    check_problem(response, 413, "body_too_large")
    check_problem(client.get("/v1/items/no-such-item"), 404, "item_not_found")
    check_problem(client.get("/v2/recommend"), 404, "route_not_found")
    check_problem(client.get("/v1/recommend"), 405, "method_not_allowed")
    for bad_id in ("u" * 257, "line%0Abreak", "%00", ""):
        check_problem(client.get(f"/v1/users/{bad_id}"), 422, "invalid_request")


def test_the_log_is_json_and_knows_no_user(
    client: httpx2.Client, shop_service: ServiceProcess, history: list[str]
) -> None:
    post_event(client, "secret-event", "secret-user", history[0])
    recommend(client, user_id="secret-user")
    client.get("/v1/users/secret-user?secret-query=1", headers={"X-Request-ID": "last-line"})
    wait_until(lambda: "last-line" in shop_service.stdout.read_text(), "the log is written")
    log = shop_service.stdout.read_text()
    assert "secret" not in log
    assert all(line.startswith('{"time": ') for line in log.splitlines())
    assert "/v1/users/{user_id}" in log
    assert shop_service.stderr.read_text() == ""

import time
from typing import Any

import pytest

from service.errors import StateUnavailableError
from service.user_state import Event, MemoryUserState, Outcome, StateLimits
from tests.service.conftest import AppClient, Client
from tests.service.problem_shape import check_problem

pytestmark = pytest.mark.anyio


def event(event_id: str = "1", user_id: str = "u", item_id: str = "soap") -> dict[str, Any]:
    return {"event_id": event_id, "user_id": user_id, "item_id": item_id}


async def history(client: Client, user_id: str = "u") -> list[dict[str, Any]]:
    response = await client.get(f"/v1/users/{user_id}")
    found: list[dict[str, Any]] = response.json()["history"]
    return found


async def test_one_event_is_stored(client: Client) -> None:
    response = await client.post(
        "/v1/events", json={**event(), "timestamp": 12.3456, "type": "buy"}
    )
    assert response.status_code == 200
    assert response.json() == {
        "results": [{"event_id": "1", "status": "accepted", "attribution": None}],
        "accepted": 1,
        "duplicates": 0,
    }
    assert await history(client) == [{"item_id": "soap", "timestamp": 12.346, "type": "buy"}]


async def test_several_events_are_told_in_their_order(client: Client) -> None:
    await client.post("/v1/events", json=event("1", "u"))
    batch = [event("3", "v"), event("1", "u"), event("2", "u", "not in the catalogue")]
    response = await client.post("/v1/events", json={"events": batch})
    assert response.json() == {
        "results": [
            {"event_id": "3", "status": "accepted", "attribution": None},
            {"event_id": "1", "status": "duplicate", "attribution": None},
            {"event_id": "2", "status": "accepted", "attribution": None},
        ],
        "accepted": 2,
        "duplicates": 1,
    }
    assert [entry["item_id"] for entry in await history(client)] == ["soap", "not in the catalogue"]


async def test_an_event_without_a_time_happened_now(client: Client) -> None:
    before = time.time()
    await client.post("/v1/events", json=event())
    [entry] = await history(client)
    assert before - 0.001 <= entry["timestamp"] <= time.time()
    assert entry["type"] == "view"


async def test_a_disliked_item_is_in_no_answer_to_the_user(client: Client) -> None:
    await client.post("/v1/events", json=event("1", "u", "polish"))
    await client.post("/v1/events", json={**event("2", "u", "file"), "type": "dislike"})
    assert [entry["item_id"] for entry in await history(client)] == ["polish"]
    assert (await client.get("/v1/users/u")).json()["disliked"] == ["file"]
    for body in ({}, {"exclude_seen": False}, {"history": ["file"], "exclude_seen": False}):
        answer = await client.post("/v1/recommend", json={"user_id": "u", **body})
        items = [item["item_id"] for item in answer.json()["items"]]
        assert items
        assert "file" not in items
        explored = (await client.post("/v1/explore", json={"user_id": "u", **body})).text
        assert "polish" in explored or "lipstick" in explored
        assert '"file"' not in explored
        batch = {"requests": [{"user_id": "u", **body}]}
        assert '"file"' not in (await client.post("/v1/recommend:batch", json=batch)).text
    others = await client.post("/v1/recommend", json={"user_id": "v"})
    assert "file" in [item["item_id"] for item in others.json()["items"]]


INVALID = [
    ({}, "#/event_id"),
    ({**event(), "event_id": ""}, "#/event_id"),
    ({**event(), "user_id": "x" * 257}, "#/user_id"),
    ({**event(), "item_id": None}, "#/item_id"),
    ({**event(), "price": 3}, "#/price"),
    ({**event(), "timestamp": "now"}, "#/timestamp"),
    ({**event(), "timestamp": -1}, "#/timestamp"),
    ({**event(), "timestamp": 1_700_000_000_000}, "#/timestamp"),
    ({**event(), "timestamp": True}, "#/timestamp"),
    ({**event(), "type": "a|b"}, "#/type"),
    ({**event(), "type": "x" * 33}, "#/type"),
    ({**event(), "recommendation_id": ""}, "#/recommendation_id"),
    ({**event(), "recommendation_id": "x" * 1_025}, "#/recommendation_id"),
    ({"events": []}, "#/events"),
    ({"events": [event()] * 101}, "#/events"),
    ({"events": {}}, "#/events"),
    ({"events": [event(), {**event(), "item_id": ""}]}, "#/events/1/item_id"),
    ({"events": [event()], "user_id": "u"}, "#/user_id"),
    ([event()], "#"),
]


@pytest.mark.parametrize(("body", "pointer"), INVALID, ids=[str(case)[:40] for case in INVALID])
async def test_unusable_events_are_pointed_at(
    client: Client, body: dict[str, Any], pointer: str
) -> None:
    found = check_problem(await client.post("/v1/events", json=body), 422, "invalid_request")
    assert found["errors"][0]["pointer"] == pointer
    assert await history(client) == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_a_time_must_be_finite(client: Client, number: str) -> None:
    text = '{"event_id": "1", "user_id": "u", "item_id": "soap", "timestamp": ' + number + "}"
    response = await client.post(
        "/v1/events", content=text, headers={"content-type": "application/json"}
    )
    found = check_problem(response, 422, "invalid_request")
    assert found["errors"][0]["pointer"] == "#/timestamp"


class HalfBrokenStore(MemoryUserState):
    """Is not available for some users."""

    def __init__(self, broken: set[str]) -> None:
        super().__init__(StateLimits())
        self.broken = broken

    async def append(
        self, user_id: str, events: Any, *, deadline_seconds: float
    ) -> tuple[Outcome, ...]:
        if user_id in self.broken:
            raise StateUnavailableError("timeout")
        return await super().append(user_id, events, deadline_seconds=deadline_seconds)


async def test_a_503_tells_which_events_are_stored_and_can_be_repeated(client: Client) -> None:
    store = HalfBrokenStore({"v"})
    await store.append("u", [Event("0", "hat", 1)], deadline_seconds=1)
    client.app.state.serving.store = store
    body = {"events": [event("1", "u"), event("2", "v"), event("0", "u"), event("3", "w")]}
    found = check_problem(
        await client.post("/v1/events", json=body), 503, "events_not_stored", more=("results",)
    )
    statuses = [result["status"] for result in found["results"]]
    assert statuses == ["accepted", "unconfirmed", "duplicate", "accepted"]
    store.broken.clear()
    again = (await client.post("/v1/events", json=body)).json()
    statuses = [result["status"] for result in again["results"]]
    assert statuses == ["duplicate", "accepted", "duplicate", "duplicate"]


async def test_events_are_counted(client: Client) -> None:
    await client.post("/v1/events", json={"events": [event("1"), event("1"), event("2")]})
    text = await client.scrape()
    assert 'cofine_state_events_total{outcome="accepted"} 2.0' in text
    assert 'cofine_state_events_total{outcome="duplicate"} 1.0' in text
    assert 'cofine_state_events_total{outcome="dropped"} 0.0' in text


async def test_events_are_attributed_to_the_answer_they_name(client: Client) -> None:
    shown = (await client.post("/v1/recommend", json={"history": ["polish"]})).json()
    named = {"recommendation_id": shown["recommendation_id"]}
    first, second = (item["item_id"] for item in shown["items"][:2])
    batch = [
        {**event("1", "u", first), **named},
        {**event("1", "u", first), **named},  # a duplicate counts once
        {**event("2", "u", second), **named, "type": "purchase"},
        {**event("3", "u", "elsewhere"), **named},
        {**event("4", "u", first), "recommendation_id": "forged"},
        event("5", "u", first),
    ]
    results = (await client.post("/v1/events", json={"events": batch})).json()["results"]
    assert [(result["status"], result["attribution"]) for result in results] == [
        ("accepted", "attributed"),
        ("duplicate", "attributed"),
        ("accepted", "attributed"),
        ("accepted", "not_served"),
        ("accepted", "invalid"),
        ("accepted", None),
    ]
    text = await client.scrape()
    sources = [item["source"] for item in shown["items"]]
    assert sources == ["generated", "popular", "popular", "popular"]
    clicked = 'cofine_attributed_events_total{rank="1",source="generated",type="view"} 1.0'
    assert clicked in text
    bought = 'cofine_attributed_events_total{rank="2-3",source="popular",type="purchase"} 1.0'
    assert bought in text
    for source, rank, count in (
        ("generated", "1", 1),
        ("popular", "2-3", 2),
        ("popular", "4-10", 1),
        ("popular", "31+", 0),
    ):
        assert f'cofine_impressions_total{{rank="{rank}",source="{source}"}} {count}.0' in text
    for reason in ("none", "invalid", "not_served"):
        assert f'cofine_unattributed_events_total{{reason="{reason}"}} 1.0' in text


async def test_ids_are_known_to_every_process_with_the_secret(start_app: AppClient) -> None:
    old, new = "o" * 32, "n" * 32
    async with start_app(recommendation_secrets=old) as client:
        shown = (await client.post("/v1/recommend", json={})).json()
    body = {**event("1", "u", shown["items"][0]["item_id"])}
    body["recommendation_id"] = shown["recommendation_id"]
    for secrets, expected in ((f"{new},{old}", "attributed"), (new, "invalid")):
        async with start_app(recommendation_secrets=secrets) as client:
            [result] = (await client.post("/v1/events", json=body)).json()["results"]
            assert result["attribution"] == expected


async def test_the_stored_history_is_bounded_by_the_settings(start_app: AppClient) -> None:
    async with start_app(history_max_items=3, seen_max_items=4) as client:
        batch = [event(str(number), "u", f"i{number}") for number in range(6)]
        await client.post("/v1/events", json={"events": batch})
        found = (await client.get("/v1/users/u")).json()
        assert [entry["item_id"] for entry in found["history"]] == ["i3", "i4", "i5"]
        assert found["seen_items"] == 4
        assert found["events"] == 6

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
        "results": [{"event_id": "1", "status": "accepted"}],
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
            {"event_id": "3", "status": "accepted"},
            {"event_id": "1", "status": "duplicate"},
            {"event_id": "2", "status": "accepted"},
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


async def test_the_stored_history_is_bounded_by_the_settings(start_app: AppClient) -> None:
    async with start_app(history_max_items=3, seen_max_items=4) as client:
        batch = [event(str(number), "u", f"i{number}") for number in range(6)]
        await client.post("/v1/events", json={"events": batch})
        found = (await client.get("/v1/users/u")).json()
        assert [entry["item_id"] for entry in found["history"]] == ["i3", "i4", "i5"]
        assert found["seen_items"] == 4
        assert found["events"] == 6

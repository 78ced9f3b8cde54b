"""POST /v1/events."""

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from service.errors import EventsNotStoredError, StateUnavailableError
from service.routes.answers import InServing, json_answer, problems
from service.schemas import EventBatch, EventBody, EventResult, EventsAnswer, EventsRequest
from service.scopes import allows
from service.serving import Serving
from service.user_state import Event, Outcome, wall_clock_ms

router = APIRouter(tags=["events"])


@router.post(
    "/v1/events",
    openapi_extra=allows("publishable", "write"),
    response_model=EventsAnswer,
    responses=problems(400, 408, 413, 415, 422, 503),
)
async def events(body: EventsRequest, serving: InServing) -> Response:
    """Store what users did: one event, or several as `{"events": [...]}`.

    An event is in the state exactly once when the answer is 200, however often it is sent:
    `event_id` names it, per user, for a limited time (see /v1/info). Each user's events of a
    request are stored all or none, ordered by their time; users are stored independently. When the
    store does not answer in time for some user the answer is 503 and its `results` tell which
    events are stored; sending the whole request again is safe.
    """
    batch = list(body.events) if isinstance(body, EventBatch) else [body]
    results = await store_events(serving, batch)
    accepted = sum(result.status == "accepted" for result in results)
    return json_answer(
        EventsAnswer(results=results, accepted=accepted, duplicates=len(results) - accepted)
    )


async def store_events(serving: Serving, batch: list[EventBody]) -> list[EventResult]:
    """Store the events, all users at once, and return what became of each.

    Raises:
        EventsNotStoredError: at least one user's events are not known to be stored.
    """
    now_ms = wall_clock_ms()
    places_by_user: dict[str, list[int]] = {}
    for place, event in enumerate(batch):
        places_by_user.setdefault(event.user_id, []).append(place)
    outcomes = await asyncio.gather(
        *(
            _append(serving, user_id, [_event(batch[place], now_ms) for place in places])
            for user_id, places in places_by_user.items()
        )
    )
    results = [EventResult(event_id=event.event_id, status="unconfirmed") for event in batch]
    for places, stored in zip(places_by_user.values(), outcomes, strict=True):
        for place, outcome in zip(places, stored or (), strict=False):
            results[place].status = outcome
    _count(serving, results)
    if None in outcomes:
        raise EventsNotStoredError(
            "error", extensions={"results": [result.model_dump() for result in results]}
        )
    return results


async def _append(
    serving: Serving, user_id: str, user_events: list[Event]
) -> tuple[Outcome, ...] | None:
    """Return the outcome of each event, None when the store is not available."""
    deadline_seconds = serving.settings.state_write_deadline_ms / 1_000
    try:
        return await serving.store.append(user_id, user_events, deadline_seconds=deadline_seconds)
    except StateUnavailableError:
        return None


def _event(event: EventBody, now_ms: int) -> Event:
    at_ms = now_ms if event.timestamp is None else round(event.timestamp * 1_000)
    return Event(event.event_id, event.item_id, at_ms, event.type)


def _count(serving: Serving, results: list[EventResult]) -> None:
    for result in results:
        outcome = "dropped" if result.status == "unconfirmed" else result.status
        serving.metrics.state_events[outcome].inc()

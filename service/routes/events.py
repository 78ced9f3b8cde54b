"""POST /v1/events."""

import asyncio
from dataclasses import asdict, dataclass

from fastapi import APIRouter
from starlette.responses import Response

from service.errors import (
    EventLogUnavailableError,
    EventsNotStoredError,
    StateUnavailableError,
)
from service.event_log import EventLog
from service.metrics import Metrics
from service.recommendation_id import Attribution, UnattributedReason
from service.routes.answers import InServing, json_answer, problems
from service.schemas import EventBatch, EventBody, EventResult, EventsAnswer, EventsRequest
from service.scopes import allows
from service.serving import Serving
from service.user_state import Event, wall_clock_ms

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
    request are stored all or none, ordered by their time; users are stored independently. With an
    event log, 200 says too that the events are on its disk. When the store does not answer in time
    for some user, or the log cannot be written, the answer is 503 and its `results` tell which
    events are stored; sending the whole request again is safe.
    """
    batch = list(body.events) if isinstance(body, EventBatch) else [body]
    results = await store_events(serving, batch)
    accepted = sum(result.status == "accepted" for result in results)
    return json_answer(
        EventsAnswer(results=results, accepted=accepted, duplicates=len(results) - accepted)
    )


@dataclass(frozen=True)
class _Posted:
    """An event on its way through the state and the log."""

    body: EventBody
    event: Event
    attribution: Attribution | UnattributedReason | None
    result: EventResult


async def store_events(serving: Serving, batch: list[EventBody]) -> list[EventResult]:
    """Store the events, all users at once, then log them, and return what became of each.

    Raises:
        EventsNotStoredError: at least one event is not known to be stored and logged.
    """
    now_ms = wall_clock_ms()
    posted = [_post(serving, body, now_ms) for body in batch]
    by_user: dict[str, list[_Posted]] = {}
    for each in posted:
        by_user.setdefault(each.body.user_id, []).append(each)
    await asyncio.gather(*(_store(serving, *user) for user in by_user.items()))
    # Now, for whoever repeats an event that could not be logged is told that it is a duplicate.
    for each in posted:
        if each.result.status == "accepted":
            _count_attribution(serving.metrics, each)
    if serving.event_log is not None:
        await _log(serving.event_log, posted, serving.settings.state_write_deadline_ms / 1_000)
    for each in posted:
        status = each.result.status
        serving.metrics.state_events["dropped" if status == "unconfirmed" else status].inc()
    results = [each.result for each in posted]
    if any(result.status == "unconfirmed" for result in results):
        raise EventsNotStoredError([result.model_dump() for result in results])
    return results


def _post(serving: Serving, body: EventBody, now_ms: int) -> _Posted:
    at_ms = now_ms if body.timestamp is None else round(body.timestamp * 1_000)
    attribution = None
    if body.recommendation_id is not None:
        attribution = serving.recommendation_ids.attribute(body.recommendation_id, body.item_id)
    worth = "attributed" if isinstance(attribution, Attribution) else attribution
    return _Posted(
        body,
        Event(body.event_id, body.item_id, at_ms, body.type),
        attribution,
        EventResult(event_id=body.event_id, status="unconfirmed", attribution=worth),
    )


async def _store(serving: Serving, user_id: str, posted: list[_Posted]) -> None:
    """Store one user's events; they stay unconfirmed when the store is not available."""
    deadline_seconds = serving.settings.state_write_deadline_ms / 1_000
    events = [each.event for each in posted]
    try:
        outcomes = await serving.store.append(user_id, events, deadline_seconds=deadline_seconds)
    except StateUnavailableError:
        return
    for each, outcome in zip(posted, outcomes, strict=True):
        each.result.status = outcome


async def _log(log: EventLog, posted: list[_Posted], deadline_seconds: float) -> None:
    """Log what is in the state; it becomes unconfirmed again when the log is not available.

    Duplicates too: the event may be the repetition of one that is in the state and not in the log.
    """
    stored = [each for each in posted if each.result.status != "unconfirmed"]
    if not stored:
        return
    records = [_record(each) for each in stored]
    try:
        await log.append("event", records, deadline_seconds=deadline_seconds)
    except EventLogUnavailableError:
        for each in stored:
            each.result.status = "unconfirmed"


def _record(posted: _Posted) -> dict[str, object]:
    """Return the event as the log has it (see `model/event_log.py`)."""
    body = posted.body
    record: dict[str, object] = {
        "event_id": body.event_id,
        "user_id": body.user_id,
        "item_id": body.item_id,
        "timestamp": posted.event.timestamp_ms / 1_000,
        "type": body.type,
    }
    if body.recommendation_id is not None:
        record["recommendation_id"] = body.recommendation_id
    if isinstance(posted.attribution, Attribution):
        record |= asdict(posted.attribution)
    return record


def _count_attribution(metrics: Metrics, posted: _Posted) -> None:
    """Count an accepted event by what it follows."""
    attribution = posted.attribution
    if isinstance(attribution, Attribution):
        metrics.count_attributed(posted.body.type, attribution.source, attribution.rank)
    else:
        metrics.unattributed_events[attribution or "none"].inc()

"""GET and DELETE /v1/users/{user_id}."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.keys_file import KeysFile
from service.routes.answers import InServing, UserId, json_answer, problems
from service.schemas import HistoryEntryBody, UserAnswer
from service.scopes import allows
from service.serving import Serving

# `:id`, because a user id may hold a slash.
router = APIRouter(tags=["users"])


@router.get(
    "/v1/users/{user_id:id}",
    response_model=UserAnswer,
    responses=problems(422, 503),
    openapi_extra=allows("read"),
)
async def read_user(user_id: UserId, serving: InServing) -> Response:
    """Tell what is stored of a user; an unknown user has an empty history.

    Of what is kept for an hour at most, the items of pages served and the counts of requests,
    nothing is told; an erasure takes it as well.
    """
    deadline_seconds = serving.settings.state_write_deadline_ms / 1_000
    state = await serving.store.read(user_id, deadline_seconds=deadline_seconds)
    event_ids = await serving.store.event_ids(user_id, deadline_seconds=deadline_seconds)
    history = [
        HistoryEntryBody(
            item_id=entry.item_id, timestamp=entry.timestamp_ms / 1_000, type=entry.type
        )
        for entry in state.history
    ]
    return json_answer(
        UserAnswer(
            user_id=user_id,
            history=history,
            history_items=len(history),
            seen_items=len(state.seen),
            disliked=list(state.disliked),
            seen=list(state.seen),
            event_ids=sorted(event_ids),
            events=state.events,
            history_version=state.version,
        )
    )


@router.delete(
    "/v1/users/{user_id:id}",
    status_code=204,
    responses=problems(422, 503),
    openapi_extra=allows("write"),
)
async def erase_user(user_id: UserId, request: Request, serving: InServing) -> Response:
    """Erase everything stored of a user; 204 also for an unknown one.

    In the event log what was logged of the user no longer counts from now on, and the next
    compaction, which every `cofine prepare` does, removes it from the files.
    """
    deadline_seconds = serving.settings.state_write_deadline_ms / 1_000
    await serving.store.erase(user_id, deadline_seconds=deadline_seconds)
    await _forget_limits(serving, request.app.state.keys, user_id, deadline_seconds)
    if serving.event_log is not None:
        await serving.event_log.erase(user_id, deadline_seconds=deadline_seconds)
    return Response(status_code=204)


async def _forget_limits(
    serving: Serving, keys: KeysFile, user_id: str, deadline_seconds: float
) -> None:
    """Drop the user's buckets of every key whose users are counted one by one."""
    buckets = [
        key.bucket(user_id) for key in (keys.ring.keys if keys.ring else ()) if key.is_publishable
    ]
    await asyncio.gather(
        *(serving.rate_limits.forget(each, deadline_seconds=deadline_seconds) for each in buckets)
    )

"""GET and DELETE /v1/users/{user_id}."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api_keys import ApiKey
from service.keys_file import KeysFile
from service.routes.answers import InServing, UserId, json_answer, problems
from service.schemas import CountedRequestsBody, HistoryEntryBody, ServedListBody, UserAnswer
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
async def read_user(user_id: UserId, request: Request, serving: InServing) -> Response:
    """Tell everything that the state holds of a user; an unknown user has an empty history.

    What the event log holds is told by /v1/event-log.
    """
    deadline_seconds = serving.settings.state_write_deadline_ms / 1_000
    store = serving.store
    state = await store.read(user_id, deadline_seconds=deadline_seconds)
    event_ids = await store.event_ids(user_id, deadline_seconds=deadline_seconds)
    lists = await store.lists_of(user_id, deadline_seconds=deadline_seconds)
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
            served_lists=[
                ServedListBody(
                    recommendation_id=each.recommendation_id,
                    expires=each.expires_ms / 1_000,
                    items=list(each.items),
                )
                for each in lists
            ],
            counted_requests=await _counted_requests(
                serving, request.app.state.keys, user_id, deadline_seconds
            ),
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


async def _counted_requests(
    serving: Serving, keys: KeysFile, user_id: str, deadline_seconds: float
) -> list[CountedRequestsBody]:
    """Return what is counted of the user, key by key."""
    counted = []
    for key in _keys_of_users(keys):
        if key.limit is not None:
            requests = await serving.rate_limits.counted(
                key.bucket(user_id), key.limit, deadline_seconds=deadline_seconds
            )
            counted.append(CountedRequestsBody(key=key.name, requests=requests))
    return [each for each in counted if each.requests]


async def _forget_limits(
    serving: Serving, keys: KeysFile, user_id: str, deadline_seconds: float
) -> None:
    buckets = [key.bucket(user_id) for key in _keys_of_users(keys)]
    await asyncio.gather(
        *(serving.rate_limits.forget(each, deadline_seconds=deadline_seconds) for each in buckets)
    )


def _keys_of_users(keys: KeysFile) -> list[ApiKey]:
    """Return the keys whose users are counted one by one."""
    return [key for key in (keys.ring.keys if keys.ring else ()) if key.is_publishable]

"""GET /v1/event-log."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response, StreamingResponse

from service.routes.answers import InServing, problems
from service.schemas import Identifier
from service.scopes import allows

MEDIA_TYPE = "application/x-ndjson"
_LINES = {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
router = APIRouter(tags=["users"])


class EventLogQuery(BaseModel):
    """Whose records are asked for; other parameters are refused."""

    model_config = ConfigDict(extra="forbid")

    user_id: Identifier


@router.get(
    "/v1/event-log",
    response_class=Response,
    responses={200: {"description": "One JSON object per line.", **_LINES}, **problems(422, 503)},
    openapi_extra=allows("read"),
)
async def logged(of: Annotated[EventLogQuery, Query()], serving: InServing) -> Response:
    """Tell what the event log holds of a user: events and impressions, one JSON object per line.

    Every service's that writes to the same log, but not what an erasure covers, nor what has been
    moved out of the log. The whole log is searched and the answer sent meanwhile: an answer that
    breaks off is not whole. Empty without an event log.
    """
    log = serving.event_log
    if log is None:
        return Response(media_type=MEDIA_TYPE)
    deadline_seconds = serving.settings.state_write_deadline_ms / 1_000
    found = await log.records_of(of.user_id, deadline_seconds=deadline_seconds)
    return StreamingResponse(_not_empty(found), media_type=MEDIA_TYPE)


async def _not_empty(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Leave out empty pieces: in HTTP an empty chunk is the end."""
    async for piece in pieces:
        if piece:
            yield piece

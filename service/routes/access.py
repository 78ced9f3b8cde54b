"""GET /v1/access."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.access_control import caller_of
from service.routes.answers import json_answer
from service.schemas import AccessAnswer
from service.scopes import OPEN_SCOPES, SCOPES, allows

router = APIRouter(tags=["access"])


@router.get("/v1/access", response_model=AccessAnswer, openapi_extra=allows(*SCOPES))
async def access(request: Request) -> Response:
    """Tell what the caller may do, so that a page can leave out the rest."""
    caller = caller_of(request)
    scopes = OPEN_SCOPES if caller.key is None else caller.key.scopes
    return json_answer(
        AccessAnswer(
            access="open" if caller.key is None else "keys",
            scopes=sorted(scopes, key=SCOPES.index),
            user_id=caller.user_id,
        )
    )

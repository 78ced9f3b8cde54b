"""GET /livez and /readyz."""

from fastapi import APIRouter
from starlette.responses import Response

from service.errors import NotReadyError
from service.routes.answers import InServing, json_answer, problems
from service.schemas import LiveAnswer, ReadyAnswer, StateBody
from service.scopes import allows
from service.serving import Serving

router = APIRouter(tags=["health"])


@router.get("/livez", response_model=LiveAnswer, openapi_extra=allows())
async def livez() -> Response:
    """Say that the process answers; depends on nothing."""
    return json_answer(LiveAnswer())


@router.get("/readyz", response_model=ReadyAnswer, responses=problems(503), openapi_extra=allows())
async def readyz(serving: InServing) -> Response:
    """Say whether to send requests here: the bundle is verified and the service is not draining.

    The state's store is reported and not required, because recommendations go on without it.
    """
    if serving.is_draining:
        raise NotReadyError("the service is draining; use another replica", retry_after_seconds=1)
    return json_answer(ReadyAnswer(bundle=serving.bundle.bundle_id, state=state_body(serving)))


def state_body(serving: Serving) -> StateBody:
    """Return the store's kind, and whether it answered lately."""
    return StateBody.model_validate(
        {"kind": serving.store.kind, "available": serving.store.is_available}
    )

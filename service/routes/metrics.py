"""GET /metrics."""

from fastapi import APIRouter
from starlette.responses import Response

from service.metrics import CONTENT_TYPE
from service.routes.answers import InServing
from service.scopes import allows

router = APIRouter(tags=["metrics"])


@router.get("/metrics", response_class=Response, openapi_extra=allows())
def metrics(serving: InServing) -> Response:
    """Tell all metrics in Prometheus' text format.

    Not a coroutine: rendering takes milliseconds, which a thread can spend beside the event loop.
    """
    return Response(serving.metrics.render(), media_type=CONTENT_TYPE)

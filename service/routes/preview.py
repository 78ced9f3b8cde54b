"""POST /v1/bundles/{name}:preview."""

import time
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from service.errors import InvalidFieldError
from service.preview_schemas import PreviewAnswer
from service.rollout import BundleName
from service.routes.answers import InServing, json_answer, problems, while_connected
from service.routes.recommend import compute, deadline_of, degraded, item_body, query_of, read_state
from service.scenarios import blamed, scenario_of
from service.schemas import RecommendRequest
from service.scopes import allows
from service.serving import Serving

router = APIRouter(tags=["bundles"])

Name = Annotated[BundleName, Path(description="Of a bundle that is open; see GET /v1/bundles.")]


@router.post(
    "/v1/bundles/{name}:preview",
    openapi_extra=allows("admin"),
    response_model=PreviewAnswer,
    responses=problems(400, 404, 408, 413, 415, 422, 429, 503, 504),
)
async def preview(
    name: Name, body: RecommendRequest, request: Request, serving: InServing
) -> Response:
    """Tell what a bundle would recommend, whatever its role, to compare it with another one.

    The request is one of /v1/recommend. Nobody is shown the answer: it is no impression, it has no
    next page, and no metric counts it; `after` and `context` are of no effect.
    """
    return json_answer(await while_connected(request, _answer(serving, name, body)))


async def _answer(serving: Serving, name: str, body: RecommendRequest) -> PreviewAnswer:
    started = time.perf_counter()
    given, scenario = body, scenario_of(serving.scenarios.content, body)
    body = scenario.preset(given)
    deadline = deadline_of(serving, body.deadline_ms)
    served = serving.variants.named(name)
    state, is_degraded = await read_state(serving, body.user_id, deadline)
    query = replace(query_of(body, state, deadline), pins=scenario.pinned, boosts=scenario.boosted)
    try:
        found = await compute(served, query, deadline)
    except InvalidFieldError as error:
        raise blamed(error, given) from None
    return PreviewAnswer(
        name=name,
        bundle=served.bundle.bundle_id,
        decoder=served.bundle.manifest.decoder,
        items=[
            item_body(item, explain=body.explain, certified=found.certified) for item in found.items
        ],
        degraded=degraded(found, state_unavailable=is_degraded),
        certified=found.certified,
        took_ms=round((time.perf_counter() - started) * 1_000, 3),
        unknown_history_items=found.unknown_history_items,
    )

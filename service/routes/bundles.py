"""GET /v1/bundles, and POST /v1/bundles/{name}:load, :activate and :rollback."""

import asyncio
import logging
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from service.access_control import caller_of
from service.rollout import BundleName
from service.routes.answers import InServing, json_answer, problems
from service.schemas import ActivateRequest, BundleBody, BundlesAnswer
from service.scopes import allows
from service.serving import Serving

router = APIRouter(tags=["bundles"])

Name = Annotated[BundleName, Path(description="Of a folder below COFINE_BUNDLES.")]
_REFUSALS = problems(404, 409, 422, 503)
_LOGGER = logging.getLogger(__name__)


@router.get("/v1/bundles", response_model=BundlesAnswer, openapi_extra=allows("admin"))
async def bundles(serving: InServing) -> Response:
    """Tell which bundle has which role on this replica, and which ones there are."""
    return await _answer(serving)


@router.post(
    "/v1/bundles/{name}:load",
    response_model=BundlesAnswer,
    responses=_REFUSALS,
    openapi_extra=allows("admin"),
)
async def load(name: Name, request: Request, serving: InServing) -> Response:
    """Open, verify and warm up a bundle, here and then on every replica; it serves nobody yet."""
    await serving.variants.load(name)
    return await _changed(request, serving, "load")


@router.post(
    "/v1/bundles/{name}:activate",
    response_model=BundlesAnswer,
    responses={**_REFUSALS, **problems(400, 408, 413, 415)},
    openapi_extra=allows("admin"),
)
async def activate(
    name: Name, body: ActivateRequest, request: Request, serving: InServing
) -> Response:
    """Give a bundle a role, here and within about a second on every replica.

    It is opened and verified first; what fails changes nothing. No request is dropped: each keeps
    the bundle that it began with. What was active before stays open for a rollback.
    """
    await serving.variants.activate(name, body.role, body.percent)
    return await _changed(request, serving, "activate")


@router.post(
    "/v1/bundles/{name}:rollback",
    response_model=BundlesAnswer,
    responses=_REFUSALS,
    openapi_extra=allows("admin"),
)
async def roll_back(name: Name, request: Request, serving: InServing) -> Response:
    """Take a bundle's role away: the one that was active before serves again, at once."""
    await serving.variants.roll_back(name)
    return await _changed(request, serving, "rollback")


async def _changed(request: Request, serving: Serving, what: str) -> Response:
    key = caller_of(request).key
    facts = {"change": what, "key": None if key is None else key.name}
    _LOGGER.info("rollout_changed", extra={**facts, "version": serving.variants.rollout.version})
    return await _answer(serving)


async def _answer(serving: Serving) -> Response:
    variants = serving.variants
    found = await asyncio.to_thread(lambda: list(serving.folder.references()))
    known = sorted({*found, *variants.rollout.references}, key=lambda each: each.name)
    return json_answer(
        BundlesAnswer(
            rollout=variants.rollout,
            failure=variants.failure,
            bundles=[
                BundleBody(
                    name=each.name,
                    bundle=each.bundle,
                    open=each in variants.open_bundles,
                    catalogue_failure=variants.catalogue_failure(each),
                )
                for each in known
            ],
        )
    )

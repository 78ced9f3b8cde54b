"""POST /v1/explore and GET /v1/taxonomy: from broad to narrow, place by place."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from model.browse import Place
from model.errors import UnknownPlaceError
from model.explore import Choice
from model.query import Recommendation
from service.errors import PlaceNotFoundError
from service.explore_schemas import (
    BestItem,
    ChoiceBody,
    ExploreAnswer,
    ExploreRequest,
    PlaceBody,
    TaxonomyAnswer,
    TaxonomyQuery,
)
from service.impressions import NamedItem, Shown
from service.routes.answers import InServing, json_answer, problems, while_connected
from service.routes.recommend import (
    compute,
    count,
    deadline_of,
    degraded,
    item_body,
    query_of,
    read_state,
)
from service.scopes import allows
from service.serving import ServedCatalog, Serving
from service.variants import Served

PATH = "/v1/explore"
router = APIRouter(tags=["explore"])


@router.post(
    PATH,
    openapi_extra=allows("publishable", "read"),
    response_model=ExploreAnswer,
    responses=problems(400, 408, 413, 415, 422, 429, 503, 504),
)
async def explore(body: ExploreRequest, request: Request, serving: InServing) -> Response:
    """Tell where below `path` a user is likely to find the next item, and the best items there.

    Begin without a path, let people pick a choice, and send its path: categories first, then
    groups named by their most telling title words, then items.
    """
    return json_answer(await while_connected(request, answer_explore(serving, body)))


@router.get(
    "/v1/taxonomy",
    openapi_extra=allows("read"),
    response_model=TaxonomyAnswer,
    responses=problems(404, 422, 503),
)
async def taxonomy(serving: InServing, where: Annotated[TaxonomyQuery, Query()]) -> Response:
    """List the tree that people browse, one place at a time, without a user."""
    bundle = serving.bundle
    try:
        place = bundle.browse.find(where.path)
    except UnknownPlaceError as error:
        raise PlaceNotFoundError(str(error)) from None
    return json_answer(
        TaxonomyAnswer(
            bundle=bundle.bundle_id,
            catalogue_version=bundle.catalogue_version,
            path=place.path,
            items_here=bundle.live_items(place.first_leaf, place.end_leaf),
            choices=[
                _place_body(each, live, bundle.catalog)
                for each in bundle.browse.choices(place)
                if (live := bundle.live_items(each.first_leaf, each.end_leaf))
            ],
        )
    )


async def answer_explore(serving: Serving, body: ExploreRequest) -> ExploreAnswer:
    """Return the answer to a valid request.

    Raises:
        InvalidFieldError: a category, filter or path that the catalogue does not have.
        QueueFullError: too many requests wait.
        DeadlineExceededError: the answer was not ready in time.
    """
    started = time.perf_counter()
    deadline = deadline_of(serving, body.deadline_ms)
    state, is_degraded = await read_state(serving, body.user_id, deadline)
    query = query_of(body, state, deadline, choices=body.items_per_choice)
    served = serving.variants.serving(body.user_id)
    found = await compute(served, query, deadline)
    count(serving.metrics, found, body.k, is_degraded=is_degraded)
    made_by = served.made_by(found)
    here = found.place
    record = partial(_record, serving, served, body.user_id)
    return ExploreAnswer(
        recommendation_id=record(found.items),
        bundle=served.bundle.bundle_id,
        variant=served.role,
        catalogue_version=made_by.catalogue_version,
        path=here.place.path if here else (),
        probability=here.probability if here else 0.0,
        items_here=here.live_items if here else 0,
        choices=[_choice_body(choice, found, made_by.catalog, record) for choice in found.choices],
        items=[item_body(item) for item in found.items],
        degraded=degraded(found, state_unavailable=is_degraded),
        took_ms=round((time.perf_counter() - started) * 1_000, 3),
        unknown_history_items=found.unknown_history_items,
    )


def _place_body(place: Place, items: int, catalog: ServedCatalog) -> PlaceBody:
    return PlaceBody(
        name=place.name,
        path=place.path,
        kind=place.kind,
        items=items,
        item_id=catalog.item_id(place.first_leaf) if place.kind == "item" else None,
    )


def _choice_body(
    choice: Choice,
    found: Recommendation,
    catalog: ServedCatalog,
    record: Callable[[Sequence[Shown]], str | None],
) -> ChoiceBody:
    searched = "generated" if found.levels is None else "partial"
    named = [
        NamedItem(catalog.item_id(leaf), rank, searched if rank <= choice.searched else "popular")
        for rank, leaf in enumerate(choice.best, start=1)
    ]
    best = [
        BestItem(item_id=item.item_id, title=catalog.title(leaf), source=item.source)
        for item, leaf in zip(named, choice.best, strict=True)
    ]
    place = _place_body(choice.place, choice.live_items, catalog)
    return ChoiceBody(
        **place.model_dump(),
        probability=choice.probability,
        best=best,
        recommendation_id=record(named),
    )


def _record(
    serving: Serving, served: Served, user_id: str | None, items: Sequence[Shown]
) -> str | None:
    """Return the recommendation id of a list that is shown; each has its own ranks."""
    if not items:
        return None
    return serving.impressions.record(
        user_id, items, bundle=served.bundle.bundle_id, variant=served.role, asked={}
    )

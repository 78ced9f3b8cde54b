"""GET /v1/items/{item_id}."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from model.neighbours import Neighbour
from model.neighbours import neighbours as nearest_items
from service.errors import ItemNotFoundError
from service.routes.answers import InServing, ItemId, json_answer, problems
from service.schemas import NEIGHBOURS_MAX, ItemAnswer, NeighbourBody
from service.scopes import allows
from service.serving import ServedBundle, ServedCatalog

router = APIRouter(tags=["items"])

NeighboursWanted = Annotated[
    int,
    Query(
        ge=0,
        le=NEIGHBOURS_MAX,
        description="How many of the items whose vectors are nearest to tell; in a catalogue of "
        "more than 100,000 items, of those with the nearest semantic IDs.",
    ),
]


@router.get(
    "/v1/items/{item_id:id}",
    response_model=ItemAnswer,
    responses=problems(404, 422),
    openapi_extra=allows("read"),
)
async def read_item(
    item_id: ItemId, serving: InServing, neighbours: NeighboursWanted = 0
) -> Response:
    """Tell an item's title, category paths and semantic ID, and which items are like it."""
    bundle = serving.bundle
    catalog = bundle.catalog
    leaf = catalog.leaf(item_id)
    if leaf is None:
        raise ItemNotFoundError("the catalogue in service does not hold this item_id")
    return json_answer(
        ItemAnswer(
            item_id=item_id,
            title=catalog.title(leaf),
            path=catalog.path(leaf),
            paths=list(catalog.paths(leaf)),
            semantic_id=catalog.semantic_id(leaf),
            available=bundle.live_items(leaf, leaf + 1) == 1,
            bundle=bundle.bundle_id,
            catalogue_version=bundle.catalogue_version,
            neighbours=await _nearest(bundle, leaf, neighbours) if neighbours else None,
        )
    )


async def _nearest(bundle: ServedBundle, leaf: int, k: int) -> list[NeighbourBody]:
    # In a thread: reading all vectors takes milliseconds that other requests would wait for.
    found = await asyncio.to_thread(nearest_items, bundle.tree.item_vectors, leaf, k)
    return [_neighbour_body(bundle.catalog, each) for each in found]


def _neighbour_body(catalog: ServedCatalog, neighbour: Neighbour) -> NeighbourBody:
    return NeighbourBody(
        item_id=catalog.item_id(neighbour.leaf),
        title=catalog.title(neighbour.leaf),
        path=catalog.path(neighbour.leaf),
        semantic_id=catalog.semantic_id(neighbour.leaf),
        likeness=round(neighbour.likeness, 6),
    )

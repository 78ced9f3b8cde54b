"""GET /v1/items/{item_id}."""

from fastapi import APIRouter
from starlette.responses import Response

from service.errors import ItemNotFoundError
from service.routes.answers import InServing, ItemId, json_answer, problems
from service.schemas import ItemAnswer
from service.scopes import allows

router = APIRouter(tags=["items"])


@router.get(
    "/v1/items/{item_id:id}",
    response_model=ItemAnswer,
    responses=problems(404, 422),
    openapi_extra=allows("read"),
)
async def read_item(item_id: ItemId, serving: InServing) -> Response:
    """Tell an item's title, category paths and semantic ID."""
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
        )
    )

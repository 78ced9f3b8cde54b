"""PUT /v1/items, and POST /v1/items/{item_id}:hide, :show, :availability and :reset."""

import asyncio
from collections.abc import Mapping, Sequence

from fastapi import APIRouter
from starlette.responses import Response

from model.attributes import AttributeType, suits
from model.errors import ModelError
from service.catalogue_schemas import (
    CatalogueAnswer,
    ItemBatch,
    ItemBody,
    ItemsRequest,
    OfferRequest,
)
from service.errors import BundleRefusedError, InvalidFieldError, ItemNotFoundError
from service.item_edits import HIDDEN, PARTS, Change
from service.routes.answers import InServing, ItemId, json_answer, problems
from service.scopes import allows
from service.serving import Serving

router = APIRouter(tags=["catalogue"])

_REFUSALS = problems(404, 409, 422, 503)
_BODY_REFUSALS = problems(400, 408, 413, 415)


@router.put(
    "/v1/items",
    response_model=CatalogueAnswer,
    responses={**problems(409, 422, 503), **_BODY_REFUSALS},
    openapi_extra=allows("write"),
)
async def put_items(body: ItemsRequest, serving: InServing) -> Response:
    """Put one item or several into the catalogue, or in the place of those of the same ids.

    They are given codes and vectors by the bundle's own encoders and can be recommended when the
    answer comes, on other replicas within a second. An item of the bundle whose title and category
    paths stay as they are keeps its place. What is sent is kept: a new bundle reads it again.
    """
    items = body.items if isinstance(body, ItemBatch) else [body]
    is_batch = isinstance(body, ItemBatch)
    _check_attributes(serving, items, is_batch=is_batch)
    try:
        widths = await asyncio.to_thread(serving.variants.active.live.embedding_widths)
    except ModelError as error:
        raise BundleRefusedError(f"the bundle in service cannot take items: {error}") from None
    _check_embeddings(widths, items, is_batch=is_batch)
    changes = [change for item in items for change in item.changes()]
    return await _written(serving, changes, [item.item_id for item in items])


@router.post(
    "/v1/items/{item_id:id}:hide",
    response_model=CatalogueAnswer,
    responses=_REFUSALS,
    openapi_extra=allows("write"),
)
async def hide(item_id: ItemId, serving: InServing) -> Response:
    """Recommend the item no more, until it is shown again; histories may still name it."""
    return await _edited(serving, item_id, [Change(item_id, "hidden", HIDDEN)])


@router.post(
    "/v1/items/{item_id:id}:show",
    response_model=CatalogueAnswer,
    responses=_REFUSALS,
    openapi_extra=allows("write"),
)
async def show(item_id: ItemId, serving: InServing) -> Response:
    """Take back that the item is hidden."""
    return await _edited(serving, item_id, [Change(item_id, "hidden", None)])


@router.post(
    "/v1/items/{item_id:id}:availability",
    response_model=CatalogueAnswer,
    responses={**_REFUSALS, **_BODY_REFUSALS},
    openapi_extra=allows("write"),
)
async def set_availability(item_id: ItemId, body: OfferRequest, serving: InServing) -> Response:
    """Tell the item's stock and the time in which it can be had; what is left out is no limit.

    Out of stock or out of its time an item is not recommended; that takes effect by the clock.
    """
    return await _edited(serving, item_id, [body.offer_change(item_id)])


@router.post(
    "/v1/items/{item_id:id}:reset",
    response_model=CatalogueAnswer,
    responses=_REFUSALS,
    openapi_extra=allows("write"),
)
async def reset(item_id: ItemId, serving: InServing) -> Response:
    """Take all edits of the item back: it is as the bundle has it, or gone."""
    return await _edited(serving, item_id, [Change(item_id, part, None) for part in PARTS])


async def _edited(serving: Serving, item_id: str, changes: Sequence[Change]) -> Response:
    is_exported = serving.bundle.catalog.leaf(item_id) is not None
    if not is_exported and not await serving.catalogue.knows(item_id):
        raise ItemNotFoundError("the catalogue in service does not hold this item_id")
    return await _written(serving, changes, [item_id])


async def _written(
    serving: Serving, changes: Sequence[Change], item_ids: Sequence[str]
) -> Response:
    version = await serving.catalogue.write(changes)
    return json_answer(CatalogueAnswer(catalogue_version=version, items=list(item_ids)))


def _check_attributes(serving: Serving, items: Sequence[ItemBody], *, is_batch: bool) -> None:
    types = {each.name: each.type for each in serving.bundle.manifest.attributes}
    for place, item in enumerate(items):
        for name, value in item.attributes.items():
            refusal = _refusal(types, name, value)
            if refusal is not None:
                where = f"#/items/{place}" if is_batch else "#"
                raise InvalidFieldError(refusal, pointer=f"{where}/attributes/{_escaped(name)}")


def _check_embeddings(
    widths: Mapping[str, int], items: Sequence[ItemBody], *, is_batch: bool
) -> None:
    """Refuse embeddings that the bundle does not read, or not in this width."""
    there = ", ".join(f"{name} ({width} numbers)" for name, width in sorted(widths.items()))
    for place, item in enumerate(items):
        for name, numbers in item.embeddings.items():
            if widths.get(name) != len(numbers):
                where = f"#/items/{place}" if is_batch else "#"
                raise InvalidFieldError(
                    f"embedding {name!r} of {len(numbers)} numbers is not one that the bundle in "
                    f"service reads codes from; there is {there or 'none'}",
                    pointer=f"{where}/embeddings/{_escaped(name)}",
                )


def _escaped(name: str) -> str:
    """Return a name as it stands in a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _refusal(types: dict[str, AttributeType], name: str, value: str | float | bool) -> str | None:
    """Return why an item cannot have this attribute, None where it can."""
    if name not in types:
        there = ", ".join(sorted(types)) or "none"
        return f"attribute {name!r} is not one of the bundle in service; there is {there}"
    if not suits(types[name], value):
        return f"attribute {name!r} is of type {types[name]}; give a value of this type"
    return None

"""GET /v1/info."""

from fastapi import APIRouter
from starlette.responses import Response

from model.neighbours import CANDIDATES_MAX
from service import batch_schemas, catalogue_schemas, explore_schemas, filters, schemas
from service.item_edits import EDITED_ITEMS_MAX, EDITS_MAX_BYTES
from service.recommendation_id import ATTRIBUTION_SECONDS
from service.routes.answers import InServing, json_answer
from service.routes.health import state_body
from service.schemas import AttributeBody, InfoAnswer, LevelBody
from service.scopes import allows
from service.served_lists import LIST_MAX_ITEMS, LIST_TTL_MS, USER_LISTS_MAX
from service.serving import service_version
from service.settings import Settings

router = APIRouter(tags=["info"])


@router.get("/v1/info", response_model=InfoAnswer, openapi_extra=allows("read"))
async def info(serving: InServing) -> Response:
    """Tell the bundle in service, its levels, and the limits of requests."""
    bundle = serving.bundle
    return json_answer(
        InfoAnswer(
            version=service_version(),
            bundle=bundle.bundle_id,
            catalogue_version=bundle.catalogue_version,
            items=len(bundle.catalog),
            decoder=bundle.manifest.decoder,
            levels=[
                LevelBody(name=level.name, codebook_size=level.codes)
                for level in bundle.manifest.levels
            ],
            attributes=[
                AttributeBody(name=each.name, type=each.type) for each in bundle.manifest.attributes
            ],
            scenarios=sorted(serving.scenarios.content),
            limits={
                "history_used_items": bundle.manifest.history_length,
                **_limits(serving.settings),
            },
            state=state_body(serving),
            access="open" if serving.settings.keys is None else "keys",
        )
    )


def _limits(settings: Settings) -> dict[str, int]:
    return {
        "k_max_items": schemas.K_MAX,
        "beam_max": schemas.BEAM_MAX,
        "history_max_items": schemas.HISTORY_MAX,
        "exclude_max_items": schemas.EXCLUDE_MAX,
        "categories_max_paths": schemas.CATEGORIES_MAX,
        "category_path_max_names": schemas.CATEGORY_DEPTH_MAX,
        "filters_max_attributes": filters.FILTERS_MAX,
        "filter_max_values": filters.FILTER_VALUES_MAX,
        "path_max_names": schemas.PATH_MAX,
        "items_per_choice_max": explore_schemas.ITEMS_PER_CHOICE_MAX,
        "neighbours_max_items": schemas.NEIGHBOURS_MAX,
        "neighbours_max_candidates": CANDIDATES_MAX,
        "batch_max_requests": batch_schemas.REQUESTS_MAX,
        "anchors_max_items": schemas.ANCHORS_MAX,
        "context_max_entries": schemas.CONTEXT_MAX,
        "events_max_per_request": schemas.EVENTS_MAX,
        "items_max_per_request": catalogue_schemas.ITEMS_MAX,
        "edited_items_max": EDITED_ITEMS_MAX,
        "edits_max_bytes": EDITS_MAX_BYTES,
        "title_max_characters": catalogue_schemas.TITLE_MAX,
        "description_max_characters": catalogue_schemas.DESCRIPTION_MAX,
        "item_max_paths": catalogue_schemas.PATHS_MAX,
        "item_max_attributes": catalogue_schemas.ATTRIBUTES_MAX,
        "id_max_characters": schemas.ID_MAX,
        "body_max_bytes": settings.body_max_bytes,
        "body_deadline_ms": settings.body_deadline_ms,
        "deadline_ms": settings.deadline_ms,
        "queue_max_requests": settings.queue_max_requests,
        "stored_history_max_items": settings.history_max_items,
        "stored_seen_max_items": settings.seen_max_items,
        "stored_event_ids_max": settings.event_ids_max,
        "event_id_window_seconds": settings.event_id_window_seconds,
        "state_ttl_seconds": settings.state_ttl_seconds,
        "recommendation_id_max_characters": schemas.RECOMMENDATION_ID_MAX,
        "attribution_seconds": ATTRIBUTION_SECONDS,
        "pages_max_items": LIST_MAX_ITEMS,
        "pages_max_lists": USER_LISTS_MAX,
        "pages_seconds": LIST_TTL_MS // 1_000,
    }

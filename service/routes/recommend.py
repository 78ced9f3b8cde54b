"""POST /v1/recommend."""

import time
from collections.abc import Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.errors import UnknownCategoryError
from model.recommender import Query, Recommendation, RecommendedItem
from service.errors import InvalidFieldError, StateUnavailableError
from service.metrics import Metrics
from service.routes.answers import InServing, json_answer, problems, while_connected
from service.schemas import Degraded, RecommendAnswer, RecommendedItemBody, RecommendRequest
from service.scopes import allows
from service.serving import Serving
from service.tracing import record_stage
from service.user_state import UserState

PATH = "/v1/recommend"
ANSWER_SECONDS = 0.002
"""Of a request's time: for building and sending the answer once the items are there."""
LATE_SECONDS = 0.003
"""How late an answer that is nearly there may be, instead of none."""
router = APIRouter(tags=["recommend"])


@router.post(
    PATH,
    openapi_extra=allows("publishable", "read"),
    response_model=RecommendAnswer,
    responses=problems(400, 408, 413, 415, 422, 429, 503, 504),
)
async def recommend(body: RecommendRequest, request: Request, serving: InServing) -> Response:
    """Recommend items for a user, a history or nobody in particular.

    `user_id` uses the stored history; `history` (oldest first) is used instead when given, and the
    user's stored items then still count as seen. An unknown user or an empty history gets popular
    items. When the stored state cannot be read in time the answer is made without it and says
    `degraded.state_unavailable`; stored seen items may then appear. With a short `deadline_ms` only
    the coarse levels may be searched, and the answer says `degraded.levels`.
    """
    answer = await while_connected(request, answer_recommend(serving, body))
    return json_answer(answer)


async def answer_recommend(serving: Serving, body: RecommendRequest) -> RecommendAnswer:
    """Return the answer to a valid request.

    Raises:
        InvalidFieldError: a category that no item has.
        QueueFullError: too many requests wait.
        DeadlineExceededError: the answer was not ready in time.
    """
    started = time.perf_counter()
    deadline_seconds = _deadline_seconds(serving, body)
    deadline = started + deadline_seconds
    state, is_degraded = await _read_state(serving, body.user_id, deadline_seconds)
    query = _query(body, state, deadline - ANSWER_SECONDS)
    served = serving.variants.serving(body.user_id)
    left_seconds = deadline + LATE_SECONDS - time.perf_counter()
    try:
        found = await served.engine.recommend(query, deadline_seconds=left_seconds)
    except UnknownCategoryError as error:
        raise _unknown_category(body.categories, error) from None
    _count(serving.metrics, found, body.k, is_degraded=is_degraded)
    serving.variants.shadow(query, found)
    seconds = time.perf_counter() - started
    source = found.items[0].source if found.items else "empty"
    serving.metrics.variant_answers[served.role, source].inc()
    serving.metrics.variant_duration[served.role].observe(seconds)
    return RecommendAnswer(
        recommendation_id=serving.impressions.record(
            body.user_id, found.items, bundle=served.bundle.bundle_id, variant=served.role
        ),
        bundle=served.bundle.bundle_id,
        variant=served.role,
        catalogue_version=served.bundle.catalogue_version,
        items=[_item_body(item, explain=body.explain) for item in found.items],
        degraded=_degraded(found, is_degraded=is_degraded),
        certified=found.certified,
        took_ms=round(seconds * 1_000, 3),
        unknown_history_items=found.unknown_history_items,
    )


def _deadline_seconds(serving: Serving, body: RecommendRequest) -> float:
    most_ms = serving.settings.deadline_ms
    return (most_ms if body.deadline_ms is None else min(body.deadline_ms, most_ms)) / 1_000


def _degraded(found: Recommendation, *, is_degraded: bool) -> Degraded | None:
    if not is_degraded and found.levels is None:
        return None
    return Degraded(state_unavailable=is_degraded, levels=found.levels)


async def _read_state(
    serving: Serving, user_id: str | None, deadline_seconds: float
) -> tuple[UserState, bool]:
    """Return the user's state, and whether it is missing because the store is not available.

    At most half of the request's time is spent on it: the other half is for an answer without it.
    """
    if user_id is None:
        return UserState(), False
    most_seconds = serving.settings.state_read_deadline_ms / 1_000
    started = time.perf_counter()
    try:
        state = await serving.store.read(
            user_id, deadline_seconds=min(most_seconds, deadline_seconds / 2)
        )
    except StateUnavailableError:
        return UserState(), True
    finally:
        ended = time.perf_counter()
        serving.metrics.stage_duration["state"].observe(ended - started)
        record_stage("state", started, ended)
    return state, False


def _query(body: RecommendRequest, state: UserState, deadline: float) -> Query:
    stored = [entry.item_id for entry in state.history]
    is_inline = body.history is not None
    return Query(
        history=body.history if body.history is not None else stored,
        k=body.k,
        exclude=[*body.exclude, *state.disliked],
        seen=[*state.seen, *stored] if is_inline else state.seen,
        exclude_seen=body.exclude_seen,
        categories=body.categories,
        beam=body.beam,
        deadline=deadline,
    )


def _unknown_category(
    categories: Sequence[Sequence[str]], error: UnknownCategoryError
) -> InvalidFieldError:
    place = [tuple(path) for path in categories].index(error.path)
    return InvalidFieldError(
        "the category path is not in the catalogue; "
        "give a list of names from coarse to fine, as in an item's path",
        pointer=f"#/categories/{place}",
    )


def _count(metrics: Metrics, found: Recommendation, k: int, *, is_degraded: bool) -> None:
    for stage, seconds in found.stage_seconds.items():
        metrics.stage_duration[stage].observe(seconds)
    metrics.recommendations[found.items[0].source if found.items else "empty"].inc()
    metrics.unknown_history_items.inc(found.unknown_history_items)
    if len(found.items) < k:
        metrics.beam_shortfall.inc()
    if found.certified:
        metrics.certified.inc()
    if is_degraded:
        metrics.degraded["state_unavailable"].inc()
    if found.levels is not None:
        metrics.degraded["levels"].inc()


def _item_body(item: RecommendedItem, *, explain: bool) -> RecommendedItemBody:
    return RecommendedItemBody(
        item_id=item.item_id,
        rank=item.rank,
        score=item.score,
        source=item.source,
        title=item.title,
        path=item.path,
        semantic_id=item.semantic_id,
        level_log_probs=item.level_log_probs if explain else None,
    )

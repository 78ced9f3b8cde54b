"""POST /v1/recommend."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.errors import (
    BoostError,
    FilterError,
    NoLevelsError,
    UnknownCategoryError,
    UnknownPlaceError,
)
from model.explain import Explanation
from model.query import Query, Recommendation, RecommendedItem
from service.errors import InvalidFieldError, StateUnavailableError
from service.explore_schemas import ExploreRequest
from service.filters import conditions, filter_pointer
from service.metrics import Metrics
from service.routes.answers import InServing, json_answer, problems, while_connected
from service.scenarios import Scenario, blamed, probe, scenario_of
from service.schemas import (
    Degraded,
    ExplanationBody,
    InfluenceBody,
    RecommendAnswer,
    RecommendedItemBody,
    RecommendRequest,
    StepBody,
)
from service.scopes import allows
from service.serving import Serving
from service.tracing import record_stage
from service.user_state import UserState
from service.variants import Served

PATH = "/v1/recommend"
ANSWER_SECONDS = 0.002
"""Of a request's time: for building and sending the answer once the items are there."""
TRY_SECONDS = 30.0
"""For trying a scenario out before it is in force."""
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
        InvalidFieldError: a category that no item has, a filter that the bundle has not, or a
            scenario that there is not.
        QueueFullError: too many requests wait.
        DeadlineExceededError: the answer was not ready in time.
    """
    started = time.perf_counter()
    given, scenario = body, scenario_of(serving.scenarios.content, body)
    body = scenario.preset(given)
    deadline = deadline_of(serving, body.deadline_ms)
    state, is_degraded = await read_state(serving, body.user_id, deadline)
    earlier = await _earlier_pages(serving, body, deadline)
    query = query_of(body, state, deadline)
    query = replace(
        query,
        exclude=[*query.exclude, *(earlier or ())],
        pins=scenario.pinned,
        boosts=scenario.boosted,
    )
    served = serving.variants.serving(body.user_id)
    try:
        found = await compute(served, query, deadline)
    except InvalidFieldError as error:
        raise blamed(error, given) from None
    count(serving.metrics, found, body.k, is_degraded=is_degraded)
    serving.variants.shadow(query, found)
    recommendation_id = serving.impressions.record(
        body.user_id,
        found.items,
        bundle=served.bundle.bundle_id,
        variant=served.role,
        asked={"scenario": body.scenario, "context": body.context},
    )
    if not is_degraded:  # a last page, too: whoever asks beyond it shall get nothing twice
        shown = [*(earlier or ()), *(item.item_id for item in found.items)]
        await serving.pages.keep(body.user_id, recommendation_id, shown)
    is_unpaged = body.after is not None and earlier is None
    if is_unpaged:
        serving.metrics.degraded["paging"].inc()
    seconds = time.perf_counter() - started
    _count_variant(serving.metrics, served, found, seconds)
    return RecommendAnswer(
        recommendation_id=recommendation_id,
        bundle=served.bundle.bundle_id,
        variant=served.role,
        catalogue_version=served.made_by(found).catalogue_version,
        items=[
            item_body(item, explain=body.explain, certified=found.certified) for item in found.items
        ],
        degraded=degraded(found, state_unavailable=is_degraded, paging=is_unpaged),
        certified=found.certified,
        took_ms=round(seconds * 1_000, 3),
        unknown_history_items=found.unknown_history_items,
    )


async def try_scenario(serving: Serving, scenario: Scenario) -> None:
    """Ask for what a scenario asks for.

    Raises:
        InvalidFieldError: it names what the bundle in service does not have.
    """
    deadline = time.perf_counter() + TRY_SECONDS
    await compute(serving.variants.serving(None), probe(scenario), deadline)


def deadline_of(serving: Serving, deadline_ms: int | None) -> float:
    """Return when the answer to a request that came now has to be there (`perf_counter`)."""
    most_ms = serving.settings.deadline_ms
    given_ms = most_ms if deadline_ms is None else min(deadline_ms, most_ms)
    return time.perf_counter() + given_ms / 1_000


def degraded(
    found: Recommendation, *, state_unavailable: bool, paging: bool = False
) -> Degraded | None:
    """Return what an answer had to do without, None for nothing."""
    answer = Degraded(
        state_unavailable=state_unavailable,
        levels=found.levels,
        paging=paging,
        explanations=found.is_partly_explained,
    )
    return None if answer == Degraded(state_unavailable=False) else answer


async def _earlier_pages(
    serving: Serving, body: RecommendRequest, deadline: float
) -> tuple[str, ...] | None:
    """Return the items of the pages before, None when there are none or they are not known."""
    if body.after is None:
        return None
    seconds = _read_seconds(serving, deadline)
    try:
        return await serving.pages.before(body.user_id, body.after, deadline_seconds=seconds)
    except asyncio.CancelledError:
        serving.metrics.abandoned["state"].inc()
        raise


async def compute(served: Served, query: Query, deadline: float) -> Recommendation:
    """Return what the engine of the variant answers in the time that is left.

    Raises:
        InvalidFieldError: a category, filter, boost or path that the catalogue does not have, or
            an explanation that the bundle's decoder cannot give.
        QueueFullError: too many requests wait.
        DeadlineExceededError: the answer was not ready in time.
    """
    left_seconds = deadline + LATE_SECONDS - time.perf_counter()
    try:
        return await served.engine.recommend(query, deadline_seconds=left_seconds)
    except UnknownCategoryError as error:
        raise _unknown_category(query.categories, error) from None
    except FilterError as error:
        raise InvalidFieldError(str(error), pointer=filter_pointer(error.attribute)) from None
    except BoostError as error:
        raise InvalidFieldError(str(error), pointer=f"#/boosts/{error.place}") from None
    except UnknownPlaceError as error:
        raise InvalidFieldError(str(error), pointer=f"#/path/{error.depth}") from None
    except NoLevelsError as error:
        raise InvalidFieldError(str(error), pointer="#/explain" if query.explain else "#") from None


def _read_seconds(serving: Serving, deadline: float) -> float:
    """Return how long a read from the store may take.

    At most half of the time that is left: the other half is for an answer without it.
    """
    most_seconds = serving.settings.state_read_deadline_ms / 1_000
    return min(most_seconds, max(0.0, deadline - time.perf_counter()) / 2)


async def read_state(
    serving: Serving, user_id: str | None, deadline: float
) -> tuple[UserState, bool]:
    """Return the user's state, and whether it is missing because the store is not available."""
    if user_id is None:
        return UserState(), False
    started = time.perf_counter()
    try:
        state = await serving.store.read(user_id, deadline_seconds=_read_seconds(serving, deadline))
    except StateUnavailableError:
        return UserState(), True
    except asyncio.CancelledError:
        serving.metrics.abandoned["state"].inc()
        raise
    finally:
        ended = time.perf_counter()
        serving.metrics.stage_duration["state"].observe(ended - started)
        record_stage("state", started, ended)
    return state, False


def query_of(
    body: RecommendRequest | ExploreRequest,
    state: UserState,
    deadline: float,
    *,
    choices: int | None = None,
) -> Query:
    """Return what a request asks the recommender, given what is known of its user."""
    stored = [entry.item_id for entry in state.history]
    is_inline = body.history is not None
    query = Query(
        history=body.history if body.history is not None else stored,
        k=body.k,
        exclude=[*body.exclude, *state.disliked],
        seen=[*state.seen, *stored] if is_inline else state.seen,
        exclude_seen=body.exclude_seen,
        categories=body.categories,
        deadline=deadline - ANSWER_SECONDS,
        filters=conditions(body.filters),
        path=tuple(body.path),
        choices=choices,
    )
    return _reordered(query, body) if isinstance(body, RecommendRequest) else query


def _reordered(query: Query, body: RecommendRequest) -> Query:
    """Return the query with what a recommendation may ask for beyond what browsing may."""
    return replace(
        query,
        anchors=body.anchor,
        beam=body.beam,
        explain=body.explain,
        diversity=body.diversity,
        exploration=body.exploration,
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


def count(metrics: Metrics, found: Recommendation, k: int, *, is_degraded: bool) -> None:
    """Tell the metrics of one answer."""
    for stage, seconds in found.stage_seconds.items():
        metrics.stage_duration[stage].observe(seconds)
    source = found.items[0].source if found.items else "empty"
    if k:  # else only choices were asked for
        metrics.recommendations[source].inc()
    metrics.unknown_history_items.inc(found.unknown_history_items)
    if len(found.items) < k:
        metrics.beam_shortfall.inc()
    if found.certified and source == "generated":  # a share of those
        metrics.certified.inc()
    if is_degraded:
        metrics.degraded["state_unavailable"].inc()
    if found.levels is not None:
        metrics.degraded["levels"].inc()
    if found.is_partly_explained:
        metrics.degraded["explanations"].inc()


def _count_variant(metrics: Metrics, served: Served, found: Recommendation, seconds: float) -> None:
    source = found.items[0].source if found.items else "empty"
    metrics.variant_answers[served.role, source].inc()
    metrics.variant_duration[served.role].observe(seconds)


def item_body(
    item: RecommendedItem, *, explain: bool = False, certified: bool | None = None
) -> RecommendedItemBody:
    """Return an item of an answer."""
    return RecommendedItemBody(
        item_id=item.item_id,
        rank=item.rank,
        score=item.score,
        source=item.source,
        title=item.title,
        path=item.path,
        semantic_id=item.semantic_id,
        level_log_probs=item.level_log_probs if explain else None,
        propensity=item.propensity,
        explanation=_explanation_body(item.explanation, certified) if item.explanation else None,
    )


def _explanation_body(explanation: Explanation, certified: bool | None) -> ExplanationBody:
    return ExplanationBody(
        way=[
            StepBody(name=step.place.name, kind=step.place.kind, probability=step.probability)
            for step in explanation.way
        ],
        influences=[
            InfluenceBody(item_id=each.item_id, log_prob_drop=each.log_prob_drop)
            for each in explanation.influences
        ],
        certified=certified,
    )

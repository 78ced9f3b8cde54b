"""POST /v1/recommend:batch."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.batch_schemas import BatchedAnswer, RecommendBatch, RecommendBatchAnswer, problem_of
from service.errors import ServiceError
from service.problems import service_problem
from service.routes.answers import InServing, json_answer, problems, while_connected
from service.routes.recommend import answer_recommend
from service.schemas import RecommendRequest
from service.scopes import allows
from service.serving import Serving

PATH = "/v1/recommend:batch"
router = APIRouter(tags=["recommend"])


@router.post(
    PATH,
    # No publishable key: a batch is for many users, and counts as one request of its key.
    openapi_extra=allows("read"),
    response_model=RecommendBatchAnswer,
    responses=problems(400, 408, 413, 415, 422, 429, 503),
)
async def recommend_batch(body: RecommendBatch, request: Request, serving: InServing) -> Response:
    """Answer several recommendations; one that is refused leaves the others be.

    At most as many are computed at once as there are workers, so that a batch leaves room in the
    queue for others; each has the time of one recommendation from when its turn comes.
    """
    return json_answer(await while_connected(request, _answers(serving, body)))


async def _answers(serving: Serving, body: RecommendBatch) -> RecommendBatchAnswer:
    turns = asyncio.Semaphore(serving.settings.workers)

    async def answered(each: RecommendRequest) -> BatchedAnswer:
        async with turns:
            try:
                return BatchedAnswer(answer=await answer_recommend(serving, each))
            except ServiceError as error:
                return problem_of(service_problem(error).body)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answered(each)) for each in body.requests]
    return RecommendBatchAnswer(results=[task.result() for task in tasks])

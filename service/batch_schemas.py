"""The bodies of several recommendations in one request."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.schemas import Problem, RecommendAnswer, RecommendRequest, RequestBody

REQUESTS_MAX = 20


class RecommendBatch(RequestBody):
    """Several recommendations, answered each for itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"requests": [{"user_id": "u-17", "k": 5}, {"history": ["B000052YAN"]}]}]
        }
    )

    requests: list[RecommendRequest] = Field(min_length=1, max_length=REQUESTS_MAX)


class BatchedAnswer(BaseModel):
    """What became of one request: an answer or a problem."""

    answer: RecommendAnswer | None = None
    problem: Problem | None = Field(
        default=None, description="As this request alone would get; pointers are into it."
    )


class RecommendBatchAnswer(BaseModel):
    """What became of the requests, in their order."""

    results: list[BatchedAnswer]


def problem_of(body: Any) -> BatchedAnswer:
    """Return the result of a request that was refused, given the problem document."""
    return BatchedAnswer(problem=Problem.model_validate_json(body))

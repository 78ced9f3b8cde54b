"""`python -m tests.benchmarks.other_services constant|empty`: what the service is measured beside.

`constant` is `python -m service` with an answer that nobody computed, and nothing else of it is
different; `empty` is one route of FastAPI that returns as many bytes. Settings are the service's
COFINE_* variables.
"""

import sys
from collections.abc import Callable
from unittest.mock import patch

import uvicorn
from fastapi import FastAPI, Request, Response

from model.bundle import Bundle
from model.query import Query, Recommendation
from service.__main__ import main as serve
from service.engine import ServedRecommender
from service.serving import recommender_factory
from service.settings import load_settings

ANSWER_BYTES = 2_400
"""Of ten items of a real bundle."""


class ConstantRecommender:
    """Gives one real answer, computed once, to every query."""

    def __init__(self, answer: Recommendation) -> None:
        self._answer = answer

    def recommend(self, query: Query) -> Recommendation:  # noqa: ARG002
        return self._answer


def constant_factory(bundle: Bundle) -> Callable[[], ServedRecommender]:
    """What stands in for the service's own `recommender_factory`."""
    answer = recommender_factory(bundle)().recommend(Query([bundle.catalog.item_id(0)]))
    return lambda: ConstantRecommender(answer)


def empty() -> FastAPI:
    """The least that an answer of this size costs."""
    app, content = FastAPI(openapi_url=None), bytes(ANSWER_BYTES)

    @app.get("/readyz")
    async def ready() -> Response:
        return Response()

    @app.post("/v1/recommend")
    @app.post("/v1/events")
    async def answer(request: Request) -> Response:
        await request.body()
        return Response(content, media_type="application/json")

    return app


def main() -> None:
    """Serve until SIGTERM."""
    if sys.argv[1] == "constant":
        with patch("service.__main__.recommender_factory", constant_factory):
            serve()
        return
    uvicorn.run(
        empty(),
        port=load_settings().port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
    )


if __name__ == "__main__":
    main()

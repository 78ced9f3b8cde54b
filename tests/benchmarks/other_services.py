"""`python -m tests.benchmarks.other_services constant|empty`: what the service is measured beside.

`constant` is the application of the service with an answer that nobody computed; `empty` is one
route of FastAPI that returns as many bytes. Settings are the service's COFINE_* variables.
"""

import sys

import uvicorn
from fastapi import FastAPI, Request, Response

from model.query import Query, Recommendation
from service.app import create_app
from service.serving import open_bundle, recommender_factory
from service.settings import Settings, load_settings

ANSWER_BYTES = 2_400
"""Of ten items of a real bundle."""


class ConstantRecommender:
    """Gives one real answer, computed once, to every query."""

    def __init__(self, answer: Recommendation) -> None:
        self._answer = answer

    def recommend(self, query: Query) -> Recommendation:  # noqa: ARG002
        return self._answer


def constant(settings: Settings) -> FastAPI:
    """The service without its search."""
    bundle = open_bundle(settings)
    answer = recommender_factory(bundle)().recommend(Query([bundle.catalog.item_id(0)]))
    return create_app(settings, bundle, lambda: ConstantRecommender(answer))


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
    settings = load_settings()
    app = empty() if sys.argv[1] == "empty" else constant(settings)
    uvicorn.run(
        app,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
    )


if __name__ == "__main__":
    main()

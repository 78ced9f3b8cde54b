import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx2
import pytest
from fastapi import FastAPI

from model.query import Query
from service.app import create_app
from service.engine import ServedRecommender
from service.settings import load_settings
from tests.contract.redis_server import own_redis_server, redis_server
from tests.service.fakes import TableBundle, TableRecommender

__all__ = ["own_redis_server", "redis_server"]

AppClient = Callable[..., AbstractAsyncContextManager["Client"]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("COFINE_")]:
        if name != "COFINE_REQUIRE":
            monkeypatch.delenv(name)


class Client(httpx2.AsyncClient):
    """Talks to one running application in this process."""

    def __init__(self, app: FastAPI, queries: list[Query]) -> None:
        transport = httpx2.ASGITransport(app=app)
        super().__init__(transport=transport, base_url="http://cofine.test")
        self.app = app
        self.queries = queries

    async def scrape(self) -> str:
        return (await self.get("/metrics")).text


@asynccontextmanager
async def running_app(
    make_recommender: Callable[[], ServedRecommender] | None = None, **chosen: object
) -> AsyncIterator[Client]:
    """Start the application on the table bundle; `chosen` are settings.

    Its deadline is one that no machine is too busy for.
    """
    queries: list[Query] = []
    settings = load_settings(**{"workers": 1, "deadline_ms": 20_000, **chosen})
    make = make_recommender or (lambda: TableRecommender(queries))
    app = create_app(settings, TableBundle(), make)
    async with app.router.lifespan_context(app), Client(app, queries) as client:
        yield client


@pytest.fixture
def start_app() -> AppClient:
    return running_app


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with running_app() as client:
        yield client

"""The application: puts routes, middleware and error answers together, and owns start and end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Route

from service import problems
from service.engine import ServedRecommender
from service.errors import ServiceError
from service.metrics import Metrics
from service.middleware import PROBES, BodyLimit, RequestContext
from service.routes import (
    events,
    explore,
    health,
    info,
    items,
    metrics,
    recommend,
    recommend_batch,
    users,
)
from service.schemas import Problem
from service.serving import (
    ServedBundle,
    Serving,
    open_bundle,
    recommender_factory,
    service_version,
)
from service.settings import Settings, load_settings

if TYPE_CHECKING:
    from service.otlp_tracing import SpanExport

_ROUTERS = (
    recommend.router,
    recommend_batch.router,
    explore.router,
    events.router,
    users.router,
    items.router,
    info.router,
    health.router,
    metrics.router,
)


def create_app(
    settings: Settings | None = None,
    bundle: ServedBundle | None = None,
    make_recommender: Callable[[], ServedRecommender] | None = None,
) -> FastAPI:
    """Return the application; its lifespan starts the workers and the store.

    Args:
        settings: read from the environment when not given.
        bundle: a verified bundle; opened from the settings' folder at start when not given.
        make_recommender: one call per worker; must be given when `bundle` is.

    Raises:
        SettingsError: unusable COFINE_* variables.
    """
    chosen = settings or load_settings()
    measured = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if bundle is None or make_recommender is None:
            opened = open_bundle(chosen)
            serving = Serving(chosen, measured, opened, recommender_factory(opened))
        else:
            serving = Serving(chosen, measured, bundle, make_recommender)
        app.state.serving = serving
        await serving.start()
        yield
        serving.is_draining = True
        await serving.stop()
        if export is not None:
            await asyncio.to_thread(export.close)

    app = FastAPI(
        title="Cofine",
        summary="Coarse-to-fine recommendations.",
        version=service_version(),
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={
            ServiceError: problems.on_service_error,
            RequestValidationError: problems.on_validation_error,
            HTTPException: problems.on_http_exception,
        },
    )
    documentation = [route for route in app.routes if isinstance(route, Route)]
    for router in _ROUTERS:
        app.include_router(router)
    app.add_middleware(
        BodyLimit,
        max_bytes=chosen.body_max_bytes,
        deadline_seconds=chosen.body_deadline_ms / 1_000,
    )
    export = _trace(app, chosen.otlp_url) if chosen.otlp_url is not None else None
    app.add_middleware(RequestContext, metrics=measured, routes=[*_api_routes(), *documentation])
    measured.expect_routes(
        (route.path_format, method, route.status_code or 200)
        for route in _api_routes()
        for method in sorted(route.methods or ())
    )
    _document_problems(app)
    return app


def _trace(app: FastAPI, endpoint: str) -> "SpanExport":
    """Have the application's requests traced; what is returned must be closed."""
    # Here, because OpenTelemetry is an optional extra.
    from service.otlp_tracing import SpanExport, TracedRequests  # noqa: PLC0415

    export = SpanExport(endpoint, service_version())
    app.add_middleware(TracedRequests, tracer=export.tracer, untraced=PROBES)
    return export


def _api_routes() -> list[APIRoute]:
    return [route for router in _ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def _document_problems(app: FastAPI) -> None:
    """Add the schema of errors, to which every route's documentation refers."""

    def openapi() -> dict[str, object]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes
            )
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs", {}))
            schemas[Problem.__name__] = problem
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]

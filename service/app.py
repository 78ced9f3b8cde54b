"""The application: puts routes, middleware and error answers together, and owns start and end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service import problems
from service.access_control import AccessControl, own_user_only
from service.admission import Admission
from service.bundle_folder import BundleFolder
from service.engine import Engine, ServedRecommender
from service.errors import ServiceError
from service.keys_file import KeysFile
from service.metrics import Metrics
from service.middleware import PROBES, REQUEST_ID_HEADER, BodyLimit, RequestContext
from service.routes import (
    access,
    bundles,
    catalogue,
    event_log,
    events,
    explore,
    health,
    info,
    items,
    metrics,
    preview,
    recommend,
    recommend_batch,
    users,
)
from service.routes.answers import problems as problem_answers
from service.routes.console import console_router
from service.scenarios_file import ScenariosFile
from service.schemas import Problem
from service.scopes import SECURITY_SCHEMES, USER_TOKEN_HEADER
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
    event_log.router,
    items.router,
    catalogue.router,
    bundles.router,
    preview.router,
    access.router,
    info.router,
    health.router,
    metrics.router,
)


class AdmittingApp(FastAPI):
    """An application that admission stands before, also before the layers of the framework."""

    def admit(self, metrics: Metrics, deadline_seconds: float, origins: Sequence[str]) -> None:
        """Begin to refuse what could not be computed within `deadline_seconds`.

        Web pages of `origins` may read answers, refusals included: whoever could not read their
        Retry-After would come back too soon.
        """
        routes = (recommend.PATH, recommend_batch.PATH, explore.PATH)
        admission = Admission(
            super().__call__,
            self._expected,
            metrics,
            routes,
            deadline_seconds,
        )
        self._front = _shared_with_pages(admission, origins) if origins else admission

    def _expected(self, inside: int) -> tuple[Engine, int]:
        """Return what `Variants.expected` does, once the application serves."""
        serving: Serving = self.state.serving
        return serving.variants.expected(inside)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run or refuse one request."""
        await self._front(scope, receive, send)


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
        SettingsError: unusable COFINE_* variables, or an unusable keys file.
    """
    chosen = settings or load_settings()
    measured = Metrics()
    keys = KeysFile(chosen.keys, measured)
    BundleFolder(chosen.bundles, chosen.bundle)  # so that the settings are refused here
    ScenariosFile(chosen.scenarios, measured)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if bundle is None or make_recommender is None:
            opened = open_bundle(chosen)
            serving = Serving(chosen, measured, opened, recommender_factory(opened))
        else:
            serving = Serving(chosen, measured, bundle, make_recommender)
        app.state.serving, app.state.keys = serving, keys
        await serving.start()
        try:
            await serving.scenarios.start(
                partial(recommend.try_scenario, serving),
                lambda: (serving.bundle.bundle_id, serving.bundle.catalogue_version),
            )
        except BaseException:
            await serving.stop()
            raise
        keys.start()
        yield
        serving.is_draining = True
        await keys.stop()
        await serving.stop()
        if export is not None:
            await asyncio.to_thread(export.close)

    app = AdmittingApp(
        title="Cofine",
        summary="Coarse-to-fine recommendations.",
        version=service_version(),
        lifespan=lifespan,
        openapi_url=None,  # it would be built on the event loop
        docs_url=None,  # both would load their scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,
        # Metrics and traces are the service's own; looking for others took a share of each request.
        telemetry={"metrics": False, "tracing": False, "logs": False},
        dependencies=[Depends(own_user_only)],
        exception_handlers={
            ServiceError: problems.on_service_error,
            RequestValidationError: problems.on_validation_error,
            HTTPException: problems.on_http_exception,
        },
    )
    documentation = Route("/openapi.json", partial(_openapi, app), name="openapi")
    app.router.routes.append(documentation)
    routers = (*_ROUTERS, console_router()) if chosen.console else _ROUTERS
    for router in routers:
        app.include_router(router)
    routes = _api_routes(routers)
    app.add_middleware(
        BodyLimit,
        max_bytes=chosen.body_max_bytes,
        deadline_seconds=chosen.body_deadline_ms / 1_000,
    )
    app.add_middleware(AccessControl, keys=keys, routes=routes, metrics=measured)
    export = _trace(app, chosen.otlp_url) if chosen.otlp_url is not None else None
    app.add_middleware(RequestContext, metrics=measured, routes=[*routes, documentation])
    app.admit(measured, chosen.deadline_ms / 1_000, chosen.cors_origins)
    measured.expect_routes(
        (route.path_format, method, route.status_code or 200)
        for route in routes
        for method in sorted(route.methods or ())
    )
    _document_problems(app)
    return app


def _shared_with_pages(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Let web pages of these origins read answers; keys travel in a header, never in cookies."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type", REQUEST_ID_HEADER, USER_TOKEN_HEADER],
        expose_headers=[REQUEST_ID_HEADER, "Retry-After"],
    )


def _trace(app: FastAPI, endpoint: str) -> "SpanExport":
    """Have the application's requests traced; what is returned must be closed."""
    # Here, because OpenTelemetry is an optional extra.
    from service.otlp_tracing import SpanExport, TracedRequests  # noqa: PLC0415

    export = SpanExport(endpoint, service_version())
    app.add_middleware(TracedRequests, tracer=export.tracer, untraced=PROBES)
    return export


def _api_routes(routers: Iterable[APIRouter]) -> list[APIRoute]:
    return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]


def _openapi(app: FastAPI, _request: Request) -> Response:
    """Answer with the interface; in a thread, for building the document takes some 300 ms."""
    return JSONResponse(app.openapi())


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
            document["components"]["securitySchemes"] = SECURITY_SCHEMES
            _document_refusals(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document_refusals(document: Mapping[str, Any]) -> None:
    """Add the answers of the access control to every operation that needs a key."""
    operations = (each for path in document["paths"].values() for each in path.values())
    for operation in operations:
        if operation["security"]:
            for status, answer in problem_answers(401, 403, 429).items():
                operation["responses"].setdefault(str(status), answer)

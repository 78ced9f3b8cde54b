"""What happens around every request, as plain ASGI.

`RequestContext` (outermost) gives each request an id, measures and logs it, and turns a defect into
a 500 without details. It also answers HEAD wherever there is a GET and names all methods of an
address in `Allow`, which the framework does not. `BodyLimit` reads the body, up to its limits in
bytes and in time, before anything else runs.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Iterator, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access_control import is_over_limit
from service.log_config import places, request_id_in_context
from service.metrics import Metrics
from service.problems import (
    BODY_TOO_LARGE,
    BODY_TOO_SLOW,
    METHOD_NOT_ALLOWED,
    Kind,
    internal_problem,
    problem,
)

REQUEST_ID_HEADER = "X-Request-ID"
_ID_BYTES = 16
_GOOD_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_LOGGER = logging.getLogger("service.access")
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TOO_MANY = 429
UNMATCHED_ROUTE = "unmatched"


class RequestContext:
    """Gives requests an id, measures them, logs them and hides defects."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Sequence[Route]) -> None:
        """Wrap `app`, whose routes are `routes`."""
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(Headers(scope=scope))
        token = request_id_in_context.set(request_id)
        try:
            with self._metrics.http_requests_in_flight.track_inprogress():
                await self._answer(scope, receive, send, request_id)
        finally:
            request_id_in_context.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started = time.perf_counter()
        status = 0
        method = scope["method"]
        if method == "HEAD":  # as GET; the server sends no body, for it looks at its own scope
            scope = {**scope, "method": "GET"}

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = request_id
                if status == METHOD_NOT_ALLOWED.status:
                    headers["Allow"] = ", ".join(self._methods(scope))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 (the last place that can still answer)
            # The text of an unforeseen exception may hold a user's data; its place does not.
            _LOGGER.error(
                "request_failed", extra={"error": type(error).__name__, "where": places(error)}
            )
            if status == 0:
                await internal_problem()(scope, receive, send_with_id)
        finally:
            route = self._template(scope)
            if status >= 500 or (status == _TOO_MANY and not is_over_limit(scope)):
                self._metrics.http_unavailable.labels(route).inc()
            self._record(route, method, status, time.perf_counter() - started)

    def _record(self, route: str, method: str, status: int, seconds: float) -> None:
        method = method if method in _KNOWN_METHODS else "other"
        self._metrics.http_request_duration.labels(route, method, str(status)).observe(seconds)
        _LOGGER.log(
            logging.DEBUG if route in PROBES else logging.INFO,
            "request",
            extra={
                "method": method,
                "route": route,
                "status": status,
                "duration_ms": round(seconds * 1_000, 3),
            },
        )

    def _template(self, scope: Scope) -> str:
        """Return the template of the request's route, never the path with its ids."""
        taken = scope.get("route")
        if isinstance(taken, Route):
            return taken.path_format
        # The documentation's routes leave no trace, and a body may be refused before any route.
        return next((route.path_format for route in self._matching(scope)), UNMATCHED_ROUTE)

    def _methods(self, scope: Scope) -> list[str]:
        """Return all methods of the request's address."""
        found = {method for route in self._matching(scope) for method in route.methods or ()}
        return sorted(found | {"HEAD"} if "GET" in found else found)

    def _matching(self, scope: Scope) -> Iterator[Route]:
        return (route for route in self._routes if route.matches(scope)[0] is not Match.NONE)


class BodyLimit:
    """Refuses bodies that are too large, declared or not, or take too long to come."""

    def __init__(self, app: ASGIApp, max_bytes: int, deadline_seconds: float) -> None:
        """Wrap `app`, which only sees whole bodies."""
        self._app = app
        self._max_bytes = max_bytes
        self._deadline_seconds = deadline_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isascii() and declared.isdigit() and int(declared) > self._max_bytes:
            await self._refuse_size(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._deadline_seconds):
                body = await self._read(receive)
        except TimeoutError:
            detail = f"the body did not come within {self._deadline_seconds:g} s; send it again"
            await _refuse(BODY_TOO_SLOW, detail, scope, receive, send)
            return
        if body is None:
            await self._refuse_size(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> list[Message] | None:
        """Return the messages of the whole body, None when there are too many bytes."""
        messages: list[Message] = []
        size = 0
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_bytes:
                return None
            messages.append(message)
            if not message.get("more_body", False):
                return messages

    async def _refuse_size(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"the body may have {self._max_bytes} bytes at most; send less at once"
        await _refuse(BODY_TOO_LARGE, detail, scope, receive, send)


async def _refuse(kind: Kind, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    # The rest of the body is not read, so the connection cannot carry another request.
    refusal = problem(kind, detail, headers={"Connection": "close"})
    await refusal(scope, receive, send)


def request_id_of(headers: Headers) -> str:
    """Return the client's id when it is harmless, else a new one."""
    given = headers.get(REQUEST_ID_HEADER, "")
    return given if _GOOD_REQUEST_ID.fullmatch(given) else secrets.token_hex(_ID_BYTES)


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """Return a `receive` that gives the messages again and then what comes after them."""
    waiting = iter(messages)

    async def receive_again() -> Message:
        for message in waiting:
            return message
        return await receive()

    return receive_again

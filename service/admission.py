"""Refusing what could not be answered in time, before anything is spent on it; plain ASGI.

Stands before everything else, the framework's own layers included, and before the body is read:
under overload nearly every request is refused, and reading, parsing and logging them all took the
processor that the answers need. A refusal costs one comparison and an answer that was built before.
It is measured like any other answer, but the log only counts it, once a second.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.engine import RETRY_AFTER_SECONDS, Engine, Refusal
from service.errors import QueueFullError
from service.metrics import Metrics
from service.middleware import REQUEST_ID_HEADER, request_id_of
from service.problems import KINDS, MEDIA_TYPE, problem_body

LOG_SECONDS = 1.0
_ID_PLACE = "{request_id}"
_LOGGER = logging.getLogger(__name__)


class Admission:
    """Lets a request for a computation in when it can be answered within its time."""

    def __init__(
        self,
        app: ASGIApp,
        expected: Callable[[int], tuple[Engine, int]],
        metrics: Metrics,
        routes: Sequence[str],
        deadline_seconds: float,
    ) -> None:
        """Wrap `app`.

        Args:
            app: what answers the requests that are let in.
            expected: returns, given how many requests are inside, the engine that the next one is
                likely to wait for, and how many of them are ahead of it there.
            metrics: of the application.
            routes: a POST to one of them is a request for a computation.
            deadline_seconds: that it has.
        """
        self._app = app
        self._expected = expected
        self._metrics = metrics
        self._deadline_seconds = deadline_seconds
        self._answers: dict[Refusal, PreparedRefusal] = {}
        durations = metrics.http_request_duration
        self._seconds = {route: durations.labels(route, "POST", str(_STATUS)) for route in routes}
        self._unavailable = {route: metrics.http_unavailable.labels(route) for route in routes}
        self._inside = 0
        self._unlogged = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run or refuse one request."""
        is_computed = (
            scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._seconds
        )
        if not is_computed:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        engine, ahead = self._expected(self._inside)
        refusal = engine.refusal(ahead, self._deadline_seconds)
        if refusal is None:
            await self._let_in(scope, receive, send)
            return
        if refusal not in self._answers:
            self._answers[refusal] = PreparedRefusal(engine.refused(refusal))
        await self._answers[refusal].send(request_id_of(Headers(scope=scope)), send)
        self._metrics.admission_rejected[refusal].inc()
        self._unavailable[scope["path"]].inc()
        self._seconds[scope["path"]].observe(time.perf_counter() - started)
        self._log_soon()

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a request, which counts from the end of its body on: slow bodies hold nobody up."""
        is_counted = False

        async def receive_counted() -> Message:
            nonlocal is_counted
            message = await receive()
            if not is_counted and not message.get("more_body", False):
                is_counted = True
                self._inside += 1
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self._inside -= is_counted

    def _log_soon(self) -> None:
        self._unlogged += 1
        if self._unlogged == 1:
            asyncio.get_running_loop().call_later(LOG_SECONDS, self._log)

    def _log(self) -> None:
        facts = {"status": _STATUS, "refused": self._unlogged}
        self._unlogged = 0
        _LOGGER.warning("requests_refused", extra=facts)


class PreparedRefusal:
    """A 429 of which only the request's id is missing."""

    def __init__(self, error: QueueFullError) -> None:
        """Build the answer to `error`."""
        body = problem_body(KINDS[QueueFullError], error.detail, request_id=_ID_PLACE)
        self._parts = [part.encode() for part in body.split(_ID_PLACE)]
        self._headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"retry-after", str(RETRY_AFTER_SECONDS).encode()),
        ]

    async def send(self, request_id: str, send: Send) -> None:
        """Send it."""
        name = request_id.encode()
        body = name.join(self._parts)
        headers = [
            *self._headers,
            (b"content-length", str(len(body)).encode()),
            (_ID_HEADER, name),
        ]
        await send({"type": "http.response.start", "status": _STATUS, "headers": headers})
        await send({"type": "http.response.body", "body": body})


_STATUS = KINDS[QueueFullError].status
_ID_HEADER = REQUEST_ID_HEADER.lower().encode()

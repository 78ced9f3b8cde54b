"""Spans of requests, sent to an OpenTelemetry collector; the only importer of OpenTelemetry.

An optional extra: imported only when `COFINE_OTLP_URL` is set. A request has one span, which
continues the W3C context that the client sent, and below it one per stage. Spans hold the route's
template, the status and the request id of the log, never a user, an item or a path. A thread of
their own sends them; what a slow collector cannot take is dropped. The web framework's own tracing
is left off (no provider is made global), because it writes paths, and so ids, into spans.
"""

import time
from collections.abc import Set as AbstractSet

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.log_config import request_id_in_context
from service.tracing import trace_in_context

_EXPORT_TIMEOUT_SECONDS = 2.0
"""For one batch of spans; about what a collector that hangs adds to the end of the service."""


class SpanExport:
    """Collects finished spans and sends them as OTLP over HTTP.

    Sampler, headers and batch sizes are OpenTelemetry's own `OTEL_*` variables.
    """

    def __init__(self, endpoint: str, version: str) -> None:
        """Send to the collector at `endpoint` (`http://collector:4318`), in the background."""
        resource = Resource.create({"service.name": "cofine", "service.version": version})
        # `close` ends it, after the last request; no exit handler must do so a second time.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(
            f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_SECONDS
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer: Tracer = self._provider.get_tracer("cofine", version)

    def close(self) -> None:
        """Send what is left and end; blocks for seconds when the collector does not answer."""
        self._provider.shutdown()


class _SpannedRequest:
    """The trace of one request: its span, and a span below it per stage."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._context = set_span_in_context(span)
        # Unix time at the zero of `time.perf_counter`, which is what stages are measured with.
        self._zero_ns = time.time_ns() - time.perf_counter_ns()

    def add_stage(self, name: str, started: float, ended: float) -> None:
        """Add a finished stage; times are readings of `time.perf_counter`."""
        span = self._tracer.start_span(
            name, self._context, start_time=self._zero_ns + int(started * 1e9)
        )
        span.end(self._zero_ns + int(ended * 1e9))


class TracedRequests:
    """Gives each request a span; plain ASGI, inside `RequestContext`, which knows its id."""

    def __init__(self, app: ASGIApp, tracer: Tracer, untraced: AbstractSet[str]) -> None:
        """Wrap `app`; requests of the paths in `untraced` have no span."""
        self._app = app
        self._tracer = tracer
        self._untraced = untraced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http" or scope["path"] in self._untraced:
            await self._app(scope, receive, send)
            return
        span = self._start(scope)

        async def send_and_tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                _tell_status(span, message["status"])
            await send(message)

        # What the client or the sampler does not want recorded has no stages either.
        trace = _SpannedRequest(self._tracer, span) if span.is_recording() else None
        token = trace_in_context.set(trace)
        try:
            await self._app(scope, receive, send_and_tell)
        except BaseException as error:
            # Its class alone: the text may hold a user's data.
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            trace_in_context.reset(token)
            _tell_route(span, scope)
            span.end()

    def _start(self, scope: Scope) -> Span:
        headers = Headers(scope=scope)
        return self._tracer.start_span(
            scope["method"],
            TraceContextTextMapPropagator().extract(headers),
            SpanKind.SERVER,
            attributes={
                "http.request.method": scope["method"],
                "cofine.request_id": request_id_in_context.get() or "",
            },
        )


def _tell_status(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def _tell_route(span: Span, scope: Scope) -> None:
    """Name the span by the template of its route; one without a route keeps its method's name."""
    template = getattr(scope.get("route"), "path_format", None)
    if template is not None:
        span.update_name(f"{scope['method']} {template}")
        span.set_attribute("http.route", template)

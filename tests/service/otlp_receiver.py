"""A collector of traces: takes OTLP over HTTP and keeps the decoded spans."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class OtlpReceiver:
    """What arrived so far at `url`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.bodies: list[bytes] = []
        self.resources: list[dict[str, str]] = []
        self.spans: list[Span] = []

    def take(self, body: bytes) -> None:
        export = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        for resource_spans in export.resource_spans:
            self.resources.append(
                {each.key: each.value.string_value for each in resource_spans.resource.attributes}
            )
            for scope_spans in resource_spans.scope_spans:
                self.spans += scope_spans.spans

    def requests(self) -> list[Span]:
        """The spans of whole requests, in order of their start."""
        found = [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def stages(self, request: Span) -> dict[str, Span]:
        """The spans below a request by name, in order of their start."""
        found = [span for span in self.spans if span.parent_span_id == request.span_id]
        return {span.name: span for span in sorted(found, key=lambda s: s.start_time_unix_nano)}


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            is_export = self.path == "/v1/traces" and (
                self.headers["content-type"] == "application/x-protobuf"
            )
            if is_export:
                receiver.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if is_export else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = OtlpReceiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

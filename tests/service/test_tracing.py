import asyncio
import importlib.util
import itertools
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service.errors import SettingsError
from service.settings import load_settings
from tests.end_to_end.service_process import (
    REPOSITORY,
    environment,
    post_event,
    recommend,
    running_service,
)
from tests.service.conftest import AppClient
from tests.service.fakes import GatedRecommender, always
from tests.service.otlp_receiver import OtlpReceiver, otlp_receiver

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
DEADLINE_MS = 1_000
ENOUGH_SECONDS = 60
"""For whatever does not wait for a collector that never answers, on any machine."""


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as receiver:
        yield receiver


def value(span: Span, name: str) -> object:
    """An attribute of the span, None when it has none of the name."""
    for attribute in span.attributes:
        if attribute.key == name:
            return shown(attribute)
    return None


def shown(attribute: KeyValue) -> object:
    return getattr(attribute.value, str(attribute.value.WhichOneof("value")))


@pytest.mark.slow
def test_a_real_recommendation_is_traced_stage_by_stage(
    shop_bundle: Path, tmp_path: Path, receiver: OtlpReceiver
) -> None:
    with (
        running_service(
            shop_bundle,
            tmp_path,
            otlp_url=receiver.url,
            drain_seconds=0,
            deadline_ms=20_000,
            state_read_deadline_ms=5_000,
        ) as service,
        service.client() as client,
    ):
        popular = recommend(client, k=3)["items"][0]["item_id"]
        post_event(client, "1", "user-of-the-secret", popular)
        answer = client.post(
            "/v1/recommend",
            json={"user_id": "user-of-the-secret", "k": 3},
            headers={"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "X-Request-ID": "mine"},
        )
        assert answer.json()["items"][0]["source"] == "generated"
        service.signal(signal.SIGTERM)
        assert service.wait() == 0

    assert [span.name for span in receiver.requests()] == [
        "POST /v1/recommend",
        "POST /v1/events",
        "POST /v1/recommend",
    ]
    request = receiver.requests()[-1]
    assert request.trace_id.hex() == TRACE_ID
    assert request.parent_span_id.hex() == PARENT_ID
    assert value(request, "http.route") == "/v1/recommend"
    assert value(request, "http.response.status_code") == 200
    assert value(request, "cofine.request_id") == "mine"
    stages = receiver.stages(request)
    assert list(stages) == ["state", "queue", "encode", "decode", "resolve"]
    assert {span.trace_id.hex() for span in stages.values()} == {TRACE_ID}
    times = [request.start_time_unix_nano]
    for span in stages.values():
        assert span.end_time_unix_nano > span.start_time_unix_nano
        times += [span.start_time_unix_nano, span.end_time_unix_nano]
    # Stages follow one another inside the request; clocks are read in float64 seconds.
    times.append(request.end_time_unix_nano)
    assert all(later - earlier > -2_000 for earlier, later in itertools.pairwise(times))
    assert all(
        resource["service.name"] == "cofine" and resource["service.version"]
        for resource in receiver.resources
    )
    for body in receiver.bodies:
        assert b"secret" not in body
        assert popular.encode() not in body


@pytest.mark.anyio
async def test_a_request_without_context_begins_a_trace_and_probes_have_none(
    start_app: AppClient, receiver: OtlpReceiver
) -> None:
    async with start_app(otlp_url=receiver.url) as client:
        await client.post("/v1/recommend", json={})
        await client.post("/v1/recommend", json={"k": 0})
        await client.get("/v1/users/somebody")
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200
    requests = receiver.requests()
    assert [span.name for span in requests] == [
        "POST /v1/recommend",
        "POST /v1/recommend",
        "GET /v1/users/{user_id}",
    ]
    assert len({span.trace_id for span in requests}) == 3
    assert [span.parent_span_id for span in requests] == [b"", b"", b""]
    assert [value(span, "http.response.status_code") for span in requests] == [200, 422, 200]
    assert list(receiver.stages(requests[1])) == []
    assert all(b"somebody" not in body for body in receiver.bodies)


@pytest.mark.anyio
async def test_a_request_that_the_client_does_not_sample_is_not_recorded(
    start_app: AppClient, receiver: OtlpReceiver
) -> None:
    async with start_app(otlp_url=receiver.url) as client:
        answer = await client.post(
            "/v1/recommend", json={}, headers={"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"}
        )
        assert answer.status_code == 200
    assert receiver.bodies == []


@pytest.mark.anyio
async def test_a_request_out_of_time_shows_what_it_was_waiting_for(
    start_app: AppClient, receiver: OtlpReceiver
) -> None:
    gated = GatedRecommender()
    async with start_app(always(gated), otlp_url=receiver.url, deadline_ms=DEADLINE_MS) as client:
        first = asyncio.create_task(client.post("/v1/recommend", json={}))
        await asyncio.to_thread(gated.entered.acquire)
        second = await client.post("/v1/recommend", json={})
        assert ((await first).status_code, second.status_code) == (504, 504)
        gated.gate.set()
    computed, queued = receiver.requests()
    assert list(receiver.stages(computed)) == ["queue", "compute"]
    assert list(receiver.stages(queued)) == ["queue"]
    for span in (computed, queued):
        assert span.status.code == Status.STATUS_CODE_ERROR
    waited = receiver.stages(queued)["queue"]
    assert waited.end_time_unix_nano - queued.start_time_unix_nano >= DEADLINE_MS * 1_000_000


@pytest.mark.anyio
async def test_a_collector_that_hangs_stops_neither_answers_nor_the_end(
    start_app: AppClient,
) -> None:
    with socket.socket() as listener:  # accepts connections, answers nothing
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with asyncio.timeout(ENOUGH_SECONDS), start_app(otlp_url=url) as client:
            for _ in range(20):
                assert (await client.post("/v1/recommend", json={})).status_code == 200


def test_without_an_endpoint_no_exporter_is_even_imported() -> None:
    # Parts of OpenTelemetry are imported all the same, by libraries that can use it.
    code = (
        "import sys, service.__main__, service.app; service.app.create_app();"
        "sys.exit(any(name.startswith(('service.otlp', 'opentelemetry.exporter'))"
        " for name in sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=REPOSITORY, check=False
    )
    assert ended.returncode == 0


def test_an_endpoint_without_the_packages_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find_spec = importlib.util.find_spec

    def find_no_opentelemetry(name: str, package: str | None = None) -> object:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)
        return find_spec(name, package)

    monkeypatch.setattr("service.settings.find_spec", find_no_opentelemetry)
    with pytest.raises(SettingsError, match=r"pip install 'cofine\[tracing\]'"):
        load_settings(otlp_url="http://127.0.0.1:4318")


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "http://", ""])
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="COFINE_OTLP_URL"):
        load_settings(otlp_url=endpoint)

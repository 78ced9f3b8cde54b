"""Every metric moves when what it counts happens, and all are what Prometheus wants them to be."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.redis_server import RedisServer
from tests.deployment.prometheus_server import run
from tests.end_to_end.service_process import post_event, recommend, running_service
from tests.service.conftest import AppClient, Client
from tests.service.fakes import GatedRecommender, always

ROUTES_MAX = 32
"""More than the service has; a label that grows with users or items is found at once."""


def samples(text: str) -> dict[str, float]:
    """Every sample of the service's own metrics, by name with labels."""
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith("cofine_"))
    return {name: float(value) for name, _, value in lines}


def moved(before: str, after: str) -> set[str]:
    """The metric families of which some sample is not what it was."""
    old = samples(before)
    families = text_string_to_metric_families(after)
    return {
        family.name
        for family in families
        if family.name.startswith("cofine_")
        and any(
            value != old.get(name, 0)
            for name, value in samples(after).items()
            if name.startswith(family.name)
        )
    }


async def post(client: Client, **body: object) -> int:
    return (await client.post("/v1/recommend", json=body)).status_code


@pytest.mark.anyio
async def test_answers_move_the_metrics_of_answers(
    start_app: AppClient, redis_server: RedisServer
) -> None:
    redis_server.flush()
    async with start_app(state_url=redis_server.url) as client:
        before = await client.scrape()
        for _ in range(2):
            event = {"event_id": "1", "user_id": "ann", "item_id": "polish"}
            assert (await client.post("/v1/events", json=event)).status_code == 200
        assert await post(client, user_id="ann", k=2) == 200
        assert await post(client, history=["polish", "gone"], k=100) == 200
        after = await client.scrape()
    assert {
        "cofine_http_request_duration_seconds",
        "cofine_recommend_stage_duration_seconds",
        "cofine_queue_wait_seconds",
        "cofine_recommendations",
        "cofine_beam_shortfall",
        "cofine_certified",
        "cofine_unknown_history_items",
        "cofine_redis_operation_duration_seconds",
        "cofine_state_events",
    } <= moved(before, after)
    assert samples(after)['cofine_state_events_total{outcome="duplicate"}'] == 1
    count = "cofine_redis_operation_duration_seconds_count"
    assert samples(after)[f'{count}{{op="append",outcome="ok"}}'] == 2


@pytest.mark.anyio
async def test_an_outage_of_redis_moves_the_breaker_and_what_follows(
    start_app: AppClient, own_redis_server: RedisServer
) -> None:
    own_redis_server.kill()
    async with start_app(state_url=own_redis_server.url) as client:
        assert await post(client, user_id="ann") == 200
        event = {"event_id": "1", "user_id": "ann", "item_id": "polish"}
        assert (await client.post("/v1/events", json=event)).status_code == 503
        found = samples(await client.scrape())
    assert found["cofine_redis_circuit_state"] in {1, 2}
    assert found['cofine_degraded_total{reason="state_unavailable"}'] == 1
    assert found['cofine_state_events_total{outcome="dropped"}'] == 1
    count = "cofine_redis_operation_duration_seconds_count"
    assert found[f'{count}{{op="read",outcome="open"}}'] == 1


@pytest.mark.anyio
async def test_a_full_queue_is_seen_while_it_is_full_and_what_it_did_after(
    start_app: AppClient,
) -> None:
    gated = GatedRecommender()
    settings = {"queue_max_requests": 1, "deadline_ms": 3_000}
    async with start_app(always(gated), **settings) as client:
        computed = asyncio.create_task(post(client))
        await asyncio.to_thread(gated.entered.acquire)
        queued = asyncio.create_task(post(client))
        while (during := samples(await client.scrape()))["cofine_queue_length"] == 0:
            assert not queued.done()  # else it has waited where nobody has seen it
        assert await post(client) == 429
        assert (await computed, await queued) == (504, 504)
        gated.gate.set()
        after = samples(await client.scrape())
    assert during["cofine_queue_length"] == 1
    assert during["cofine_http_requests_in_flight"] == 3  # the scrape itself is the third
    assert after["cofine_queue_length"] == 0
    assert after['cofine_admission_rejected_total{reason="queue_full"}'] == 1
    assert after['cofine_deadline_exceeded_total{stage="compute"}'] == 1
    assert after['cofine_deadline_exceeded_total{stage="queue"}'] == 1


@pytest.mark.anyio
async def test_entries_in_memory_grow_and_shrink(client: Client) -> None:
    event = {"event_id": "1", "user_id": "ann", "item_id": "polish"}
    await client.post("/v1/events", json=event)
    stored = samples(await client.scrape())["cofine_memory_state_entries"]
    await client.delete("/v1/users/ann")
    assert stored == 3  # one of the history, one seen item, one event id
    assert samples(await client.scrape())["cofine_memory_state_entries"] == 0


@pytest.mark.slow
def test_a_loaded_service_is_lint_free_and_its_labels_are_few(
    shop_bundle: Path, tmp_path: Path
) -> None:
    with running_service(shop_bundle, tmp_path) as service, service.client() as client:
        items = [item["item_id"] for item in recommend(client, k=20)["items"]]
        for number, item_id in enumerate(items):
            post_event(client, "1", f"labels-{number}", item_id)
            recommend(client, user_id=f"labels-{number}")
            client.get(f"/v1/items/{item_id}")
            client.get(f"/nothing-{number}")
        text = client.get("/metrics").text
    assert run("promtool", "check", "metrics", text=text) == ""
    for constant in ("build_info", "bundle_info", "bundle_load_timestamp_seconds", "catalog_items"):
        assert any(
            value > 0
            for name, value in samples(text).items()
            if name.startswith(f"cofine_{constant}")
        )
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert set(sample.labels) <= {
                *("route", "method", "status", "stage", "source", "reason", "op", "outcome"),
                *("rank", "type", "kind", "variant", "stream"),
                *("le", "bundle", "version", "implementation", "major", "minor", "patchlevel"),
            }
        routes = {sample.labels.get("route") for sample in family.samples}
        assert len(routes) <= ROUTES_MAX
        assert not any("labels-" in str(sample.labels) for sample in family.samples)

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.serving import service_version
from tests.service.conftest import AppClient, Client

pytestmark = pytest.mark.anyio

TYPES = {
    "cofine_http_request_duration_seconds": "histogram",
    "cofine_http_unavailable": "counter",
    "cofine_http_requests_in_flight": "gauge",
    "cofine_recommend_stage_duration_seconds": "histogram",
    "cofine_queue_wait_seconds": "histogram",
    "cofine_queue_length": "gauge",
    "cofine_recommendations": "counter",
    "cofine_degraded": "counter",
    "cofine_admission_rejected": "counter",
    "cofine_deadline_exceeded": "counter",
    "cofine_abandoned": "counter",
    "cofine_beam_shortfall": "counter",
    "cofine_certified": "counter",
    "cofine_unknown_history_items": "counter",
    "cofine_redis_operation_duration_seconds": "histogram",
    "cofine_redis_circuit_state": "gauge",
    "cofine_state_events": "counter",
    "cofine_memory_state_entries": "gauge",
    "cofine_impressions": "counter",
    "cofine_attributed_events": "counter",
    "cofine_unattributed_events": "counter",
    "cofine_event_log_records": "counter",
    "cofine_event_log_pushed_out": "counter",
    "cofine_event_log_fill_ratio": "gauge",
    "cofine_variant_duration_seconds": "histogram",
    "cofine_variant_answers": "counter",
    "cofine_variant_bundle": "gauge",
    "cofine_shadow": "counter",
    "cofine_shadow_overlap_ratio": "histogram",
    "cofine_rollout_version": "gauge",
    "cofine_rollout_failures": "counter",
    "cofine_api_keys": "gauge",
    "cofine_keys_reloads": "counter",
    "cofine_scenarios_reloads": "counter",
    "cofine_access_refused": "counter",
    "cofine_rate_limit_local": "counter",
    "cofine_build_info": "gauge",  # an info metric in the text format
    "cofine_bundle_info": "gauge",
    "cofine_bundle_load_timestamp_seconds": "gauge",
    "cofine_catalog_items": "gauge",
    "cofine_catalogue_version": "gauge",
    "cofine_catalogue_edited_items": "gauge",
    "cofine_catalogue_apply_duration_seconds": "histogram",
    "cofine_catalogue_failures": "counter",
}


async def test_names_and_types_are_these(client: Client) -> None:
    found = {
        family.name: family.type
        for family in text_string_to_metric_families(await client.scrape())
        if family.name.startswith("cofine_")
    }
    assert found == TYPES


async def test_nothing_else_but_process_and_platform_is_exported(client: Client) -> None:
    text = await client.scrape()
    names = {family.name.split("_")[0] for family in text_string_to_metric_families(text)}
    assert names == {"cofine", "process", "python"}
    assert "_created" not in text


async def test_children_exist_before_the_first_request(client: Client) -> None:
    text = await client.scrape()
    for line in (
        'cofine_recommendations_total{source="popular"} 0.0',
        'cofine_degraded_total{reason="state_unavailable"} 0.0',
        'cofine_deadline_exceeded_total{stage="queue"} 0.0',
        'cofine_recommend_stage_duration_seconds_count{stage="decode"} 0.0',
        'cofine_redis_operation_duration_seconds_count{op="read",outcome="timeout"} 0.0',
        "cofine_http_request_duration_seconds_count"
        '{method="POST",route="/v1/recommend",status="200"} 0.0',
        "cofine_http_request_duration_seconds_count"
        '{method="DELETE",route="/v1/users/{user_id}",status="204"} 0.0',
        'cofine_http_unavailable_total{route="/v1/recommend"} 0.0',
        'cofine_http_unavailable_total{route="/v1/events"} 0.0',
        "cofine_catalog_items 5.0",
        'cofine_bundle_info{bundle="table"} 1.0',
        f'cofine_build_info{{version="{service_version()}"}} 1.0',
        "cofine_redis_circuit_state 0.0",
    ):
        assert line in text


async def test_every_status_is_measured_under_its_route_template(client: Client) -> None:
    await client.post("/v1/recommend", json={})
    await client.post("/v1/recommend", json={"k": 0})
    await client.get("/v1/users/somebody")
    await client.get("/v1/items/gone")
    await client.get("/wp-login.php")
    await client.request("BREW", "/v1/recommend")
    text = await client.scrape()
    count = "cofine_http_request_duration_seconds_count"
    for labels in (
        'method="POST",route="/v1/recommend",status="200"',
        'method="POST",route="/v1/recommend",status="422"',
        'method="GET",route="/v1/users/{user_id}",status="200"',
        'method="GET",route="/v1/items/{item_id}",status="404"',
        'method="GET",route="unmatched",status="404"',
        'method="other",route="/v1/recommend",status="405"',
    ):
        assert f"{count}{{{labels}}} 1.0" in text
    assert "somebody" not in text
    assert "wp-login" not in text


async def test_a_body_refused_before_its_route_counts_there_all_the_same(
    start_app: AppClient,
) -> None:
    async with start_app(body_max_bytes=2_000) as client:
        await client.post("/v1/recommend", content=b" " * 2_001)
        await client.get("/openapi.json")
        await client.head("/livez")
        text = await client.scrape()
    count = "cofine_http_request_duration_seconds_count"
    assert f'{count}{{method="POST",route="/v1/recommend",status="413"}} 1.0' in text
    assert f'{count}{{method="GET",route="/openapi.json",status="200"}} 1.0' in text
    assert f'{count}{{method="HEAD",route="/livez",status="200"}} 1.0' in text
    assert "unmatched" not in text


async def test_answers_are_counted(client: Client) -> None:
    await client.post("/v1/recommend", json={"history": ["polish", "lost"], "k": 2})
    await client.post("/v1/recommend", json={"k": 2})
    await client.post(
        "/v1/recommend", json={"k": 2, "exclude": ["polish", "file", "lipstick", "soap", "a/b é"]}
    )
    text = await client.scrape()
    for line in (
        'cofine_recommendations_total{source="generated"} 1.0',
        'cofine_recommendations_total{source="popular"} 1.0',
        'cofine_recommendations_total{source="empty"} 1.0',
        "cofine_beam_shortfall_total 1.0",
        "cofine_certified_total 1.0",
        "cofine_unknown_history_items_total 1.0",
        "cofine_queue_wait_seconds_count 3.0",
        'cofine_recommend_stage_duration_seconds_count{stage="encode"} 3.0',
        'cofine_recommend_stage_duration_seconds_count{stage="state"} 0.0',
    ):
        assert line in text, line


async def test_applications_do_not_share_metrics(start_app: AppClient) -> None:
    async with start_app() as first, start_app() as second:
        await first.post("/v1/recommend", json={})
        assert 'source="popular"} 1.0' in await first.scrape()
        assert 'source="popular"} 0.0' in await second.scrape()

"""An outage is shown as one, and is over when it is over."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.visit import become, give_taste, settle, shown
from tests.contract.redis_server import RedisServer, running_redis
from tests.end_to_end.service_process import (
    ServiceProcess,
    running_service,
    stored,
    wait_until,
)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def redis_service(
    redis_server: RedisServer, shop_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    with running_service(
        shop_bundle,
        tmp_path_factory.mktemp("service"),
        state_url=redis_server.url,
        state_read_deadline_ms=5_000,
        state_write_deadline_ms=5_000,
        deadline_ms=20_000,
        redis_failures_max=1,
        redis_probe_interval_ms=100,
    ) as service:
        yield service


def test_a_killed_redis(
    redis_server: RedisServer, redis_service: ServiceProcess, open_page: OpenPage
) -> None:
    page = open_page(redis_service.url)
    become(page, "keeper")
    give_taste(page)
    item = shown(page)[0]
    redis_server.kill()
    outage = page.locator("#outage")
    page.locator(".card").first.get_by_role("button", name="View:").click()
    expect(page.get_by_text("Not stored:")).to_be_visible()
    expect(outage).to_contain_text("The state store is away")
    redis_server.start()
    expect(outage).to_be_empty()
    page.get_by_role("button", name="Try again").last.click()
    with redis_service.client() as client:
        wait_until(lambda: stored(client, "keeper")[-1:] == [item], "the event is stored")
        assert stored(client, "keeper").count(item) == 1


def test_a_killed_service(shop_bundle: Path, tmp_path: Path, open_page: OpenPage) -> None:
    with running_service(shop_bundle, tmp_path, deadline_ms=20_000) as service:
        check_restart(service, open_page(service.url))


def check_restart(service: ServiceProcess, page: Page) -> None:
    """Kill the service under the page, start it again, and lose nothing."""
    become(page, "patient")
    before = shown(page)
    service.kill()
    expect(page.locator("#outage")).to_contain_text("does not answer")
    expect(page.locator("#health")).to_have_text("Unreachable")
    assert shown(page) == before
    page.get_by_role("button", name="Cart:").first.click()
    expect(page.get_by_text("Not stored:")).to_be_visible()
    service.start()
    expect(page.locator("#outage")).to_be_empty()
    page.get_by_role("button", name="Try again").last.click()
    expect(page.locator(".events li")).to_have_count(1)
    settle(page)
    with service.client() as client:
        assert stored(client, "patient") == before[:1]

"""Where keys are needed, the console asks for one and shows what it may do."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from service.api_keys import entry_text
from service.scopes import Scope
from service.user_tokens import issue_user_token
from tests.browser.conftest import OpenPage
from tests.browser.visit import become, give_taste, operator
from tests.end_to_end.service_process import ServiceProcess, running_service
from tests.keys import SECRET, SECRET_NAME, write_keys

KEYS: dict[str, tuple[Scope, ...]] = {
    "cofine_reads_and_no_more": ("read",),
    "cofine_of_a_page_of_the_shop": ("publishable",),
    "cofine_of_who_runs_all_this": ("read", "write", "admin"),
}


@pytest.fixture(scope="module")
def keyed(
    shop_bundle: Path, diffusion_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("keyed")
    for name, bundle in (("one", shop_bundle), ("other", diffusion_bundle)):
        shutil.copytree(bundle, folder / "bundles" / name)
    keys = write_keys(
        folder,
        [entry_text(f"key-{at}", key, scopes) for at, (key, scopes) in enumerate(KEYS.items())],
    )
    bundles = folder / "bundles"
    with running_service(
        bundles / "one", folder, keys=keys, bundles=bundles, deadline_ms=20_000
    ) as service:
        yield service


def enter(page: Page, key: str, token: str | None = None) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    if token is not None:
        page.get_by_text("It is a publishable key").click()
        page.get_by_label("User token").fill(token)
    page.get_by_role("button", name="Open the console").click()


def test_a_wrong_key_is_explained(keyed: ServiceProcess, open_page: OpenPage) -> None:
    page = open_page(keyed.url)
    expect(page.get_by_role("heading", name="This service asks for a key")).to_be_visible()
    enter(page, "cofine_wrong")
    expect(page.get_by_role("alert").get_by_text("does not take this")).to_be_visible()


def test_a_key_that_reads_is_offered_no_events(keyed: ServiceProcess, open_page: OpenPage) -> None:
    page = open_page(keyed.url)
    enter(page, "cofine_reads_and_no_more")
    expect(page.locator(".card").first).to_be_visible()
    expect(page.locator(".actions button, #taste")).to_have_count(0)
    operator(page)
    expect(page.get_by_text("With an admin key, other bundles can be chosen")).to_be_visible()


def test_a_publishable_key_acts_for_its_user(keyed: ServiceProcess, open_page: OpenPage) -> None:
    page = open_page(keyed.url)
    enter(page, "cofine_of_a_page_of_the_shop", issue_user_token(SECRET_NAME, SECRET, "ann"))
    expect(page.locator(".visitor h1")).to_have_text("ann")
    expect(page.locator("#invent, #visitor-field")).to_have_count(0)
    give_taste(page)
    page.get_by_role("link", name="Operator").click()
    expect(page.get_by_text("This key does not read")).to_be_visible()


def test_an_admin_compares_two_bundles_and_decoders(
    keyed: ServiceProcess, open_page: OpenPage
) -> None:
    page = open_page(keyed.url)
    enter(page, "cofine_of_who_runs_all_this")
    become(page, "judge")
    give_taste(page)
    operator(page)
    expect(page.get_by_label("Bundle").nth(1)).to_have_value("other")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".verdict")).to_be_visible()
    with keyed.client() as client:
        client.headers["Authorization"] = "Bearer cofine_of_who_runs_all_this"
        for column, name in enumerate(("one", "other")):
            asked = {"user_id": "judge", "k": 10}
            answer = client.post(f"/v1/bundles/{name}:preview", json=asked).json()
            shown = page.locator(".column").nth(column)
            titles = [item["title"] or item["item_id"] for item in answer["items"]]
            assert shown.locator(".title").all_inner_texts() == titles
            expect(shown.locator("h3")).to_contain_text(answer["decoder"])
    expect(page.locator(".column h3").last).to_contain_text("diffusion")


def test_a_key_is_forgotten(keyed: ServiceProcess, open_page: OpenPage) -> None:
    page = open_page(keyed.url)
    enter(page, "cofine_reads_and_no_more")
    page.get_by_role("button", name="Forget key").click()
    expect(page.get_by_role("heading", name="This service asks for a key")).to_be_visible()
    assert page.evaluate("Object.keys(sessionStorage)") == []

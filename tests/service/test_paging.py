"""Next pages over HTTP: nothing is repeated, and what is forgotten is said."""

import asyncio
from typing import Any

import httpx2
import pytest

from service.user_state import MemoryUserState
from tests.service.conftest import Client, running_app
from tests.service.test_explore import shop

__all__ = ["shop"]

pytestmark = pytest.mark.anyio


async def page(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/recommend", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


async def test_pages_go_through_the_catalogue_without_repeats(shop: httpx2.AsyncClient) -> None:
    whole = ids(await page(shop, history=["a"], k=11))

    answer = await page(shop, history=["a"], k=4)
    pages = ids(answer)
    for _ in range(2):
        answer = await page(shop, history=["a"], k=4, after=answer["recommendation_id"])
        assert answer["degraded"] is None
        pages += ids(answer)

    assert pages == whole

    for _ in range(2):  # beyond the last page there is nothing left to repeat
        answer = await page(shop, history=["a"], k=4, after=answer["recommendation_id"])
        assert (ids(answer), answer["degraded"]) == ([], None)


async def test_a_page_that_is_not_known_is_said(client: Client) -> None:
    answer = await page(client, k=2, after="gone")

    assert answer["degraded"] == {
        "state_unavailable": False,
        "levels": None,
        "paging": True,
        "explanations": False,
    }
    assert ids(answer) == ["polish", "file"]
    assert 'cofine_degraded_total{reason="paging"} 1.0' in await client.scrape()


@pytest.fixture
def unblocked(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Lists are kept only once this is set; everything else goes on."""
    unblocked, keep_list = asyncio.Event(), MemoryUserState.keep_list

    async def keep_late(*what: Any, **how: Any) -> None:
        await unblocked.wait()
        await keep_list(*what, **how)

    monkeypatch.setattr(MemoryUserState, "keep_list", keep_late)
    return unblocked


async def test_no_answer_waits_for_a_list_that_is_kept_slowly(
    client: Client, unblocked: asyncio.Event
) -> None:
    first = (await page(client, user_id="ann", k=1))["recommendation_id"]
    too_soon = await page(client, user_id="ann", k=1, after=first)
    unblocked.set()
    await client.app.state.serving.pages.settle()
    later = await page(client, user_id="ann", k=1, after=first)

    assert too_soon["degraded"]["paging"]
    assert (ids(later), later["degraded"]) == (["file"], None)


async def test_a_list_that_is_kept_slowly_is_erased_as_well(
    client: Client, unblocked: asyncio.Event
) -> None:
    await page(client, user_id="ann", k=1)

    assert (await client.delete("/v1/users/ann")).status_code == 204
    unblocked.set()
    await client.app.state.serving.pages.settle()

    assert (await client.get("/v1/users/ann")).json()["served_lists"] == []


async def test_an_unforeseen_error_of_a_list_costs_no_answer_and_is_logged(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("polish, which no log shall hold")

    monkeypatch.setattr(MemoryUserState, "keep_list", fail)

    assert ids(await page(client, user_id="ann", k=1)) == ["polish"]
    assert "list_not_kept" in [record.message for record in caplog.records]


async def test_lists_are_kept_before_the_service_ends(unblocked: asyncio.Event) -> None:
    async with running_app() as client:
        await page(client, user_id="ann", k=1)
        store = client.app.state.serving.store
        # Once the service has begun to end, which without waiting it does at once.
        asyncio.get_running_loop().call_later(0.2, unblocked.set)
    kept = await store.lists_of("ann", deadline_seconds=1)
    assert [len(each.items) for each in kept] == [1]

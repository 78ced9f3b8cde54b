"""Next pages over HTTP: nothing is repeated, and what is forgotten is said."""

import time
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest

from service.routes import recommend
from service.user_state import MemoryUserState
from tests.service.conftest import Client
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

    assert answer["degraded"] == {"state_unavailable": False, "levels": None, "paging": True}
    assert ids(answer) == ["polish", "file"]
    assert 'cofine_degraded_total{reason="paging"} 1.0' in await client.scrape()


@pytest.mark.parametrize(("left_seconds", "waits"), [(-1.0, False), (0.5, True), (60.0, True)])
async def test_a_list_is_kept_in_the_time_that_is_left(
    client: Client, monkeypatch: pytest.MonkeyPatch, left_seconds: float, waits: bool
) -> None:
    """Whoever asks for an answer by then does not get it later because of the page after it."""
    given: list[float] = []

    async def keep_list(
        self: MemoryUserState, user: str | None, name: str, items: Sequence[str], **how: float
    ) -> None:
        given.append(how["deadline_seconds"])

    monkeypatch.setattr(MemoryUserState, "keep_list", keep_list)
    serving = client.app.state.serving
    most_seconds = serving.settings.state_read_deadline_ms / 1_000

    deadline = time.perf_counter() + left_seconds
    await recommend._keep(serving, "ann", "1", ["polish"], deadline)

    assert bool(given) == waits
    assert all(0 < seconds <= most_seconds for seconds in given)

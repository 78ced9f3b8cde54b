"""Next pages over HTTP: nothing is repeated, and what is forgotten is said."""

from typing import Any

import httpx2
import pytest

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


async def test_a_page_that_is_not_known_is_said(client: Client) -> None:
    answer = await page(client, k=2, after="gone")

    assert answer["degraded"] == {"state_unavailable": False, "levels": None, "paging": True}
    assert ids(answer) == ["polish", "file"]
    assert 'cofine_degraded_total{reason="paging"} 1.0' in await client.scrape()

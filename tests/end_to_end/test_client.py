"""The Python client and a live service."""

import asyncio

import pytest

from service.client import AsyncClient, Client, ProblemError
from tests.end_to_end.service_process import ServiceProcess
from tests.keys import KEYS


def test_show_click_dislike_read_and_erase(shop_service: ServiceProcess) -> None:
    with Client(shop_service.url) as cofine:
        shown = cofine.recommend(user_id="client/ü", k=3)
        first, second, _ = shown["items"]
        answer = cofine.send_events(
            [
                {
                    "event_id": kind,
                    "user_id": "client/ü",
                    "item_id": item["item_id"],
                    "type": kind,
                    "recommendation_id": shown["recommendation_id"],
                }
                for kind, item in (("purchase", first), ("dislike", second))
            ]
        )
        assert [each["attribution"] for each in answer["results"]] == ["attributed"] * 2
        user = cofine.user("client/ü")
        assert [entry["item_id"] for entry in user["history"]] == [first["item_id"]]
        assert user["disliked"] == [second["item_id"]]
        assert cofine.item(first["item_id"])["title"] == first["title"]
        cofine.erase_user("client/ü")
        assert cofine.user("client/ü")["events"] == 0


def test_a_refusal_carries_the_problem(shop_service: ServiceProcess) -> None:
    with Client(shop_service.url) as cofine, pytest.raises(ProblemError) as caught:
        cofine.recommend(k=0)
    assert (caught.value.status, caught.value.code) == (422, "invalid_request")
    assert caught.value.problem["errors"][0]["pointer"] == "#/k"


def test_many_at_once_from_an_event_loop(shop_service: ServiceProcess) -> None:
    async def ask() -> list[int]:
        async with AsyncClient(shop_service.url) as cofine:
            answers = await asyncio.gather(*(cofine.recommend(k=k) for k in range(1, 9)))
        return [len(answer["items"]) for answer in answers]

    assert asyncio.run(ask()) == [*range(1, 9)]


def test_a_key_opens_what_its_scope_says(keyed_service: ServiceProcess) -> None:
    with Client(keyed_service.url) as nobody, pytest.raises(ProblemError) as caught:
        nobody.recommend(k=1)
    assert caught.value.status == 401
    with Client(keyed_service.url, key=KEYS["read"]) as reader:
        assert len(reader.recommend(k=1)["items"]) == 1
        with pytest.raises(ProblemError) as caught:
            reader.erase_user("nobody")
    assert caught.value.status == 403

    async def ask() -> int:
        async with AsyncClient(keyed_service.url, key=KEYS["read"]) as reader:
            return len((await reader.recommend(k=1))["items"])

    assert asyncio.run(ask()) == 1

"""The Python client and a live service."""

import asyncio

import pytest

from service.client import AsyncClient, Client, ProblemError, RecommendOptions
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


def test_from_broad_to_narrow(keyed_service: ServiceProcess) -> None:
    with Client(keyed_service.url, key=KEYS["read"]) as reader:
        tree = reader.taxonomy()
        if reader.info()["decoder"] == "diffusion":  # it has no probability per level
            with pytest.raises(ProblemError) as caught:
                reader.explore(user_id="nobody", k=2)
            assert "autoregressive bundle" in caught.value.problem["errors"][0]["detail"]
            place = tree["choices"][0]
            assert reader.taxonomy(place["path"])["items_here"] == place["items"]
            assert len(reader.recommend(path=place["path"], k=2)["items"]) == 2
            return
        broad = reader.explore(user_id="nobody", k=2)
        assert broad["items_here"] == tree["items_here"] == reader.info()["items"]
        chosen = broad["choices"][0]
        narrow = reader.explore(user_id="nobody", path=chosen["path"], k=2)
        assert (narrow["path"], narrow["items_here"]) == (chosen["path"], chosen["items"])
        assert reader.taxonomy(chosen["path"])["items_here"] == chosen["items"]
        shown = reader.recommend(path=chosen["path"], k=2)
        assert shown["items"] == narrow["items"]


def test_a_batch_answers_and_refuses_each_for_itself(keyed_service: ServiceProcess) -> None:
    with Client(keyed_service.url, key=KEYS["read"]) as reader:
        batch: list[RecommendOptions] = [{"k": 2}, {"path": ["nowhere"]}]
        good, bad = reader.recommend_batch(batch)["results"]
        assert good["answer"] is not None
        assert len(good["answer"]["items"]) == 2
        assert bad["problem"] is not None
        assert bad["problem"]["code"] == "invalid_request"


def test_an_operator_puts_a_bundle_in_service_and_takes_it_out(
    keyed_service: ServiceProcess,
) -> None:
    with Client(keyed_service.url, key=KEYS["admin"]) as operator:
        assert [each["name"] for each in operator.bundles()["bundles"]] == ["first", "second"]
        for _ in range(2):  # as where the first answer was lost
            loaded = operator.load_bundle("second")["rollout"]["loaded"]
            assert loaded is not None
            assert loaded["name"] == "second"
        rollout = operator.activate_bundle("second", role="canary", percent=20)["rollout"]
        assert rollout["canary_percent"] == 20
        assert operator.activate_bundle("second")["rollout"]["active"]["name"] == "second"
        assert operator.roll_back("second")["rollout"]["active"]["name"] == "first"
        with pytest.raises(ProblemError) as caught:
            operator.load_bundle("third")
        assert caught.value.code == "bundle_not_found"

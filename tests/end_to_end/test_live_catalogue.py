"""The catalogue is edited while two processes serve it from one Redis."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from model.bundle import Bundle
from tests.contract.redis_server import RedisServer, running_redis
from tests.end_to_end.service_process import (
    ServiceProcess,
    ids,
    post_event,
    recommend,
    running_service,
    wait_until,
)
from tests.keys import headers_of, write_keys
from tests.service.problem_shape import check_problem

PATIENT = {
    **{"deadline_ms": 20_000, "state_read_deadline_ms": 5_000},
    **{"state_write_deadline_ms": 5_000, "workers": 2},
}


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis"), appendonly=True) as server:
        yield server


def service_on(redis: RedisServer, bundle: Path, folder: Path) -> "Iterator[ServiceProcess]":
    with running_service(bundle, folder, state_url=redis.url, **PATIENT) as service:
        yield service


@pytest.fixture(scope="module")
def first(
    redis_server: RedisServer, any_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    redis_server.flush()
    yield from service_on(redis_server, any_bundle, tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def second(
    first: ServiceProcess,
    redis_server: RedisServer,
    any_bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServiceProcess]:
    yield from service_on(redis_server, any_bundle, tmp_path_factory.mktemp("second"))


@pytest.fixture(scope="module")
def known(shop: Bundle) -> dict[str, Any]:
    """A popular item of the bundle, as a shop would send it."""
    return popular_item(shop)


def popular_item(shop: Bundle) -> dict[str, Any]:
    leaf = int(shop.by_popularity[0])
    return {
        "item_id": shop.catalog.item_id(leaf),
        "title": shop.catalog.title(leaf),
        "categories": [list(path) for path in shop.catalog.paths(leaf)],
    }


def edit(client: httpx2.Client, method: str, address: str, body: Any = None) -> int:
    response = client.request(method, f"/v1/items{address}", json=body)
    assert response.status_code == 200, response.text
    version: int = response.json()["catalogue_version"]
    return version


def wait_for(client: httpx2.Client, version: int) -> None:
    wait_until(
        lambda: client.get("/v1/info").json()["catalogue_version"] >= version,
        f"version {version} is served",
    )


def everything(client: httpx2.Client, known: dict[str, Any], **body: Any) -> list[str]:
    """Items of the known one's category, best first."""
    return ids(recommend(client, k=100, categories=known["categories"][:1], **body))


def test_a_new_item_is_recommended_here_and_there(
    first: ServiceProcess, second: ServiceProcess, known: dict[str, Any]
) -> None:
    twin = {**known, "item_id": "a twin", "title": known["title"] + " deluxe"}
    with first.client() as here, second.client() as there:
        version = edit(here, "PUT", "", twin)
        assert "a twin" in everything(here, known, history=[known["item_id"]])  # at once
        wait_for(there, version)
        body = {"history": [known["item_id"]], "exclude_seen": False}
        answers = [recommend(client, k=50, **body) for client in (here, there)]
        assert answers[0]["items"] == answers[1]["items"]
        assert [each["catalogue_version"] for each in answers] == [version, version]
        assert "a twin" in everything(there, known, history=[known["item_id"]])
        # It is an item like any other: in histories, by its id, as an event.
        assert recommend(there, history=["a twin"])["unknown_history_items"] == 0
        assert post_event(there, "t1", "twin-fan", "a twin").status_code == 200
        assert "a twin" not in everything(there, known, user_id="twin-fan")
        found = there.get("/v1/items/a twin").json()
        assert (found["title"], found["available"]) == (twin["title"], True)
    assert second.metric("cofine_catalogue_version") == version


def test_what_is_hidden_is_in_no_answer_and_comes_back(
    first: ServiceProcess, second: ServiceProcess, known: dict[str, Any], shop: Bundle
) -> None:
    item_id = known["item_id"]
    other = shop.catalog.item_id(int(shop.by_popularity[1]))
    with first.client() as here, second.client() as there:
        post_event(here, "h1", "regular", other)
        for client in (here, there):
            assert item_id in everything(client, known, user_id="regular")
        edit(here, "POST", f"/{item_id}:hide")
        assert item_id not in everything(here, known, user_id="regular")
        wait_until(
            lambda: item_id not in everything(there, known, user_id="regular"), "it is hidden"
        )
        assert there.get(f"/v1/items/{item_id}").json()["available"] is False
        assert recommend(there, history=[item_id])["unknown_history_items"] == 0
        wait_for(here, edit(there, "POST", f"/{item_id}:show"))
        assert item_id in everything(here, known, user_id="regular")


def test_stock_and_time_decide_without_a_request(
    first: ServiceProcess, second: ServiceProcess, known: dict[str, Any]
) -> None:
    item_id = known["item_id"]
    with first.client() as here, second.client() as there:
        wait_for(there, edit(here, "POST", f"/{item_id}:availability", {"stock": 0}))
        assert item_id not in everything(there, known)
        soon = time.time() + 2
        wait_for(there, edit(here, "POST", f"/{item_id}:availability", {"available_from": soon}))
        if item_id in everything(there, known):
            assert time.time() >= soon
        for client in (here, there):
            wait_until(lambda: item_id in everything(client, known), "its time has come")  # noqa: B023
            assert time.time() >= soon
        edit(here, "POST", f"/{item_id}:availability", {})


def test_pages_and_choices_survive_new_numbers(
    first: ServiceProcess, known: dict[str, Any]
) -> None:
    with first.client() as client:
        page = recommend(client, user_id="pager", k=10)
        many = [{**known, "item_id": f"page-{n}", "title": f"Something {n}"} for n in range(20)]
        edit(client, "PUT", "", {"items": many})
        following = recommend(client, user_id="pager", k=100, after=page["recommendation_id"])
        assert following["degraded"] is None
        assert not set(ids(page)) & set(ids(following))
        for number in range(20):
            edit(client, "POST", f"/page-{number}:reset")
        assert client.get("/v1/items/page-3").status_code == 404


def test_edits_drop_no_request(first: ServiceProcess, known: dict[str, Any]) -> None:
    """Requests go on while items come and go; every answer is of one state of the catalogue."""
    answers: list[httpx2.Response] = []
    stop = threading.Event()

    def ask() -> None:
        with first.client() as client:
            while not stop.is_set():
                body = {"history": [known["item_id"]], "k": 100, "exclude_seen": False}
                answers.append(client.post("/v1/recommend", json=body))

    asking = [threading.Thread(target=ask, daemon=True) for _ in range(2)]
    for thread in asking:
        thread.start()
    with first.client() as client:
        came, went = [], []
        for _ in range(4):
            twin = {**known, "item_id": "brief", "title": "A brief thing"}
            came.append(edit(client, "PUT", "", twin))
            went.append(edit(client, "POST", "/brief:reset"))
        count = len(answers)
        wait_until(lambda: len(answers) > count + 2, "requests are answered")
    stop.set()
    for thread in asking:
        thread.join(60)
    assert {answer.status_code for answer in answers} == {200}
    for answer in answers:
        version = answer.json()["catalogue_version"]
        if "brief" in ids(answer.json()):
            assert version in came
        assert version <= went[-1]


@pytest.mark.slow
def test_a_new_bundle_reads_the_edits_again(
    shop_bundle: Path, diffusion_bundle: Path, tmp_path: Path
) -> None:
    known = popular_item(Bundle.open(shop_bundle))
    folder = tmp_path / "bundles"
    folder.mkdir()
    for name, bundle in (("one", shop_bundle), ("two", diffusion_bundle)):
        shutil.copytree(bundle, folder / name)
    chosen = {"bundles": folder, "keys": write_keys(tmp_path)}
    with (
        running_service(folder / "one", tmp_path, **chosen, **PATIENT) as service,
        service.client() as client,
    ):
        client.headers.update(headers_of("write"))
        edit(client, "PUT", "", {**known, "item_id": "twin", "title": known["title"] + " two"})
        version = edit(client, "POST", f"/{known['item_id']}:hide")
        codes = []
        for name in ("one", "two", "one"):
            client.headers.update(headers_of("admin"))
            assert client.post(f"/v1/bundles/{name}:activate", json={}).status_code == 200
            client.headers.update(headers_of("read"))
            assert "twin" in everything(client, known)
            assert known["item_id"] not in everything(client, known)
            assert client.get("/v1/info").json()["catalogue_version"] == version
            codes.append(client.get("/v1/items/twin").json()["semantic_id"])
        assert codes[0] == codes[2]
        assert len(codes[1]) != len(codes[0])


@pytest.mark.slow
def test_edits_survive_restarts_and_outages(
    first: ServiceProcess, second: ServiceProcess, redis_server: RedisServer, known: dict[str, Any]
) -> None:
    item_id = known["item_id"]
    with first.client() as here, second.client() as there:
        edit(here, "PUT", "", {**known, "item_id": "lasting", "title": "A lasting thing"})
        version = edit(here, "POST", f"/{item_id}:hide")
        wait_for(there, version)
        before = everything(here, known)
    second.kill()
    second.start()
    with first.client() as here, second.client() as there:
        assert there.get("/v1/info").json()["catalogue_version"] == version
        assert everything(there, known) == before
        redis_server.kill()
        for client in (here, there):
            assert everything(client, known) == before
        refused = here.post(f"/v1/items/{item_id}:show")
        check_problem(refused, 503, "catalogue_unavailable")
        redis_server.start()
        wait_until(
            lambda: here.post(f"/v1/items/{item_id}:show").status_code == 200, "Redis is found"
        )
        wait_until(lambda: item_id in everything(there, known), "the other replica follows")
        edit(here, "POST", "/lasting:reset")

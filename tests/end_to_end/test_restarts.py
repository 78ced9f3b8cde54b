"""Killing the service between or amidst calls loses no event and changes no answer."""

import threading
from collections.abc import Iterator
from pathlib import Path

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
    stored,
    wait_until,
)

EVENTS = 60


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def first(
    redis_server: RedisServer, any_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("first")
    # Generous deadlines: these tests are about what is kept, and the machine may be busy.
    patient = {"state_read_deadline_ms": 5_000, "state_write_deadline_ms": 5_000}
    with running_service(
        any_bundle, folder, state_url=redis_server.url, deadline_ms=20_000, **patient
    ) as service:
        yield service


@pytest.fixture(scope="module")
def second(
    redis_server: RedisServer, any_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("second")
    patient = {"state_read_deadline_ms": 5_000, "state_write_deadline_ms": 5_000}
    with running_service(
        any_bundle, folder, state_url=redis_server.url, deadline_ms=20_000, **patient
    ) as service:
        yield service


@pytest.fixture(scope="module")
def items(shop: Bundle) -> list[str]:
    return [shop.catalog.item_id(leaf) for leaf in range(len(shop.catalog))]


def test_replicas_agree_and_see_each_others_events(
    first: ServiceProcess, second: ServiceProcess, items: list[str]
) -> None:
    with first.client() as here, second.client() as there:
        for number in range(12):
            writer, reader = (here, there) if number % 2 else (there, here)
            assert post_event(writer, f"r{number}", "shared", items[number * 20]).status_code == 200
            assert stored(reader, "shared") == [items[n * 20] for n in range(number + 1)]
            answers = [recommend(client, user_id="shared", k=20) for client in (here, there)]
            assert answers[0]["items"] == answers[1]["items"]
        repeated = post_event(there, "r0", "shared", items[0])
        assert repeated.json()["duplicates"] == 1


def test_a_kill_between_calls_loses_nothing_and_doubles_nothing(
    first: ServiceProcess, items: list[str]
) -> None:
    with first.client() as client:
        for number in range(5):
            assert post_event(client, f"k{number}", "killed", items[number * 7]).status_code == 200
        before = recommend(client, user_id="killed")
        inline = recommend(client, history=items[50:60])
    first.kill()
    first.start()
    with first.client() as client:
        assert stored(client, "killed") == [items[number * 7] for number in range(5)]
        after = recommend(client, user_id="killed")
        assert after["items"] == before["items"]
        assert recommend(client, history=items[50:60])["items"] == inline["items"]
        for number in range(5):
            repeated = post_event(client, f"k{number}", "killed", items[number * 7])
            assert repeated.json()["duplicates"] == 1
        assert recommend(client, user_id="killed")["items"] == before["items"]
        assert client.get("/v1/users/killed").json()["events"] == 5


class Writer(threading.Thread):
    """Sends a user's events one by one, each until it is accepted, like a careful client."""

    def __init__(self, service: ServiceProcess, user_id: str, items: list[str]) -> None:
        super().__init__(daemon=True)
        self._service = service
        self._user_id = user_id
        self._items = items
        self.accepted = 0
        self.retries = 0

    def run(self) -> None:
        with self._service.client() as client:
            for number, item_id in enumerate(self._items):
                while not self._send(client, f"w{number}", item_id):
                    self.retries += 1
                    wait_until(lambda: self._service.status("/readyz") == 200, "it is back")
                self.accepted += 1

    def _send(self, client: httpx2.Client, event_id: str, item_id: str) -> bool:
        try:
            response = post_event(client, event_id, self._user_id, item_id)
        except httpx2.TransportError:
            return False
        assert response.status_code == 200, response.text
        return True


def test_a_kill_amidst_events_leaves_each_in_the_state_once(
    first: ServiceProcess, items: list[str]
) -> None:
    writers = [Writer(first, f"writer-{n}", items[n * EVENTS :][:EVENTS]) for n in range(4)]
    for writer in writers:
        writer.start()
    wait_until(
        lambda: sum(writer.accepted for writer in writers) >= EVENTS, "the writers make progress"
    )
    first.kill()
    first.start()
    for writer in writers:
        writer.join(60)
    assert [writer.accepted for writer in writers] == [EVENTS] * 4
    assert sum(writer.retries for writer in writers) > 0, "the kill disturbed nobody"
    with first.client() as client:
        for number in range(4):
            user_id = f"writer-{number}"
            assert stored(client, user_id) == items[number * EVENTS :][:EVENTS]
            assert client.get(f"/v1/users/{user_id}").json()["events"] == EVENTS
            assert not set(ids(recommend(client, user_id=user_id))) & set(stored(client, user_id))

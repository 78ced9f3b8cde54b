"""With Redis hung or killed, recommendations keep coming and events are refused."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    stored,
    wait_until,
)
from tests.service.problem_shape import check_problem

CALLERS = 6
# Long enough for a busy machine with a Redis that is well.
PATIENT = {
    "deadline_ms": 20_000,
    "state_read_deadline_ms": 300,
    "state_write_deadline_ms": 1_000,
    "redis_probe_interval_ms": 100,
}


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def service(
    redis_server: RedisServer, any_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    with running_service(
        any_bundle,
        tmp_path_factory.mktemp("service"),
        state_url=redis_server.url,
        **PATIENT,
    ) as service:
        yield service


@pytest.fixture(scope="module")
def items(any_bundle: Path) -> list[str]:
    catalog = Bundle.open(any_bundle).catalog
    return [catalog.item_id(leaf) for leaf in range(len(catalog))]


@dataclass
class Call:
    started: float
    seconds: float
    status: int
    answer: dict[str, Any]


class Callers:
    """Threads that ask for recommendations, by user, until told to stop."""

    def __init__(self, service: ServiceProcess) -> None:
        self._service = service
        self._stopped = threading.Event()
        self.calls: list[Call] = []
        self.threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CALLERS)]

    def _ask(self, number: int) -> None:
        with self._service.client() as client:
            while not self._stopped.is_set():
                started = time.monotonic()
                response = client.post("/v1/recommend", json={"user_id": f"caller-{number}"})
                seconds = time.monotonic() - started
                call = Call(started, seconds, response.status_code, response.json())
                self.calls.append(call)

    def stop(self) -> None:
        self._stopped.set()
        for thread in self.threads:
            thread.join(30)

    def wait_for(self, more: int) -> None:
        """Wait until `more` answers have come."""
        enough = len(self.calls) + more
        wait_until(lambda: len(self.calls) >= enough, f"{more} answers")


@contextmanager
def calling(service: ServiceProcess) -> Iterator[Callers]:
    callers = Callers(service)
    for thread in callers.threads:
        thread.start()
    try:
        yield callers
    finally:
        callers.stop()


def is_degraded(answer: dict[str, Any]) -> bool:
    whole = {"levels": None, "paging": False, "explanations": False}
    return bool(answer["degraded"] == {"state_unavailable": True, **whole})


def wait_until_whole(client: httpx2.Client) -> None:
    wait_until(lambda: not is_degraded(recommend(client, user_id="probe")), "Redis is used again")


def check_outage(
    service: ServiceProcess, client: httpx2.Client, callers: Callers, items: list[str]
) -> float:
    """While Redis is away: look at everything a client can see; return when it began."""
    began = time.monotonic()
    callers.wait_for(10 * CALLERS)
    refused = post_event(client, "lost", "keeper", items[99])
    check_problem(refused, 503, "events_not_stored", more=("results",))
    assert int(refused.headers["retry-after"]) >= 1
    check_problem(client.get("/v1/users/keeper"), 503, "state_unavailable")
    check_problem(client.delete("/v1/users/keeper"), 503, "state_unavailable")
    assert service.status("/readyz") == 200
    assert service.status("/livez") == 200
    inline = recommend(client, history=items[:3])
    assert inline["degraded"] is None
    both = recommend(client, user_id="keeper", history=items[:3])
    assert is_degraded(both)
    assert both["items"] == inline["items"]
    callers.wait_for(CALLERS)
    return began


def check_calls(callers: Callers, began: float, ended: float) -> None:
    """All calls were answered, and those within the outage say so.

    Redis came back only after them, so that none has waited for it.
    """
    assert {call.status for call in callers.calls} == {200}
    assert all(len(call.answer["items"]) == 10 for call in callers.calls)
    within = [
        call
        for call in callers.calls
        if call.started > began and call.started + call.seconds < ended
    ]
    assert len(within) >= 10 * CALLERS
    assert all(is_degraded(call.answer) for call in within)


def test_a_hung_redis(service: ServiceProcess, redis_server: RedisServer, items: list[str]) -> None:
    with service.client() as client, calling(service) as callers:
        callers.wait_for(CALLERS)
        for number in range(20):
            assert post_event(client, f"h{number}", "keeper", items[number]).status_code == 200
        answer = recommend(client, user_id="keeper")
        redis_server.pause()
        try:
            began = check_outage(service, client, callers, items)
            ended = time.monotonic()
        finally:
            redis_server.resume()
        wait_until_whole(client)
        assert recommend(client, user_id="keeper")["items"] == answer["items"]
        assert stored(client, "keeper")[:20] == items[:20]
        # The event that was refused may have arrived: sent again, it is there once.
        assert post_event(client, "lost", "keeper", items[99]).status_code == 200
        assert stored(client, "keeper") == [*items[:20], items[99]]
        assert items[99] not in ids(recommend(client, user_id="keeper", k=100))
    check_calls(callers, began, ended)


def test_a_killed_redis(
    service: ServiceProcess, redis_server: RedisServer, items: list[str]
) -> None:
    with service.client() as client, calling(service) as callers:
        wait_until_whole(client)
        callers.wait_for(CALLERS)
        redis_server.kill()
        began = check_outage(service, client, callers, items)
        ended = time.monotonic()
        redis_server.start()
        wait_until_whole(client)
        assert post_event(client, "after", "returner", items[5]).json()["accepted"] == 1
        assert stored(client, "returner") == [items[5]]
    check_calls(callers, began, ended)
    assert service.metric("cofine_redis_circuit_state") == 0


def test_a_service_that_starts_before_its_redis(
    any_bundle: Path, tmp_path: Path, items: list[str]
) -> None:
    with running_redis(tmp_path) as server:
        server.kill()
        with (
            running_service(any_bundle, tmp_path, state_url=server.url, **PATIENT) as service,
            service.client() as client,
        ):
            assert is_degraded(recommend(client, user_id="early"))
            server.start()
            wait_until_whole(client)
            assert post_event(client, "1", "early", items[0]).json()["accepted"] == 1

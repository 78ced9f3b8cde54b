import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from service.log_config import start_logging
from tests.service.conftest import AppClient
from tests.service.fakes import BrokenRecommender, always

pytestmark = pytest.mark.anyio

SECRETS = ("secret-user", "secret-item", "secret-event", "secret-query")


class Captured:
    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.listener = start_logging("DEBUG", self.stream)

    def lines(self) -> list[dict[str, Any]]:
        self.listener.stop()
        self.listener.start()
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def captured() -> Iterator[Captured]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # Loggers of the tests' own client and loop, which no service has.
    foreign = [logging.getLogger(name) for name in ("httpx2", "asyncio")]
    for logger in foreign:
        logger.disabled = True
    captured = Captured()
    yield captured
    captured.listener.stop()
    root.handlers[:] = handlers
    root.setLevel(level)
    for logger in foreign:
        logger.disabled = False


async def test_a_request_is_one_line_with_its_id(start_app: AppClient, captured: Captured) -> None:
    async with start_app() as client:
        await client.post("/v1/recommend", json={}, headers={"x-request-id": "mine"})
    [line] = [line for line in captured.lines() if line["message"] == "request"]
    assert line["request_id"] == "mine"
    assert line["route"] == "/v1/recommend"
    assert line["status"] == 200
    assert line["level"] == "info"
    assert line["duration_ms"] > 0
    assert line["time"].endswith("+00:00")


async def test_no_line_names_a_user_an_item_or_an_event(
    start_app: AppClient, captured: Captured
) -> None:
    event = {"event_id": "secret-event", "user_id": "secret-user", "item_id": "secret-item"}
    async with start_app(always(BrokenRecommender())) as client:
        await client.post("/v1/events", json=event)
        await client.post("/v1/events", json={**event, "secret-item": 1})
        await client.get("/v1/users/secret-user?q=secret-query")
        await client.get("/v1/items/secret-item")
        await client.get("/secret-item")
        await client.delete("/v1/users/secret-user")
        await client.post(
            "/v1/recommend", json={"user_id": "secret-user", "history": ["secret-item"]}
        )
    lines = captured.lines()
    assert len([line for line in lines if line["message"] == "request"]) == 7
    [failure] = [line for line in lines if line["message"] == "request_failed"]
    assert failure["error"] == "KeyError"
    assert failure["where"][0].startswith("service/fakes.py:")
    for secret in SECRETS:
        assert secret not in captured.stream.getvalue()


async def test_an_exceptions_text_is_not_logged(captured: Captured) -> None:
    try:
        raise ValueError("secret-user")
    except ValueError:
        logging.getLogger("anything").exception("it failed")
    [line] = captured.lines()
    assert line["error"] == "ValueError"
    assert "secret-user" not in captured.stream.getvalue()


async def test_only_known_facts_are_logged(captured: Captured) -> None:
    logging.getLogger("anything").info("hello %s", "you", extra={"user": "secret-user"})
    [line] = captured.lines()
    assert line["message"] == "hello you"
    assert "secret-user" not in captured.stream.getvalue()

import ast
import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import service
from service.log_config import LOGGED_FACTS, start_logging
from service.serving import service_version
from tests.contract.redis_server import RedisServer
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


async def test_the_start_tells_what_is_served(start_app: AppClient, captured: Captured) -> None:
    async with start_app(workers=2):
        pass
    [line] = [line for line in captured.lines() if line["message"] == "serving"]
    facts = {"bundle": "table", "items": 5, "workers": 2, "state": "memory"}
    assert facts.items() <= line.items()
    assert line["version"] == service_version()


async def test_forgetting_users_for_want_of_memory_is_told_once(
    start_app: AppClient, captured: Captured
) -> None:
    async with start_app(memory_max_entries=6) as client:
        for number in range(5):
            event = {"event_id": "1", "user_id": f"secret-user-{number}", "item_id": "soap"}
            await client.post("/v1/events", json=event)
    told = [line for line in captured.lines() if line["message"] == "users_forgotten"]
    assert [line["reason"] for line in told] == ["memory_max_entries"]


async def test_the_probe_of_redis_is_no_part_of_a_request(
    start_app: AppClient, captured: Captured, own_redis_server: RedisServer
) -> None:
    # Patient: a read that misses its deadline leaves it to a ping to find out, which is nobody's.
    chosen = {
        "redis_failures_max": 1,
        "redis_probe_interval_ms": 10,
        "state_read_deadline_ms": 20_000,
    }
    async with start_app(state_url=own_redis_server.url, **chosen) as client:
        own_redis_server.kill()
        await client.get("/v1/users/u", headers={"x-request-id": "mine"})
        own_redis_server.start()
        async with asyncio.timeout(10):
            while not client.app.state.serving.store.is_available:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    told = {line["message"]: line for line in captured.lines()}
    assert told["redis_circuit_opened"]["request_id"] == "mine"
    assert "request_id" not in told["redis_circuit_closed"]


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


def facts_given(tree: ast.Module) -> Iterator[set[str]]:
    """The names in the `extra` of each log line, also where it is a variable of its function."""
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    for function in functions:
        dictionaries = {
            target.id: node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("_LOGGER."):
                for word in call.keywords:
                    if word.arg == "extra":
                        yield names_in(word.value, dictionaries)


def names_in(value: ast.expr, dictionaries: dict[str, ast.Dict]) -> set[str]:
    if isinstance(value, ast.Name):
        return names_in(dictionaries[value.id], dictionaries)
    assert isinstance(value, ast.Dict), f"not to be read: {ast.unparse(value)}"
    names: set[str] = set()
    for key, inner in zip(value.keys, value.values, strict=True):
        names |= names_in(inner, dictionaries) if key is None else {ast.literal_eval(key)}
    return names


def test_every_fact_that_is_given_is_written() -> None:
    modules = sorted(Path(service.__file__).parent.rglob("*.py"))
    given = [
        names for module in modules for names in facts_given(ast.parse(module.read_text("utf-8")))
    ]
    assert len(given) > 20
    assert set().union(*given) - {*LOGGED_FACTS} == set()

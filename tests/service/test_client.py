"""The Python client against a server that follows a script; a live service is in end_to_end/."""

import asyncio
import json
import re
import threading
import time
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service import client as cofine
from service.app import create_app
from service.client import (
    AsyncClient,
    Client,
    CofineError,
    Patience,
    ProblemError,
    UnreachableError,
)
from service.settings import load_settings


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: str = '{"item_id": "x"}'
    retry_after: str | None = None
    encoding: str | None = None
    hangs: bool = False


DROPPED = Answer(status=0)
BUSY = Answer(503, '{"code": "not_ready", "detail": "later"}', retry_after="0")


@dataclass
class Script:
    """What the server answers, one after the other, and what it was asked."""

    answers: list[Answer]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def following(*answers: Answer) -> Iterator[Script]:
    script = Script(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            answer = script.answers[len(script.asked)]
            script.asked.append(f"{self.command} {self.path} {body}".strip())
            if answer.hangs:
                script.ended.wait(30)
            if answer.status == 0 or answer.hangs:
                self.close_connection = True
                return
            self.send_response(answer.status)
            if answer.retry_after is not None:
                self.send_header("Retry-After", answer.retry_after)
            if answer.encoding is not None:
                self.send_header("Content-Encoding", answer.encoding)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body.encode())

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 (the library's names)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield script
    finally:
        script.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def wait_for_item(url: str, patience: Patience) -> Any:
    with Client(url, patience) as client:
        return client.item("x")


def await_item(url: str, patience: Patience) -> Any:
    async def ask() -> Any:
        async with AsyncClient(url, patience) as client:
            return await client.item("x")

    return asyncio.run(ask())


Ask = Callable[[str, Patience], Any]


@pytest.fixture(params=[wait_for_item, await_item], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    found: Ask = request.param
    return found


@pytest.mark.parametrize(
    "obstacle", [DROPPED, BUSY, Answer(429), Answer(502, "<html>"), Answer(504)]
)
def test_what_may_pass_is_tried_again(ask: Ask, obstacle: Answer) -> None:
    with following(obstacle, Answer()) as script:
        assert ask(script.url, Patience()) == {"item_id": "x"}
        assert script.asked == ["GET /v1/items/x"] * 2


def test_a_missing_answer_is_tried_again(ask: Ask) -> None:
    with following(Answer(hangs=True), Answer()) as script:
        assert ask(script.url, Patience(timeout_seconds=0.2)) == {"item_id": "x"}


@pytest.mark.parametrize("status", [400, 404, 413, 422, 500])
def test_what_will_not_pass_is_not_tried_again(ask: Ask, status: int) -> None:
    with following(Answer(status, '{"code": "some_code", "detail": "why"}')) as script:
        with pytest.raises(ProblemError, match=f"^{status} some_code: why$") as caught:
            ask(script.url, Patience())
        assert caught.value.problem == {"code": "some_code", "detail": "why"}
        assert len(script.asked) == 1


def test_a_proxy_s_page_is_no_answer(ask: Ask) -> None:
    with following(Answer(200, "<html>sign in</html>")) as script:
        with pytest.raises(ProblemError, match=r"^200 : not an answer of this service") as caught:
            ask(script.url, Patience())
        assert not caught.value.is_retryable


def test_an_answer_that_cannot_be_decoded_is_tried_again(ask: Ask) -> None:
    with following(Answer(body="no gzip", encoding="gzip"), Answer()) as script:
        assert ask(script.url, Patience()) == {"item_id": "x"}


def test_it_gives_up_after_as_many_attempts_as_it_may_make(ask: Ask) -> None:
    with following(BUSY, BUSY) as script, pytest.raises(ProblemError) as caught:
        ask(script.url, Patience(attempts_max=2))
    assert caught.value.code == "not_ready"
    assert len(script.asked) == 2


def test_it_does_not_wait_longer_than_it_may(ask: Ask) -> None:
    with following(Answer(503, "{}", retry_after="3600")) as script:
        with pytest.raises(ProblemError) as caught:
            ask(script.url, Patience())
        assert caught.value.retry_after_seconds == 3600
        assert len(script.asked) == 1


def test_it_waits_as_long_as_the_service_says(ask: Ask) -> None:
    with following(Answer(503, "{}", retry_after="1"), Answer()) as script:
        began = time.monotonic()
        ask(script.url, Patience())
        assert time.monotonic() - began >= 1


def test_nobody_listening_is_said(ask: Ask) -> None:
    with following() as script:
        url = script.url
    with pytest.raises(UnreachableError, match="did not answer: ConnectError") as caught:
        ask(url, Patience(attempts_max=2))
    assert isinstance(caught.value, CofineError)
    assert caught.value.__cause__ is not None


def test_ids_are_quoted_and_an_empty_answer_is_none() -> None:
    with following(Answer(204, "")) as script, Client(script.url) as client:
        client.erase_user("a/b ü")
        assert script.asked == ["DELETE /v1/users/a%2Fb%20%C3%BC"]


def test_an_event_is_sent_as_it_is() -> None:
    event: cofine.Event = {"event_id": "1", "user_id": "u", "item_id": "i"}
    with following(Answer(body="{}")) as script, Client(script.url) as client:
        client.send_events([event])
        assert json.loads(script.asked[0].removeprefix("POST /v1/events ")) == {"events": [event]}


def test_what_may_have_been_done_is_not_repeated_where_that_is_not_safe() -> None:
    for obstacle in (DROPPED, BUSY, Answer(502, "<html>")):
        with following(obstacle) as script, Client(script.url) as client:
            with pytest.raises(CofineError):
                client.roll_back("night")
            assert script.asked == ["POST /v1/bundles/night:rollback"]


def test_what_was_refused_or_never_asked_is_repeated_in_any_case() -> None:
    with following(Answer(429, "{}", retry_after="0"), Answer(body="{}")) as script:
        with Client(script.url) as client:
            client.roll_back("night")
        assert script.asked == ["POST /v1/bundles/night:rollback"] * 2
        url = script.url
    with Client(url, Patience(attempts_max=2)) as client, pytest.raises(UnreachableError) as caught:
        client.roll_back("night")
    assert caught.value.nothing_done


ROUTES: dict[str, Callable[[Any], Any]] = {
    "POST /v1/recommend": lambda client: client.recommend(user_id="x"),
    "POST /v1/recommend:batch": lambda client: client.recommend_batch([{"user_id": "x"}]),
    "POST /v1/explore": lambda client: client.explore(user_id="x", path=["Nails"]),
    "GET /v1/taxonomy": lambda client: client.taxonomy(["Makeup", "Nails"]),
    "POST /v1/events": lambda client: client.send_events([]),
    "GET /v1/users/{user_id}": lambda client: client.user("x"),
    "DELETE /v1/users/{user_id}": lambda client: client.erase_user("x"),
    "GET /v1/event-log": lambda client: client.logged("x"),
    "GET /v1/items/{item_id}": lambda client: client.item("x", neighbours=8),
    "PUT /v1/items": lambda client: client.put_items([{"item_id": "x"}]),
    "POST /v1/items/{item_id}:hide": lambda client: client.hide_item("x"),
    "POST /v1/items/{item_id}:show": lambda client: client.show_item("x"),
    "POST /v1/items/{item_id}:availability": lambda client: client.set_availability("x", stock=0),
    "POST /v1/items/{item_id}:reset": lambda client: client.reset_item("x"),
    "GET /v1/info": lambda client: client.info(),
    "GET /v1/access": lambda client: client.access(),
    "GET /v1/bundles": lambda client: client.bundles(),
    "POST /v1/bundles/{name}:load": lambda client: client.load_bundle("x"),
    "POST /v1/bundles/{name}:activate": lambda client: client.activate_bundle("x", role="canary"),
    "POST /v1/bundles/{name}:preview": lambda client: client.preview_bundle("x", user_id="x"),
    "POST /v1/bundles/{name}:rollback": lambda client: client.roll_back("x"),
}
"""Route -> the call for it."""
SENT = {
    "POST /v1/recommend": '{"user_id":"x"}',
    "POST /v1/recommend:batch": '{"requests":[{"user_id":"x"}]}',
    "POST /v1/explore": '{"user_id":"x","path":["Nails"]}',
    "GET /v1/taxonomy": "?path=Makeup&path=Nails",
    "POST /v1/events": '{"events":[]}',
    "GET /v1/event-log": "?user_id=x",
    "GET /v1/items/{item_id}": "?neighbours=8",
    "PUT /v1/items": '{"items":[{"item_id":"x"}]}',
    "POST /v1/items/{item_id}:availability": '{"stock":0}',
    "POST /v1/bundles/{name}:activate": '{"role":"canary"}',
    "POST /v1/bundles/{name}:preview": '{"user_id":"x"}',
}
"""Route -> its body or query, where it has one."""


def test_every_route_has_a_method() -> None:
    paths = create_app(load_settings()).openapi()["paths"]
    documented = {
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if operation["security"]  # not the probes
    }
    assert set(ROUTES) == documented


@pytest.mark.parametrize("route", ROUTES)
def test_a_method_sends_what_its_route_wants(route: str) -> None:
    address = re.sub(r"\{\w+\}", "x", route)
    sent = SENT.get(route, "")
    expected = f"{address}{sent}" if sent.startswith("?") else f"{address} {sent}".strip()

    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            await ROUTES[route](client)

    with following(Answer(), Answer()) as script:
        with Client(script.url) as client:
            ROUTES[route](client)
        asyncio.run(ask(script.url))
        assert script.asked == [expected] * 2


DOCUMENTED = {
    "Range": "RangeBody",
    "RecommendOptions": "RecommendRequest",
    "ExploreOptions": "ExploreRequest",
    "FieldError": "FieldError",
    "Problem": "Problem",
    "BatchedAnswer": "BatchedAnswer",
    "RecommendBatchAnswer": "RecommendBatchAnswer",
    "Place": "PlaceBody",
    "BestItem": "BestItem",
    "Choice": "ChoiceBody",
    "Exploration": "ExploreAnswer",
    "Taxonomy": "TaxonomyAnswer",
    "Level": "LevelBody",
    "Attribute": "AttributeBody",
    "State": "StateBody",
    "Info": "InfoAnswer",
    "Access": "AccessAnswer",
    "BundleReference": "BundleReference",
    "Rollout": "Rollout",
    "Bundle": "BundleBody",
    "Bundles": "BundlesAnswer",
    "Preview": "PreviewAnswer",
    "ActivateOptions": "ActivateRequest",
    "Step": "StepBody",
    "Influence": "InfluenceBody",
    "Explanation": "ExplanationBody",
    "RecommendedItem": "RecommendedItemBody",
    "Degraded": "Degraded",
    "Recommendation": "RecommendAnswer",
    "Event": "EventBody",
    "EventResult": "EventResult",
    "EventsAnswer": "EventsAnswer",
    "HistoryEntry": "HistoryEntryBody",
    "ServedList": "ServedListBody",
    "CountedRequests": "CountedRequestsBody",
    "User": "UserAnswer",
    "Neighbour": "NeighbourBody",
    "Item": "ItemAnswer",
    "Offer": "OfferRequest",
    "ItemEdit": "ItemBody",
    "CatalogueEdit": "CatalogueAnswer",
}


@pytest.mark.parametrize(("ours", "documented"), DOCUMENTED.items())
def test_the_types_are_those_of_the_openapi_document(ours: str, documented: str) -> None:
    schemas = create_app(load_settings()).openapi()["components"]["schemas"]
    assert list(typing.get_type_hints(getattr(cofine, ours))) == [
        *schemas[documented]["properties"]
    ]


def test_every_type_of_an_answer_is_compared() -> None:
    kinds = {name for name, kind in vars(cofine).items() if typing.is_typeddict(kind)}
    assert kinds == set(DOCUMENTED)


def test_it_needs_nothing_else_of_the_service() -> None:
    """Whoever wants the client alone copies its folder."""
    sources = [path.read_text("utf-8") for path in Path(*cofine.__path__).glob("*.py")]
    ours = r"^(?:from|import) (?:service|model)\b(?!\.client\b).*"
    assert len(sources) > 1
    assert re.findall(ours, "\n".join(sources), re.MULTILINE) == []

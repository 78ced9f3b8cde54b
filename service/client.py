"""A client of the service in Python: `Client` waits, `AsyncClient` is for event loops.

    with Client("http://127.0.0.1:8000") as cofine:
        shown = cofine.recommend(user_id="ann", k=10)
        cofine.send_events([{"event_id": "1", "user_id": "ann", "item_id": "P0148",
                             "recommendation_id": shown["recommendation_id"]}])

Answers are the service's JSON, typed as dictionaries. A refusal raises `ProblemError` with the
whole problem document, a service that does not answer `UnreachableError`; both are `CofineError`.

A call that may be repeated safely is tried again after a failed connection, a timeout and the
answers 429, 502, 503 and 504, after a random, growing pause or, where the service says one, its
Retry-After: recommending and reading change nothing, an event is known by its id, an erasure is an
erasure. Only `roll_back` is not such a call: it is tried again where nothing can have been done,
after a connection that was never made and after 429.

One method per route, in both clients, with the types of the OpenAPI document, as
`tests/service/test_client.py` checks. Imports nothing else of the service; needs the extra
`client`.
"""

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, NotRequired, Self, TypeAlias, TypedDict, Unpack, cast
from urllib.parse import quote

import httpx2

_TOO_MANY_REQUESTS = 429
_RETRYABLE_STATUSES = frozenset({_TOO_MANY_REQUESTS, 502, 503, 504})
_FIRST_PAUSE_SECONDS = 0.1


Scalar: TypeAlias = str | int | float | bool


class Range(TypedDict, total=False):
    """Between two numbers, both included; at least one of them."""

    min: float | None
    max: float | None


class RecommendOptions(TypedDict, total=False):
    """The fields of a recommendation request; the service's documentation defines each."""

    user_id: str | None
    history: Sequence[str] | None
    k: int
    exclude: Sequence[str]
    exclude_seen: bool
    categories: Sequence[Sequence[str]]
    filters: Mapping[str, Scalar | Sequence[Scalar] | Range]
    path: Sequence[str]
    explain: bool
    after: str | None
    anchor: Sequence[str]
    diversity: float
    exploration: float
    scenario: str | None
    context: Mapping[str, Scalar]
    beam: int | Literal["auto"] | None
    deadline_ms: int | None


class ExploreOptions(TypedDict, total=False):
    """The fields of a request to explore; the service's documentation defines each."""

    user_id: str | None
    history: Sequence[str] | None
    path: Sequence[str]
    k: int
    items_per_choice: int
    exclude: Sequence[str]
    exclude_seen: bool
    categories: Sequence[Sequence[str]]
    filters: Mapping[str, Scalar | Sequence[Scalar] | Range]
    deadline_ms: int | None


class Step(TypedDict):
    """One place on the way to an item."""

    name: str
    kind: Literal["category", "group", "item"]
    probability: float


class Influence(TypedDict):
    """What one item of the history does for a recommended one."""

    item_id: str
    log_prob_drop: float


class Explanation(TypedDict):
    """Why an item is recommended."""

    way: list[Step]
    influences: list[Influence]
    certified: bool | None


class RecommendedItem(TypedDict):
    """One recommended item."""

    item_id: str
    rank: int
    score: float
    source: str
    title: str
    path: list[str]
    semantic_id: list[int]
    level_log_probs: list[float] | None
    explanation: Explanation | None
    propensity: float | None


class Degraded(TypedDict):
    """What an answer had to do without."""

    state_unavailable: bool
    levels: int | None
    paging: bool


class Recommendation(TypedDict):
    """Recommended items, best first."""

    recommendation_id: str
    bundle: str
    variant: Literal["active", "canary"]
    catalogue_version: int
    items: list[RecommendedItem]
    degraded: Degraded | None
    certified: bool | None
    took_ms: float
    unknown_history_items: int


class FieldError(TypedDict):
    """One offending field of a request."""

    detail: str
    code: str
    pointer: NotRequired[str | None]
    parameter: NotRequired[str | None]


class Problem(TypedDict):
    """Why a request was refused (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldError]
    request_id: str
    retryable: bool
    results: NotRequired["list[EventResult] | None"]


class BatchedAnswer(TypedDict):
    """What became of one recommendation of a batch: an answer or a problem."""

    answer: Recommendation | None
    problem: Problem | None


class RecommendBatchAnswer(TypedDict):
    """What became of the recommendations of a batch, in their order."""

    results: list[BatchedAnswer]


class Place(TypedDict):
    """One place of the tree that people browse."""

    name: str
    path: list[str]
    kind: Literal["category", "group", "item"]
    items: int
    item_id: str | None


class BestItem(TypedDict):
    """An item named in a choice."""

    item_id: str
    title: str
    source: str


class Choice(Place):
    """A place that the user may go on to."""

    probability: float
    best: list[BestItem]
    recommendation_id: str | None


class Exploration(TypedDict):
    """What lies below a place, for one user."""

    recommendation_id: str | None
    bundle: str
    variant: Literal["active", "canary"]
    catalogue_version: int
    path: list[str]
    probability: float
    items_here: int
    choices: list[Choice]
    items: list[RecommendedItem]
    degraded: Degraded | None
    took_ms: float
    unknown_history_items: int


class Taxonomy(TypedDict):
    """What lies below a place, for nobody in particular."""

    bundle: str
    catalogue_version: int
    path: list[str]
    items_here: int
    choices: list[Place]


class Event(TypedDict):
    """One thing that a user did with an item; `timestamp` is in seconds of Unix time."""

    event_id: str
    user_id: str
    item_id: str
    timestamp: NotRequired[float | None]
    type: NotRequired[str]
    recommendation_id: NotRequired[str | None]


class EventResult(TypedDict):
    """What became of one event."""

    event_id: str
    status: str
    attribution: str | None


class EventsAnswer(TypedDict):
    """What became of the events, in their order."""

    results: list[EventResult]
    accepted: int
    duplicates: int


class HistoryEntry(TypedDict):
    """One event of a stored history."""

    item_id: str
    timestamp: float
    type: str


class ServedList(TypedDict):
    """Items that were served together; `expires` is in seconds of Unix time."""

    recommendation_id: str
    expires: float
    items: list[str]


class CountedRequests(TypedDict):
    """Requests that count against a key's limit for a user."""

    key: str
    requests: int


class User(TypedDict):
    """What the state holds of a user."""

    user_id: str
    history: list[HistoryEntry]
    history_items: int
    seen_items: int
    disliked: list[str]
    seen: list[str]
    event_ids: list[str]
    events: int
    history_version: int
    served_lists: list[ServedList]
    counted_requests: list[CountedRequests]


class Offer(TypedDict, total=False):
    """Whether and when an item can be had; what is left out is no limit."""

    stock: int | None
    available_from: float | None
    available_until: float | None


class ItemEdit(Offer):
    """An item to put into the catalogue; the service's documentation defines each field."""

    item_id: str
    title: NotRequired[str]
    brand: NotRequired[str]
    description: NotRequired[str]
    categories: NotRequired[Sequence[Sequence[str]]]
    attributes: NotRequired[Mapping[str, Scalar]]


class CatalogueEdit(TypedDict):
    """From which version of the catalogue an edit is served, and of which items."""

    catalogue_version: int
    items: list[str]


class Neighbour(TypedDict):
    """An item near another one."""

    item_id: str
    title: str
    path: list[str]
    semantic_id: list[int]
    likeness: float


class Item(TypedDict):
    """One item of the catalogue in service."""

    item_id: str
    title: str
    path: list[str]
    paths: list[list[str]]
    semantic_id: list[int]
    available: bool
    bundle: str
    catalogue_version: int
    neighbours: list[Neighbour] | None


class Level(TypedDict):
    """One level of the semantic IDs."""

    name: str
    codebook_size: int


class Attribute(TypedDict):
    """An attribute that items can be filtered by."""

    name: str
    type: Literal["str", "int", "float", "bool"]


class State(TypedDict):
    """The store of user state."""

    kind: Literal["memory", "redis"]
    available: bool


class Info(TypedDict):
    """What is in service, and its limits."""

    version: str
    bundle: str
    catalogue_version: int
    items: int
    decoder: Literal["autoregressive", "diffusion"]
    levels: list[Level]
    attributes: list[Attribute]
    scenarios: list[str]
    limits: dict[str, int]
    state: State
    access: Literal["open", "keys"]


class Access(TypedDict):
    """What the caller may do."""

    access: Literal["open", "keys"]
    scopes: list[Literal["publishable", "read", "write", "admin"]]
    user_id: str | None


class BundleReference(TypedDict):
    """A bundle as all replicas know it: its folder's name and its id."""

    name: str
    bundle: str


class Rollout(TypedDict):
    """Which bundle has which role."""

    version: int
    active: BundleReference
    previous: BundleReference | None
    canary: BundleReference | None
    canary_percent: float
    shadow: BundleReference | None
    loaded: BundleReference | None


class Bundle(TypedDict):
    """A bundle that could be put in service."""

    name: str
    bundle: str
    open: bool


class Bundles(TypedDict):
    """What a replica has in service, and what there is to choose from."""

    rollout: Rollout
    failure: str | None
    bundles: list[Bundle]


class Preview(TypedDict):
    """What a bundle would recommend."""

    name: str
    bundle: str
    decoder: Literal["autoregressive", "diffusion"]
    items: list[RecommendedItem]
    degraded: Degraded | None
    certified: bool | None
    took_ms: float
    unknown_history_items: int


class ActivateOptions(TypedDict, total=False):
    """Which role to give a bundle; `active` without one."""

    role: Literal["active", "canary", "shadow"]
    percent: float


class CofineError(Exception):
    """A call that did not succeed.

    Attributes:
        is_retryable: whether the same call may succeed later.
        nothing_done: whether the service has certainly done nothing of what was asked.
        retry_after_seconds: when the service suggests to try again.
    """

    is_retryable = False
    nothing_done = False
    retry_after_seconds: float | None = None


class UnreachableError(CofineError):
    """No answer came: no connection, or none in time."""

    is_retryable = True

    def __init__(self, error: httpx2.TransportError) -> None:
        self.nothing_done = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
        super().__init__(f"the service did not answer: {type(error).__name__}: {error}")
        self.__cause__ = error


class ProblemError(CofineError):
    """The service refused.

    Attributes:
        status: of HTTP.
        problem: the problem document (RFC 9457); empty where something on the way refused.
        code: the stable name of the kind of problem, "" where there is no document.
    """

    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.problem = _problem(response)
        self.code = str(self.problem.get("code", ""))
        self.retry_after_seconds = _seconds(response.headers.get("retry-after"))
        self.is_retryable = self.status in _RETRYABLE_STATUSES
        self.nothing_done = self.status == _TOO_MANY_REQUESTS
        super().__init__(f"{self.status} {self.code}: {self.problem.get('detail', 'no details')}")


@dataclass(frozen=True)
class Patience:
    """How long to wait and how often to try.

    Attributes:
        timeout_seconds: for each attempt to connect, to send and to get more of the answer.
        deadline_seconds: no attempt begins later than this after the call began.
        attempts_max: 1 never repeats.
    """

    timeout_seconds: float = 5.0
    deadline_seconds: float = 15.0
    attempts_max: int = 3


@dataclass(frozen=True)
class _Call:
    """A request as HTTP has it, and whether doing it twice is the same as doing it once."""

    method: str
    path: str
    body: object = None
    query: Mapping[str, Sequence[str]] | None = None
    is_repeatable: bool = True


class _Attempts:
    """The attempts of one call: counts them and says how long to pause before the next."""

    def __init__(self, patience: Patience, call: _Call) -> None:
        self._patience = patience
        self._is_repeatable = call.is_repeatable
        self._made = 0
        self._give_up_at = time.monotonic() + patience.deadline_seconds

    def pause_after(self, error: CofineError) -> float:
        """Return the seconds to wait before trying again.

        Raises:
            CofineError: `error`, where trying again is no use or too late.
        """
        self._made += 1
        longest = 1.5 * _FIRST_PAUSE_SECONDS * 2.0 ** (self._made - 1)
        pause = random.uniform(longest / 3, longest)  # noqa: S311 (no secret) # nosec B311
        if error.retry_after_seconds is not None:
            pause = max(pause, error.retry_after_seconds)
        may_repeat = error.is_retryable and (self._is_repeatable or error.nothing_done)
        is_last = self._made >= self._patience.attempts_max
        if not may_repeat or is_last or time.monotonic() + pause > self._give_up_at:
            raise error
        return pause


class Client:
    """Talks to one service; safe for threads, to be closed or used in a `with`.

    `key` is what the service's operator issued; without one, a service that asks for keys refuses.
    """

    def __init__(
        self, url: str, patience: Patience | None = None, *, key: str | None = None
    ) -> None:
        self._patience = patience or Patience()
        self._http = httpx2.Client(
            base_url=url, timeout=self._patience.timeout_seconds, headers=_headers(key)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def recommend(self, **options: Unpack[RecommendOptions]) -> Recommendation:
        """Return items for a user, a history or nobody in particular."""
        return cast("Recommendation", self._call(_Call("POST", "/v1/recommend", options)))

    def recommend_batch(self, requests: Sequence[RecommendOptions]) -> RecommendBatchAnswer:
        """Answer several recommendations, each for itself."""
        call = _Call("POST", "/v1/recommend:batch", {"requests": requests})
        return cast("RecommendBatchAnswer", self._call(call))

    def explore(self, **options: Unpack[ExploreOptions]) -> Exploration:
        """Return where below a path a user is likely to go on, and the best items there."""
        return cast("Exploration", self._call(_Call("POST", "/v1/explore", options)))

    def taxonomy(self, path: Sequence[str] = ()) -> Taxonomy:
        """Return what lies below a place of the tree, for nobody in particular."""
        return cast("Taxonomy", self._call(_Call("GET", "/v1/taxonomy", query={"path": path})))

    def send_events(self, events: Sequence[Event]) -> EventsAnswer:
        """Store what users did; each event is stored once, however often it is sent."""
        return cast("EventsAnswer", self._call(_Call("POST", "/v1/events", {"events": events})))

    def user(self, user_id: str) -> User:
        """Return what the state holds of a user."""
        return cast("User", self._call(_Call("GET", _path("users", user_id))))

    def logged(self, user_id: str) -> list[dict[str, Any]]:
        """Return what the event log holds of a user; a large log takes its time."""
        call = _Call("GET", "/v1/event-log", query={"user_id": [user_id]})
        return cast("list[dict[str, Any]]", self._call(call))

    def erase_user(self, user_id: str) -> None:
        """Erase everything stored of a user."""
        self._call(_Call("DELETE", _path("users", user_id)))

    def item(self, item_id: str, *, neighbours: int = 0) -> Item:
        """Return an item of the catalogue, and as many of the items most like it."""
        query = {"neighbours": [str(neighbours)]} if neighbours else None
        call = _Call("GET", _path("items", item_id), query=query)
        return cast("Item", self._call(call))

    def put_items(self, items: Sequence[ItemEdit]) -> CatalogueEdit:
        """Put items into the catalogue, or in the place of those of the same ids."""
        return cast("CatalogueEdit", self._call(_Call("PUT", "/v1/items", {"items": items})))

    def hide_item(self, item_id: str) -> CatalogueEdit:
        """Recommend an item no more, until it is shown again."""
        call = _Call("POST", _path("items", item_id, "hide"))
        return cast("CatalogueEdit", self._call(call))

    def show_item(self, item_id: str) -> CatalogueEdit:
        """Take back that an item is hidden."""
        call = _Call("POST", _path("items", item_id, "show"))
        return cast("CatalogueEdit", self._call(call))

    def reset_item(self, item_id: str) -> CatalogueEdit:
        """Take all edits of an item back: it is as the bundle has it, or gone."""
        call = _Call("POST", _path("items", item_id, "reset"))
        return cast("CatalogueEdit", self._call(call))

    def set_availability(self, item_id: str, **offer: Unpack[Offer]) -> CatalogueEdit:
        """Tell an item's stock and the time in which it can be had."""
        call = _Call("POST", _path("items", item_id, "availability"), offer)
        return cast("CatalogueEdit", self._call(call))

    def info(self) -> Info:
        """Return what is in service, and its limits."""
        return cast("Info", self._call(_Call("GET", "/v1/info")))

    def access(self) -> Access:
        """Return what the client's key may do."""
        return cast("Access", self._call(_Call("GET", "/v1/access")))

    def bundles(self) -> Bundles:
        """Return which bundle has which role, and which ones there are; an admin key's."""
        return cast("Bundles", self._call(_Call("GET", "/v1/bundles")))

    def load_bundle(self, name: str) -> Bundles:
        """Have a bundle open and verified on every replica; it serves nobody yet."""
        return cast("Bundles", self._call(_Call("POST", _path("bundles", name, "load"))))

    def activate_bundle(self, name: str, **options: Unpack[ActivateOptions]) -> Bundles:
        """Give a bundle a role: everybody, some users, or compared and not served."""
        call = _Call("POST", _path("bundles", name, "activate"), options)
        return cast("Bundles", self._call(call))

    def preview_bundle(self, name: str, **options: Unpack[RecommendOptions]) -> Preview:
        """Return what an open bundle would recommend; shown to nobody, counted nowhere."""
        call = _Call("POST", _path("bundles", name, "preview"), options)
        return cast("Preview", self._call(call))

    def roll_back(self, name: str) -> Bundles:
        """Take a bundle's role away; what was active before serves again."""
        call = _Call("POST", _path("bundles", name, "rollback"), is_repeatable=False)
        return cast("Bundles", self._call(call))

    def _call(self, call: _Call) -> object:
        attempts = _Attempts(self._patience, call)
        while True:
            try:
                return _answer(
                    self._http.request(call.method, call.path, params=call.query, json=call.body)
                )
            except httpx2.TransportError as error:
                failure: CofineError = UnreachableError(error)
            except ProblemError as error:
                failure = error
            time.sleep(attempts.pause_after(failure))


class AsyncClient:
    """Talks to one service from an event loop; to be closed or used in an `async with`.

    `key` is that of `Client`.
    """

    def __init__(
        self, url: str, patience: Patience | None = None, *, key: str | None = None
    ) -> None:
        self._patience = patience or Patience()
        self._http = httpx2.AsyncClient(
            base_url=url, timeout=self._patience.timeout_seconds, headers=_headers(key)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def recommend(self, **options: Unpack[RecommendOptions]) -> Recommendation:
        """Return items for a user, a history or nobody in particular."""
        return cast("Recommendation", await self._call(_Call("POST", "/v1/recommend", options)))

    async def recommend_batch(self, requests: Sequence[RecommendOptions]) -> RecommendBatchAnswer:
        """Answer several recommendations, each for itself."""
        call = _Call("POST", "/v1/recommend:batch", {"requests": requests})
        return cast("RecommendBatchAnswer", await self._call(call))

    async def explore(self, **options: Unpack[ExploreOptions]) -> Exploration:
        """Return where below a path a user is likely to go on, and the best items there."""
        return cast("Exploration", await self._call(_Call("POST", "/v1/explore", options)))

    async def taxonomy(self, path: Sequence[str] = ()) -> Taxonomy:
        """Return what lies below a place of the tree, for nobody in particular."""
        call = _Call("GET", "/v1/taxonomy", query={"path": path})
        return cast("Taxonomy", await self._call(call))

    async def send_events(self, events: Sequence[Event]) -> EventsAnswer:
        """Store what users did; each event is stored once, however often it is sent."""
        call = _Call("POST", "/v1/events", {"events": events})
        return cast("EventsAnswer", await self._call(call))

    async def user(self, user_id: str) -> User:
        """Return what the state holds of a user."""
        return cast("User", await self._call(_Call("GET", _path("users", user_id))))

    async def logged(self, user_id: str) -> list[dict[str, Any]]:
        """Return what the event log holds of a user; a large log takes its time."""
        call = _Call("GET", "/v1/event-log", query={"user_id": [user_id]})
        return cast("list[dict[str, Any]]", await self._call(call))

    async def erase_user(self, user_id: str) -> None:
        """Erase everything stored of a user."""
        await self._call(_Call("DELETE", _path("users", user_id)))

    async def item(self, item_id: str, *, neighbours: int = 0) -> Item:
        """Return an item of the catalogue, and as many of the items most like it."""
        query = {"neighbours": [str(neighbours)]} if neighbours else None
        call = _Call("GET", _path("items", item_id), query=query)
        return cast("Item", await self._call(call))

    async def put_items(self, items: Sequence[ItemEdit]) -> CatalogueEdit:
        """Put items into the catalogue, or in the place of those of the same ids."""
        return cast("CatalogueEdit", await self._call(_Call("PUT", "/v1/items", {"items": items})))

    async def hide_item(self, item_id: str) -> CatalogueEdit:
        """Recommend an item no more, until it is shown again."""
        call = _Call("POST", _path("items", item_id, "hide"))
        return cast("CatalogueEdit", await self._call(call))

    async def show_item(self, item_id: str) -> CatalogueEdit:
        """Take back that an item is hidden."""
        call = _Call("POST", _path("items", item_id, "show"))
        return cast("CatalogueEdit", await self._call(call))

    async def reset_item(self, item_id: str) -> CatalogueEdit:
        """Take all edits of an item back: it is as the bundle has it, or gone."""
        call = _Call("POST", _path("items", item_id, "reset"))
        return cast("CatalogueEdit", await self._call(call))

    async def set_availability(self, item_id: str, **offer: Unpack[Offer]) -> CatalogueEdit:
        """Tell an item's stock and the time in which it can be had."""
        call = _Call("POST", _path("items", item_id, "availability"), offer)
        return cast("CatalogueEdit", await self._call(call))

    async def info(self) -> Info:
        """Return what is in service, and its limits."""
        return cast("Info", await self._call(_Call("GET", "/v1/info")))

    async def access(self) -> Access:
        """Return what the client's key may do."""
        return cast("Access", await self._call(_Call("GET", "/v1/access")))

    async def bundles(self) -> Bundles:
        """Return which bundle has which role, and which ones there are; an admin key's."""
        return cast("Bundles", await self._call(_Call("GET", "/v1/bundles")))

    async def load_bundle(self, name: str) -> Bundles:
        """Have a bundle open and verified on every replica; it serves nobody yet."""
        return cast("Bundles", await self._call(_Call("POST", _path("bundles", name, "load"))))

    async def activate_bundle(self, name: str, **options: Unpack[ActivateOptions]) -> Bundles:
        """Give a bundle a role: everybody, some users, or compared and not served."""
        call = _Call("POST", _path("bundles", name, "activate"), options)
        return cast("Bundles", await self._call(call))

    async def preview_bundle(self, name: str, **options: Unpack[RecommendOptions]) -> Preview:
        """Return what an open bundle would recommend; shown to nobody, counted nowhere."""
        call = _Call("POST", _path("bundles", name, "preview"), options)
        return cast("Preview", await self._call(call))

    async def roll_back(self, name: str) -> Bundles:
        """Take a bundle's role away; what was active before serves again."""
        call = _Call("POST", _path("bundles", name, "rollback"), is_repeatable=False)
        return cast("Bundles", await self._call(call))

    async def _call(self, call: _Call) -> object:
        attempts = _Attempts(self._patience, call)
        while True:
            try:
                return _answer(
                    await self._http.request(
                        call.method, call.path, params=call.query, json=call.body
                    )
                )
            except httpx2.TransportError as error:
                failure: CofineError = UnreachableError(error)
            except ProblemError as error:
                failure = error
            await asyncio.sleep(attempts.pause_after(failure))


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _path(kind: str, name: str, verb: str | None = None) -> str:
    address = f"/v1/{kind}/{quote(name, safe='')}"
    return address if verb is None else f"{address}:{verb}"


def _answer(response: httpx2.Response) -> object:
    """Return the answer's JSON, of JSON Lines a list, and None for an empty answer.

    Raises:
        ProblemError: the service refused.
    """
    if not response.is_success:
        raise ProblemError(response)
    if response.headers.get("content-type", "").startswith("application/x-ndjson"):
        return [json.loads(line) for line in response.text.split("\n") if line]
    return response.json() if response.content else None


def _problem(response: httpx2.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:  # a proxy's page
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(retry_after: str | None) -> float | None:
    """Return Retry-After where it is a number of seconds, as this service says it."""
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else None

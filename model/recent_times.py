"""How long work took lately: what tells whether there is time for it now."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable

KEPT = 64
FRESH_SECONDS = 10.0
"""Older times are forgotten. Work that took too long once is then tried again, instead of being
avoided for good because nobody measures it any more."""


class RecentTimes:
    """The newest times of each kind of work, in seconds; owned by one thread."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """Start without any; `now` reads the clock."""
        self.now = now
        self._kept: defaultdict[Hashable, deque[tuple[float, float]]] = defaultdict(
            lambda: deque(maxlen=KEPT)
        )

    def note(self, kind: Hashable, started: float) -> None:
        """Keep that work of this kind, begun at `started`, ends now."""
        ended = self.now()
        self._kept[kind].append((ended, ended - started))

    def p95(self, kind: Hashable) -> float | None:
        """The 95th percentile, None where nothing was measured lately."""
        kept = self._kept[kind]
        while kept and kept[0][0] < self.now() - FRESH_SECONDS:
            kept.popleft()
        if not kept:
            return None
        seconds = sorted(took for _, took in kept)
        return seconds[(len(seconds) * 95 - 1) // 100]

"""The items of recommendations served lately, so that a next page repeats none of them.

Nothing here says whose they are. Lists live `LIST_TTL_MS`, in whatever keeps the user state.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

LIST_TTL_MS: Final = 30 * 60_000
LIST_MAX_ITEMS: Final = 1_000
"""Of a list with all its earlier pages; the newest are kept."""


class MemoryLists:
    """Served lists in this process; beyond `max_items` items in all the oldest are dropped."""

    def __init__(self, max_items: int, clock_ms: Callable[[], int]) -> None:
        self._max_items = max_items
        self._clock_ms = clock_ms
        self._lists: OrderedDict[str, tuple[int, tuple[str, ...]]] = OrderedDict()
        self._items = 0

    @property
    def items(self) -> int:
        """Items kept, of all lists."""
        return self._items

    def keep(self, recommendation_id: str, items: Sequence[str]) -> None:
        """Keep what was served under an id that is used once."""
        now_ms = self._clock_ms()
        self._lists[recommendation_id] = (now_ms + LIST_TTL_MS, tuple(items))
        self._items += len(items)
        while self._lists and (self._items > self._max_items or self._oldest_ms() <= now_ms):
            _, (_, dropped) = self._lists.popitem(last=False)
            self._items -= len(dropped)

    def read(self, recommendation_id: str) -> tuple[str, ...] | None:
        """Return what was served, None when it is not known any more."""
        expires_ms, items = self._lists.get(recommendation_id, (0, ()))
        return items if expires_ms > self._clock_ms() else None

    def _oldest_ms(self) -> int:
        return next(iter(self._lists.values()))[0]

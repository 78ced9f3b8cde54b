"""The items of recommendations served lately, so that a next page repeats none of them.

A list belongs to the user whom it was served to: only that user's next page finds it, and it is
erased with the user. A list served to nobody in particular belongs to itself. Lists live
`LIST_TTL_MS`, in whatever keeps the user state, of one user at most `USER_LISTS_MAX`. What was
asked for before an erasure may be answered after it: for `ERASED_MS` no list of that user is kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

LIST_TTL_MS: Final = 30 * 60_000
LIST_MAX_ITEMS: Final = 1_000
"""Of a list with all its earlier pages; the newest are kept."""
USER_LISTS_MAX: Final = 32
"""The newest are kept: enough for every shelf of a page, or a whole batch, at once."""
LIST_ENTRIES: Final = 8
"""What a list takes in memory besides its items, in items: also one without any takes place."""
ERASED_MS: Final = 2_000
"""Longer than an answer takes and than Redis may have a late list lying about."""

_Lists: TypeAlias = OrderedDict[str, tuple[int, tuple[str, ...]]]
"""Recommendation id -> when the list expires, and its items; the newest last."""


@dataclass(frozen=True, slots=True)
class ServedList:
    """What was served once.

    Attributes:
        recommendation_id: of the answer.
        expires_ms: when it is forgotten, in milliseconds of Unix time.
        items: item ids of the answer and of the pages before it.
    """

    recommendation_id: str
    expires_ms: int
    items: tuple[str, ...]


def owner_of(user_id: str | None, recommendation_id: str) -> tuple[str, str]:
    """Return whose a list is: a kind, `u` or `l`, and a name that is unique in it."""
    return ("l", recommendation_id) if user_id is None else ("u", user_id)


class MemoryLists:
    """Served lists in this process; beyond `max_entries` in all the oldest are dropped."""

    def __init__(self, max_entries: int, clock_ms: Callable[[], int]) -> None:
        self._max_entries = max_entries
        self._clock_ms = clock_ms
        # The owner of the newest list is last.
        self._owners: OrderedDict[tuple[str, str], _Lists] = OrderedDict()
        self._entries = 0
        # Hash of a user's id, for an id is what has to go -> until when no list is kept.
        self._erased: dict[int, int] = {}

    @property
    def entries(self) -> int:
        """What all lists take: their items, and each `LIST_ENTRIES` besides."""
        return self._entries

    def keep(self, user_id: str | None, recommendation_id: str, items: Sequence[str]) -> None:
        """Keep what was served under an id that is used once."""
        now_ms = self._clock_ms()
        if self._erased.get(hash(user_id), 0) > now_ms:
            return
        owner = owner_of(user_id, recommendation_id)
        lists = self._owners.setdefault(owner, OrderedDict())
        lists[recommendation_id] = (now_ms + LIST_TTL_MS, tuple(items))
        self._owners.move_to_end(owner)
        self._entries += LIST_ENTRIES + len(items)
        if len(lists) > USER_LISTS_MAX:
            self._drop_oldest(owner)
        while self._owners and (self._entries > self._max_entries or self._oldest_ms() <= now_ms):
            self._drop_oldest(next(iter(self._owners)))

    def read(self, user_id: str | None, recommendation_id: str) -> tuple[str, ...] | None:
        """Return what was served, None when it is not known, or not any more."""
        lists = self._owners.get(owner_of(user_id, recommendation_id), OrderedDict())
        expires_ms, items = lists.get(recommendation_id, (0, ()))
        return items if expires_ms > self._clock_ms() else None

    def of_user(self, user_id: str) -> tuple[ServedList, ...]:
        """Return what was served to the user, newest first."""
        lists = self._owners.get(owner_of(user_id, ""), OrderedDict())
        now_ms = self._clock_ms()
        return tuple(
            ServedList(name, expires_ms, items)
            for name, (expires_ms, items) in reversed(lists.items())
            if expires_ms > now_ms
        )

    def forget(self, user_id: str) -> None:
        """Drop all lists of the user, and keep none for `ERASED_MS`."""
        now_ms = self._clock_ms()
        self._erased = {user: until for user, until in self._erased.items() if until > now_ms}
        self._erased[hash(user_id)] = now_ms + ERASED_MS
        owner = owner_of(user_id, "")
        while owner in self._owners:
            self._drop_oldest(owner)

    def _drop_oldest(self, owner: tuple[str, str]) -> None:
        lists = self._owners[owner]
        _, (_, dropped) = lists.popitem(last=False)
        self._entries -= LIST_ENTRIES + len(dropped)
        if not lists:
            del self._owners[owner]

    def _oldest_ms(self) -> int:
        lists = next(iter(self._owners.values()))
        return next(iter(lists.values()))[0]

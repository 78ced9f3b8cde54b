"""What the service remembers of users, and the store that keeps it in this process.

Both stores (this one and `service/redis_user_state.py`) mean the same; one suite of tests holds
them to it:

- The history is ordered by event time, events of the same time by arrival. A late event is put in
  its place. Only the newest `history_max_items` are kept.
- The seen items are a longer memory without order for the caller: every item of an accepted event,
  the `seen_max_items` with the newest event time (at equal times the greater id in UTF-8).
- A dislike (`DISLIKE`) stays out of the history and the seen items: its item is among the user's
  disliked items, of which as many are kept as of seen ones, chosen in the same way. It takes no
  earlier event back, and no later event takes it back.
- An event is a duplicate when its id is among the user's last `event_ids_max` ids of the last
  `event_id_window_ms`, counted from arrival. Event ids of different users are unrelated.
- The history version grows with every accepted event and never repeats for a user, not even after
  an erasure or expiry, because it starts at the clock's milliseconds.
- A served list is read back as it was kept, for its user only, for 30 minutes or until it is not
  among the user's last `USER_LISTS_MAX`; then it is not known. An erasure takes the user's lists.
- A user without accepted events for `ttl_ms` (plus or minus 10 %) is forgotten whole.

Item ids are stored as they came, whatever catalogue is in service.
"""

import logging
import random
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from model.history import DISLIKE
from service.served_lists import MemoryLists, ServedList

_LOGGER = logging.getLogger(__name__)

Outcome = Literal["accepted", "duplicate"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a user did with an item.

    Attributes:
        event_id: the client's name of the event, unique per user.
        item_id: any string; need not be in a catalogue.
        timestamp_ms: when it happened, in milliseconds of Unix time.
        type: `DISLIKE`, or the client's word for it; no `|`.
    """

    event_id: str
    item_id: str
    timestamp_ms: int
    type: str = "view"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """An event as kept in a history."""

    item_id: str
    timestamp_ms: int
    type: str


@dataclass(frozen=True, slots=True)
class UserState:
    """What is known of one user; all empty and 0 for an unknown one.

    Attributes:
        history: oldest first.
        seen: item ids, more than the history holds.
        version: the history version, 0 for an unknown user.
        events: how many events were accepted since the user became known.
        disliked: item ids, in no order.
    """

    history: tuple[HistoryEntry, ...] = ()
    seen: tuple[str, ...] = ()
    version: int = 0
    events: int = 0
    disliked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StateLimits:
    """How much is kept per user; the module's docstring defines each."""

    history_max_items: int = 100
    seen_max_items: int = 1_000
    event_ids_max: int = 1_000
    event_id_window_ms: int = 86_400_000
    ttl_ms: int = 2_592_000_000

    def jittered_ttl_ms(self) -> int:
        """Return the time to live of one write: users who came together do not expire together."""
        return round(self.ttl_ms * random.uniform(0.9, 1.1))  # noqa: S311 (no secret) # nosec B311


def wall_clock_ms() -> int:
    """Return the milliseconds of Unix time."""
    return time.time_ns() // 1_000_000


class UserStateStore(Protocol):
    """Keeps user state; every operation is atomic per user.

    Operations raise `StateUnavailableError` when the store does not answer within the deadline.
    After that an append or erase may or may not have happened; repeating it is safe.
    """

    @property
    def kind(self) -> str:
        """`memory` or `redis`."""
        ...

    @property
    def is_available(self) -> bool:
        """Whether the store answered lately, without asking it."""
        ...

    async def start(self) -> None:
        """Begin; waits a second at most for a server that is down, and does not fail."""
        ...

    async def close(self) -> None:
        """End and release what `start` took."""
        ...

    async def read(self, user_id: str, *, deadline_seconds: float) -> UserState:
        """Return what is known of the user."""
        ...

    async def append(
        self, user_id: str, events: Sequence[Event], *, deadline_seconds: float
    ) -> tuple[Outcome, ...]:
        """Store the events, all or none, and return an outcome for each."""
        ...

    async def event_ids(self, user_id: str, *, deadline_seconds: float) -> tuple[str, ...]:
        """Return the event ids remembered of the user, in no order."""
        ...

    async def erase(self, user_id: str, *, deadline_seconds: float) -> None:
        """Forget the user totally."""
        ...

    async def keep_list(
        self,
        user_id: str | None,
        recommendation_id: str,
        items: Sequence[str],
        *,
        deadline_seconds: float,
    ) -> None:
        """Keep what was served to the user, or nobody in particular, for a next page."""
        ...

    async def read_list(
        self, user_id: str | None, recommendation_id: str, *, deadline_seconds: float
    ) -> tuple[str, ...] | None:
        """Return what was served, None when it is not known, or not any more."""
        ...

    async def lists_of(self, user_id: str, *, deadline_seconds: float) -> tuple[ServedList, ...]:
        """Return everything that `read_list` knows of the user, newest first."""
        ...


@dataclass(slots=True)
class _User:
    """One user's memory; `order` holds the sort keys of `history`."""

    version: int
    expires_ms: int = 0
    events: int = 0
    order: list[tuple[int, int]] = field(default_factory=list)  # (event time, version)
    history: list[HistoryEntry] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)  # item id -> newest event time
    disliked: dict[str, int] = field(default_factory=dict)  # the same
    event_ids: dict[str, int] = field(default_factory=dict)  # event id -> arrival

    @property
    def entries(self) -> int:
        return len(self.history) + len(self.seen) + len(self.disliked) + len(self.event_ids)


class MemoryUserState:
    """Keeps user state in this process, for one replica and for tests; lost at its end.

    Memory is bounded: beyond `max_entries` history entries, seen and disliked items and event ids
    in all, the users longest unused are forgotten. Not safe for threads: one event loop uses it,
    and no operation waits inside, which makes each atomic.
    """

    kind = "memory"
    is_available = True

    def __init__(
        self,
        limits: StateLimits,
        *,
        max_entries: int = 2_000_000,
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._limits = limits
        self._max_entries = max_entries
        self._clock_ms = clock_ms
        self._users: OrderedDict[str, _User] = OrderedDict()
        self._entries = 0
        self._has_forgotten = False
        self._lists = MemoryLists(max_entries, clock_ms)

    @property
    def entries(self) -> int:
        """History entries, seen and disliked items, event ids and items of served lists in all."""
        return self._entries + self._lists.entries

    async def start(self) -> None:
        """Do nothing: there is no server."""

    async def close(self) -> None:
        """Do nothing: the memory goes with the process."""

    async def read(self, user_id: str, *, deadline_seconds: float) -> UserState:  # noqa: ARG002
        """Return what is known of the user; always in time."""
        user = self._find(user_id)
        if user is None:
            return UserState()
        return UserState(
            history=tuple(user.history),
            seen=tuple(user.seen),
            version=user.version,
            events=user.events,
            disliked=tuple(user.disliked),
        )

    async def append(
        self,
        user_id: str,
        events: Sequence[Event],
        *,
        deadline_seconds: float,  # noqa: ARG002
    ) -> tuple[Outcome, ...]:
        """Store the events, all or none, and return an outcome for each; always in time."""
        now_ms = self._clock_ms()
        user = self._find(user_id) or _User(version=now_ms)
        self._entries -= user.entries if user_id in self._users else 0
        outcomes = tuple(self._append_one(user, event, now_ms) for event in events)
        if "accepted" in outcomes:
            user.expires_ms = now_ms + self._limits.jittered_ttl_ms()
            self._trim(user)
            self._users[user_id] = user
        self._entries += user.entries if user_id in self._users else 0
        self._forget_longest_unused()
        return outcomes

    async def event_ids(
        self,
        user_id: str,
        *,
        deadline_seconds: float,  # noqa: ARG002
    ) -> tuple[str, ...]:
        """Return the event ids remembered of the user, in no order; always in time."""
        user = self._find(user_id)
        return () if user is None else tuple(user.event_ids)

    async def erase(self, user_id: str, *, deadline_seconds: float) -> None:  # noqa: ARG002
        """Forget the user totally."""
        self._drop(user_id)
        self._lists.forget(user_id)

    async def keep_list(
        self,
        user_id: str | None,
        recommendation_id: str,
        items: Sequence[str],
        *,
        deadline_seconds: float,  # noqa: ARG002
    ) -> None:
        """Keep what was served to the user, or nobody in particular; always in time."""
        self._lists.keep(user_id, recommendation_id, items)

    async def read_list(
        self,
        user_id: str | None,
        recommendation_id: str,
        *,
        deadline_seconds: float,  # noqa: ARG002
    ) -> tuple[str, ...] | None:
        """Return what was served, None when it is not known, or not any more; always in time."""
        return self._lists.read(user_id, recommendation_id)

    async def lists_of(
        self,
        user_id: str,
        *,
        deadline_seconds: float,  # noqa: ARG002
    ) -> tuple[ServedList, ...]:
        """Return everything that `read_list` knows of the user, newest first; always in time."""
        return self._lists.of_user(user_id)

    def _find(self, user_id: str) -> _User | None:
        """Return the living user and mark it used."""
        user = self._users.get(user_id)
        if user is None:
            return None
        if user.expires_ms <= self._clock_ms():
            self._drop(user_id)
            return None
        self._users.move_to_end(user_id)
        return user

    def _drop(self, user_id: str) -> None:
        user = self._users.pop(user_id, None)
        if user is not None:
            self._entries -= user.entries

    def _append_one(self, user: _User, event: Event, now_ms: int) -> Outcome:
        arrived_ms = user.event_ids.get(event.event_id)
        if arrived_ms is not None and arrived_ms > now_ms - self._limits.event_id_window_ms:
            return "duplicate"
        user.event_ids[event.event_id] = now_ms
        user.version += 1
        user.events += 1
        if event.type == DISLIKE:
            _keep_newest_time(user.disliked, event)
            return "accepted"
        key = (event.timestamp_ms, user.version)
        place = bisect_right(user.order, key)
        user.order.insert(place, key)
        user.history.insert(place, HistoryEntry(event.item_id, event.timestamp_ms, event.type))
        _keep_newest_time(user.seen, event)
        return "accepted"

    def _trim(self, user: _User) -> None:
        limits = self._limits
        del user.order[: -limits.history_max_items]
        del user.history[: -limits.history_max_items]
        oldest_ms = self._clock_ms() - limits.event_id_window_ms
        recent = {name: at for name, at in user.event_ids.items() if at > oldest_ms}
        user.event_ids = _newest(recent, limits.event_ids_max)
        user.seen = _newest(user.seen, limits.seen_max_items)
        user.disliked = _newest(user.disliked, limits.seen_max_items)

    def _forget_longest_unused(self) -> None:
        while self._entries > self._max_entries and len(self._users) > 1:
            self._drop(next(iter(self._users)))
            if not self._has_forgotten:  # once: from here on it is the rule
                _LOGGER.warning("users_forgotten", extra={"reason": "memory_max_entries"})
                self._has_forgotten = True


def _keep_newest_time(times: dict[str, int], event: Event) -> None:
    times[event.item_id] = max(times.get(event.item_id, 0), event.timestamp_ms)


def _newest(times: dict[str, int], count: int) -> dict[str, int]:
    """Return the `count` entries of the greatest (time, name in UTF-8)."""
    if len(times) <= count:
        return times
    ranked = sorted(times, key=lambda name: (times[name], name.encode()))
    return {name: times[name] for name in ranked[-count:]}

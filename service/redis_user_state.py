"""User state in Redis: one Lua script, and so one atomic round trip, per operation.

Keys of a user, all under one hash tag, so that they share a slot of a cluster. The id is in
base64url, so that no user can break the tag:

    cofine:{u:<id>}:history:1    sorted set, score = event time in ms, member =
                                 16 digits of the version, type, `|`, item id
    cofine:{u:<id>}:seen:1       sorted set, item id by newest event time
    cofine:{u:<id>}:disliked:1   sorted set, item id by newest event time
    cofine:{u:<id>}:event_ids:1  sorted set, event id by arrival in ms
    cofine:{u:<id>}:meta:1       hash: version, events
    cofine:{u:<id>}:lists:1      list, newest first, of served lists: recommendation id, space,
                                 when it expires in ms, space, JSON list of item ids; for
                                 ERASED_MS after an erasure only a mark, and no list is kept

Of a list that was served to nobody in particular:

    cofine:{l:<id>}:lists:1      the same, of one served list

Members sort by score and then by bytes, so the version in front keeps arrival order at equal event
times. Up to 128 entries of up to 64 bytes Redis packs a sorted set into one block. The number at
the end of a key is the schema's: another schema gets another number and never misreads this one.
"""

import base64
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from service.errors import StateUnavailableError
from service.metrics import Metrics
from service.redis_connection import ConnectionLimits, RedisConnection, Script
from service.served_lists import ERASED_MS, LIST_TTL_MS, USER_LISTS_MAX, ServedList, owner_of
from service.user_state import (
    Event,
    HistoryEntry,
    Outcome,
    StateLimits,
    UserState,
    wall_clock_ms,
)

_LOGGER = logging.getLogger(__name__)
_LISTS = "lists"
_KEYS = ("history", "seen", "event_ids", "meta", "disliked", _LISTS)
_SCHEMA = 1
_VERSION_DIGITS = 16

_READ = Script("""
local meta = redis.call('HMGET', KEYS[4], 'version', 'events')
return {meta[1], meta[2],
        redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'),
        redis.call('ZRANGE', KEYS[2], 0, -1),
        redis.call('ZRANGE', KEYS[5], 0, -1)}
""")

_APPEND = Script("""
local history, seen, event_ids, meta, disliked = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local now, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local version = tonumber(redis.call('HGET', meta, 'version') or now)
local outcomes, accepted = {}, 0
for i = 7, #ARGV, 4 do
  local event_id, at, kind, item = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local arrived = redis.call('ZSCORE', event_ids, event_id)
  if arrived and tonumber(arrived) > now - window then
    outcomes[#outcomes + 1] = 0
  else
    version, accepted = version + 1, accepted + 1
    redis.call('ZADD', event_ids, ARGV[1], event_id)
    if kind == 'dislike' then  -- model.history.DISLIKE
      redis.call('ZADD', disliked, 'GT', at, item)
    else
      redis.call('ZADD', history, at, string.format('%016.0f', version) .. kind .. '|' .. item)
      redis.call('ZADD', seen, 'GT', at, item)
    end
    outcomes[#outcomes + 1] = 1
  end
end
if accepted > 0 then
  redis.call('HSET', meta, 'version', string.format('%.0f', version))
  redis.call('HINCRBY', meta, 'events', accepted)
  redis.call('ZREMRANGEBYRANK', history, 0, -tonumber(ARGV[4]) - 1)
  redis.call('ZREMRANGEBYRANK', seen, 0, -tonumber(ARGV[5]) - 1)
  redis.call('ZREMRANGEBYRANK', disliked, 0, -tonumber(ARGV[5]) - 1)
  redis.call('ZREMRANGEBYSCORE', event_ids, '-inf', string.format('%.0f', now - window))
  redis.call('ZREMRANGEBYRANK', event_ids, 0, -tonumber(ARGV[6]) - 1)
  redis.call('PEXPIRE', history, ARGV[3])
  redis.call('PEXPIRE', seen, ARGV[3])
  redis.call('PEXPIRE', meta, ARGV[3])
  redis.call('PEXPIRE', disliked, ARGV[3])
  redis.call('PEXPIRE', event_ids, ARGV[2])
end
return outcomes
""")

_EVENT_IDS = Script("return redis.call('ZRANGE', KEYS[3], 0, -1)")

_ERASED = b"erased"
# The mark comes after DEL: once a script has written, a full Redis lets it go on. It is in the key
# of the lists, for two keys are not always on one node of a cluster that moves them.
_ERASE = Script("""
local erased = redis.call('DEL', unpack(KEYS))
redis.call('RPUSH', KEYS[#KEYS], 'erased')
redis.call('PEXPIRE', KEYS[#KEYS], ARGV[1])
return erased
""")
_KEEP_LIST = Script("""
if redis.call('LINDEX', KEYS[1], -1) == 'erased' then
  return
end
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], 0, tonumber(ARGV[2]) - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
""")
_READ_LIST = Script("""
for _, kept in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if string.sub(kept, 1, #ARGV[1]) == ARGV[1] then
    return string.sub(kept, #ARGV[1] + 1)
  end
end
return false
""")
_LISTS_OF = Script("return redis.call('LRANGE', KEYS[1], 0, -1)")
_SCRIPTS = (_READ, _APPEND, _EVENT_IDS, _ERASE, _KEEP_LIST, _READ_LIST, _LISTS_OF)


class RedisUserState:
    """Keeps user state in Redis; means the same as `MemoryUserState`."""

    kind = "redis"

    def __init__(
        self,
        url: str,
        limits: StateLimits,
        metrics: Metrics,
        connection_limits: ConnectionLimits | None = None,
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._limits = limits
        self._clock_ms = clock_ms
        self._metrics = metrics
        self._connection = RedisConnection(
            url, connection_limits or ConnectionLimits(), metrics, _SCRIPTS
        )

    @property
    def connection(self) -> RedisConnection:
        """The way to the server, which others may use between `start` and `close`."""
        return self._connection

    @property
    def is_available(self) -> bool:
        """Whether the breaker lets calls through."""
        return self._connection.is_closed

    async def start(self) -> None:
        """Connect; a server that is down costs a second at most and is looked for later."""
        await self._connection.start()

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def read(self, user_id: str, *, deadline_seconds: float) -> UserState:
        """Return what is known of the user.

        Raises:
            StateUnavailableError: Redis did not answer within `deadline_seconds`, or holds what
                no release of this schema has written.
        """
        started = time.perf_counter()
        reply = await self._run("read", _READ, user_keys(user_id), (), deadline_seconds)
        try:
            state = _state(reply)
        except (ValueError, OverflowError):
            _LOGGER.error("state_unreadable")
            self._observe("read", "error", started)
            raise StateUnavailableError("error") from None
        self._observe("read", "ok" if state.version else "miss", started)
        return state

    async def append(
        self, user_id: str, events: Sequence[Event], *, deadline_seconds: float
    ) -> tuple[Outcome, ...]:
        """Store the events, all or none, and return an outcome for each.

        Raises:
            StateUnavailableError: Redis did not answer within `deadline_seconds`; the events may be
                stored all the same, and then a repetition finds duplicates.
        """
        limits = self._limits
        arguments: list[str | int] = [
            self._clock_ms(),
            limits.event_id_window_ms,
            limits.jittered_ttl_ms(),
            limits.history_max_items,
            limits.seen_max_items,
            limits.event_ids_max,
        ]
        for event in events:
            arguments += (event.event_id, event.timestamp_ms, event.type, event.item_id)
        started = time.perf_counter()
        reply = await self._run("append", _APPEND, user_keys(user_id), arguments, deadline_seconds)
        self._observe("append", "ok", started)
        return tuple("accepted" if accepted else "duplicate" for accepted in reply)

    async def event_ids(self, user_id: str, *, deadline_seconds: float) -> tuple[str, ...]:
        """Return the event ids remembered of the user, in no order.

        Raises:
            StateUnavailableError: Redis did not answer within `deadline_seconds`, or holds what
                no release of this schema has written.
        """
        started = time.perf_counter()
        reply = await self._run("read", _EVENT_IDS, user_keys(user_id), (), deadline_seconds)
        try:
            event_ids = tuple(event_id.decode() for event_id in reply)
        except ValueError:
            self._observe("read", "error", started)
            raise StateUnavailableError("error") from None
        self._observe("read", "ok" if event_ids else "miss", started)
        return event_ids

    async def erase(self, user_id: str, *, deadline_seconds: float) -> None:
        """Forget the user totally.

        Raises:
            StateUnavailableError: Redis did not answer within `deadline_seconds`.
        """
        started = time.perf_counter()
        keys = user_keys(user_id)
        erased = await self._run("erase", _ERASE, keys, (ERASED_MS,), deadline_seconds)
        self._observe("erase", "ok" if erased else "miss", started)

    async def keep_list(
        self,
        user_id: str | None,
        recommendation_id: str,
        items: Sequence[str],
        *,
        deadline_seconds: float,
    ) -> None:
        """Keep what was served to the user, or nobody in particular, for a next page.

        Raises:
            StateUnavailableError: Redis did not answer within `deadline_seconds`.
        """
        started = time.perf_counter()
        kept = f"{self._clock_ms() + LIST_TTL_MS} {json.dumps(list(items))}"
        arguments = (_list_prefix(recommendation_id) + kept, USER_LISTS_MAX, LIST_TTL_MS)
        keys = [lists_key(user_id, recommendation_id)]
        await self._run("keep_list", _KEEP_LIST, keys, arguments, deadline_seconds)
        self._observe("keep_list", "ok", started)

    async def read_list(
        self, user_id: str | None, recommendation_id: str, *, deadline_seconds: float
    ) -> tuple[str, ...] | None:
        """Return what was served, None when it is not known, or not any more.

        Raises:
            StateUnavailableError: Redis did not answer within `deadline_seconds`, or holds what
                no release of this schema has written.
        """
        started = time.perf_counter()
        keys = [lists_key(user_id, recommendation_id)]
        arguments = [_list_prefix(recommendation_id)]
        reply = await self._run("read_list", _READ_LIST, keys, arguments, deadline_seconds)
        try:
            found = None if reply is None else _served(reply, self._clock_ms())
        except (ValueError, TypeError):
            _LOGGER.error("list_unreadable")
            self._observe("read_list", "error", started)
            raise StateUnavailableError("error") from None
        self._observe("read_list", "miss" if found is None else "ok", started)
        return found

    async def lists_of(self, user_id: str, *, deadline_seconds: float) -> tuple[ServedList, ...]:
        """Return everything that `read_list` knows of the user, newest first.

        Raises:
            StateUnavailableError: Redis did not answer within `deadline_seconds`, or holds what
                no release of this schema has written.
        """
        started = time.perf_counter()
        keys = [lists_key(user_id, "")]
        reply = await self._run("read_list", _LISTS_OF, keys, (), deadline_seconds)
        try:
            kept = [_kept_list(entry) for entry in reply if entry != _ERASED]
        except (ValueError, TypeError):
            _LOGGER.error("list_unreadable")
            self._observe("read_list", "error", started)
            raise StateUnavailableError("error") from None
        self._observe("read_list", "ok" if kept else "miss", started)
        now_ms = self._clock_ms()
        return tuple(each for each in kept if each.expires_ms > now_ms)

    async def _run(
        self,
        op: str,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[str | int],
        deadline_seconds: float,
    ) -> Any:
        started = time.perf_counter()
        try:
            return await self._connection.run(
                script, keys, arguments, deadline_seconds=deadline_seconds
            )
        except StateUnavailableError as error:
            self._observe(op, error.reason, started)
            raise

    def _observe(self, op: str, outcome: str, started: float) -> None:
        self._metrics.state_operations[op, outcome].observe(time.perf_counter() - started)


def user_keys(user_id: str) -> list[str]:
    """Return the user's keys in the order of the scripts' KEYS."""
    tag = f"{{u:{_encoded(user_id)}}}"
    return [f"cofine:{tag}:{what}:{_SCHEMA}" for what in _KEYS]


def lists_key(user_id: str | None, recommendation_id: str) -> str:
    """Return the key that a served list is kept under; the last of a user's keys."""
    kind, name = owner_of(user_id, recommendation_id)
    return f"cofine:{{{kind}:{_encoded(name)}}}:{_LISTS}:{_SCHEMA}"


def _list_prefix(recommendation_id: str) -> str:
    return f"{_encoded(recommendation_id)} "


def _encoded(identifier: str) -> str:
    return base64.urlsafe_b64encode(identifier.encode()).decode().rstrip("=")


def _decoded(encoded: bytes) -> str:
    return base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4)).decode()


def _state(reply: Any) -> UserState:
    """Return the state that the read script's reply describes."""
    version, events, history, seen, disliked = reply
    entries = tuple(
        _entry(member, score) for member, score in zip(history[::2], history[1::2], strict=True)
    )
    return UserState(
        history=entries,
        seen=tuple(item.decode() for item in seen),
        version=int(version or 0),
        events=int(events or 0),
        disliked=tuple(item.decode() for item in disliked),
    )


def _served(reply: bytes, now_ms: int) -> tuple[str, ...] | None:
    """Return the items of the kept list, None when its time is over."""
    expires_ms, items = _list_content(reply)
    return items if expires_ms > now_ms else None


def _kept_list(entry: bytes) -> ServedList:
    name, _, content = entry.partition(b" ")
    return ServedList(_decoded(name), *_list_content(content))


def _list_content(content: bytes) -> tuple[int, tuple[str, ...]]:
    """Return when the list expires, in milliseconds of Unix time, and its items."""
    expires_ms, _, items = content.partition(b" ")
    return int(expires_ms), tuple(str(item) for item in json.loads(items))


def _entry(member: bytes, score: bytes) -> HistoryEntry:
    event_type, _, item_id = member[_VERSION_DIGITS:].partition(b"|")
    return HistoryEntry(item_id.decode(), int(float(score)), event_type.decode())

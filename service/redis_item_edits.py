"""The edits of the live catalogue in Redis, for all replicas, without a time to live.

- `cofine:{catalogue}:1:head`: `store`, `version`, `forgot_at` (version), `bytes`
- `cofine:{catalogue}:1:parts`: `<part>:<item id>` to JSON
- `cofine:{catalogue}:1:order`: item ids by the version of their newest change

Item ids are fields and members, never part of a key. Every write is published, so that replicas
hear of it at once; they also look once in a while, for messages get lost.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from service.errors import CatalogueUnavailableError, StateUnavailableError
from service.item_edits import (
    EDITED_ITEMS_MAX,
    EDITS_MAX_BYTES,
    PARTS,
    Change,
    Parts,
    Position,
    Update,
    refuse_too_many,
)
from service.redis_connection import RedisConnection, Script

_KEYS = [f"cofine:{{catalogue}}:1:{name}" for name in ("head", "parts", "order")]
_CHANNEL = "cofine:catalogue:changed"
WHOLE_SECONDS = 5.0
"""Time to read or restore all edits, which may be tens of megabytes."""
_LOGGER = logging.getLogger(__name__)

# Arguments: channel, most items, most bytes, name of a new store; then item id, part and text of
# each change, the text empty for none.
_WRITE = Script("""
local head, parts, order = KEYS[1], KEYS[2], KEYS[3]
local bytes = tonumber(redis.call('HGET', head, 'bytes') or '0')
local items, touched, names = redis.call('ZCARD', order), {}, {}
for i = 5, #ARGV, 3 do
  local id = ARGV[i]
  bytes = bytes + #ARGV[i + 2] - redis.call('HSTRLEN', parts, ARGV[i + 1] .. ':' .. id)
  if not touched[id] then
    touched[id] = true
    names[#names + 1] = id
  end
  if touched[id] ~= 'new' and ARGV[i + 2] ~= '' and not redis.call('ZSCORE', order, id) then
    touched[id] = 'new'
    items = items + 1
  end
end
if items > tonumber(ARGV[2]) or bytes > tonumber(ARGV[3]) then
  return {'full', items, bytes}
end
redis.call('HSETNX', head, 'store', ARGV[4])
local version = redis.call('HINCRBY', head, 'version', 1)
redis.call('HSET', head, 'bytes', bytes)
for i = 5, #ARGV, 3 do
  local field = ARGV[i + 1] .. ':' .. ARGV[i]
  if ARGV[i + 2] == '' then
    redis.call('HDEL', parts, field)
  else
    redis.call('HSET', parts, field, ARGV[i + 2])
  end
end
for _, id in ipairs(names) do
  local left = 0
  for _, part in ipairs({'item', 'hidden', 'offer'}) do
    left = left + redis.call('HEXISTS', parts, part .. ':' .. id)
  end
  if left > 0 then
    redis.call('ZADD', order, version, id)
  else
    redis.call('ZREM', order, id)
    redis.call('HSET', head, 'forgot_at', version)
  end
end
redis.call('PUBLISH', ARGV[1], version)
return {redis.call('HGET', head, 'store'), version}
""")

# Arguments: store and version that the reader knows. Each item is its id and its three parts.
_READ = Script("""
local head = redis.call('HMGET', KEYS[1], 'store', 'version', 'forgot_at')
if not head[1] then
  return {}
end
local is_whole = ARGV[1] ~= head[1] or tonumber(ARGV[2]) < tonumber(head[3] or '0')
local since = is_whole and '-inf' or '(' .. ARGV[2]
local found = {head[1], head[2], is_whole and 1 or 0}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], since, '+inf')) do
  local parts = redis.call('HMGET', KEYS[2], 'item:' .. id, 'hidden:' .. id, 'offer:' .. id)
  found[#found + 1] = id
  for i = 1, 3 do
    found[#found + 1] = parts[i] or ''
  end
end
return found
""")

# Arguments: channel, store, version; then item id, part and text of everything.
_RESTORE = Script("""
local head, parts, order = KEYS[1], KEYS[2], KEYS[3]
local stored = redis.call('HMGET', head, 'store', 'version')
if stored[1] and (stored[1] ~= ARGV[2] or tonumber(stored[2]) >= tonumber(ARGV[3])) then
  return 0
end
redis.call('DEL', head, parts, order)
local bytes = 0
for i = 4, #ARGV, 3 do
  redis.call('HSET', parts, ARGV[i + 1] .. ':' .. ARGV[i], ARGV[i + 2])
  redis.call('ZADD', order, ARGV[3], ARGV[i])
  bytes = bytes + #ARGV[i + 2]
end
redis.call('HSET', head, 'store', ARGV[2], 'version', ARGV[3], 'forgot_at', ARGV[3],
  'bytes', bytes)
redis.call('PUBLISH', ARGV[1], ARGV[3])
return 1
""")


class RedisEdits:
    """Means the same as `MemoryEdits`, for all replicas."""

    def __init__(self, connection: RedisConnection, *, deadline_seconds: float) -> None:
        self._connection = connection
        self._deadline_seconds = deadline_seconds
        self._changed = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to hear of changes."""
        self._listening = asyncio.create_task(self._connection.listen(_CHANNEL, self._changed.set))

    async def close(self) -> None:
        """End it."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening}, timeout=self._deadline_seconds + 1)

    async def write(self, changes: Sequence[Change]) -> Position:
        """See `service.item_edits.EditStore.write`."""
        sent = [part for each in changes for part in (each.item_id, each.part, each.text or "")]
        arguments: list[str | int] = [_CHANNEL, EDITED_ITEMS_MAX, EDITS_MAX_BYTES, uuid4().hex]
        store, *numbers = await self._run(_WRITE, [*arguments, *sent], self._deadline_seconds)
        if store == b"full":
            refuse_too_many(*map(int, numbers))
        return Position(store.decode(), int(numbers[0]))

    async def read(self, known: Position) -> Update | None:
        """See `service.item_edits.EditStore.read`."""
        found = await self._run(_READ, (known.store, known.version), WHOLE_SECONDS)
        if not found:
            return None
        try:
            return _update(found)
        except ValueError:
            _LOGGER.error("edits_unreadable", extra={"key": _KEYS[0]})
            raise CatalogueUnavailableError("error") from None

    async def restore(self, position: Position, parts: Mapping[str, Parts]) -> None:
        """See `service.item_edits.EditStore.restore`."""
        sent = [
            part
            for item_id, each in parts.items()
            for name, text in each.items()
            for part in (item_id, name, text)
        ]
        arguments: list[str | int] = [_CHANNEL, position.store, position.version]
        await self._run(_RESTORE, [*arguments, *sent], WHOLE_SECONDS)

    async def wait_for_change(self, timeout_seconds: float) -> None:
        """Wait until there may be other edits, or until the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._changed.wait()
        self._changed.clear()

    async def _run(self, script: Script, arguments: Sequence[str | int], seconds: float) -> Any:
        try:
            return await self._connection.run(script, _KEYS, arguments, deadline_seconds=seconds)
        except StateUnavailableError as error:
            raise CatalogueUnavailableError(error.reason) from None


def _update(found: Sequence[Any]) -> Update:
    """Return what `_READ` answered.

    Raises:
        ValueError: it is not what this module has written.
    """
    store, version, is_whole, *items = found
    parts = {
        items[at].decode(): {
            part: text.decode()
            for part, text in zip(PARTS, items[at + 1 : at + 4], strict=True)
            if text
        }
        for at in range(0, len(items), 4)
    }
    return Update(Position(store.decode(), int(version)), parts, bool(is_whole))

"""The edits of the live catalogue in Redis, for all replicas, without a time to live.

- `cofine:{catalogue}:1:head`: `store`, `version`, `forgot_at` (version), `bytes`; of another store
  `of:<store>`, its version that is included here, and `at:<store>`, since which version here;
  `write:<version>`, of the newest ones the name of the write that led there
- `cofine:{catalogue}:1:parts`: `<part>:<item id>` to JSON
- `cofine:{catalogue}:1:order`: item ids by the version of their newest change

Item ids are fields and members, never part of a key. Every write is published, so that replicas
hear of it at once; they also look once in a while, for messages get lost.

A store that begins empty has a new name, and so has one that something was given back to: that of
the other one up to the dot, then its own. Where the newest versions alone are lost, with a master
that died before its replica heard of them, the names of writes tell that others took their place.
"""

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
    EditsLostError,
    Parts,
    Position,
    Update,
    refuse_too_many,
)
from service.redis_changes import RedisChanges
from service.redis_connection import RedisConnection, Script

_KEYS = [f"cofine:{{catalogue}}:1:{name}" for name in ("head", "parts", "order")]
_CHANNEL = "cofine:catalogue:changed"
WHOLE_SECONDS = 5.0
"""Time to read or restore all edits, which may be tens of megabytes."""
WRITES_NAMED = 1_000
_LOGGER = logging.getLogger(__name__)

_INCLUDES = """
local function includes(store, version, write)
  if store == '' then
    return true
  end
  local head = redis.call('HMGET', KEYS[1], 'store', 'version', 'of:' .. store,
    'write:' .. version)
  if head[1] == store and head[4] and write ~= '' and head[4] ~= write then
    return false
  end
  local held = head[1] == store and head[2] or head[3]
  return held and tonumber(held) >= tonumber(version)
end
"""

# Arguments: channel, most items, most bytes; store, version and write that the writer knows; a new
# name, writes to name; then item id, part and text of each change, the text empty for none.
_WRITE = Script(
    _INCLUDES
    + """
if not includes(ARGV[4], ARGV[5], ARGV[6]) then
  return {'lost'}
end
local head, parts, order = KEYS[1], KEYS[2], KEYS[3]
local held_items = redis.call('ZCARD', order)
local held_bytes = tonumber(redis.call('HGET', head, 'bytes') or '0')
local items, bytes, touched, names = held_items, held_bytes, {}, {}
for i = 9, #ARGV, 3 do
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
-- What was given back may be more than is taken; it can still become less.
if items > math.max(tonumber(ARGV[2]), held_items)
  or bytes > math.max(tonumber(ARGV[3]), held_bytes) then
  return {'full', items, bytes}
end
redis.call('HSETNX', head, 'store', ARGV[7])
local version = redis.call('HINCRBY', head, 'version', 1)
redis.call('HSET', head, 'bytes', bytes, 'write:' .. version, ARGV[7])
redis.call('HDEL', head, 'write:' .. version - tonumber(ARGV[8]))
for i = 9, #ARGV, 3 do
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
return {redis.call('HGET', head, 'store'), version, ARGV[7]}
"""
)

# Arguments: store, version and write that the reader knows. Each item is its id and three parts.
_READ = Script(
    _INCLUDES
    + """
if not includes(ARGV[1], ARGV[2], ARGV[3]) then
  return {'lost'}
end
local head = redis.call('HMGET', KEYS[1], 'store', 'version', 'forgot_at')
if not head[1] then
  return {}
end
local is_whole = ARGV[1] ~= head[1] or tonumber(ARGV[2]) < tonumber(head[3] or '0')
local since = is_whole and '-inf' or '(' .. ARGV[2]
local write = redis.call('HGET', KEYS[1], 'write:' .. head[2]) or ''
local found = {head[1], head[2], write, is_whole and 1 or 0}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], since, '+inf')) do
  local parts = redis.call('HMGET', KEYS[2], 'item:' .. id, 'hidden:' .. id, 'offer:' .. id)
  found[#found + 1] = id
  for i = 1, 3 do
    found[#found + 1] = parts[i] or ''
  end
end
return found
"""
)

# Arguments: channel; store, version and write; a new name; then item id, part and text of
# everything. What was said here before the other store was lost is replaced (this one is an earlier
# state of it, or has included one); what was said since is added to.
_RESTORE = Script(
    _INCLUDES
    + """
if includes(ARGV[2], ARGV[3], ARGV[4]) then
  return 0
end
local head, parts, order = KEYS[1], KEYS[2], KEYS[3]
local stored = redis.call('HMGET', head, 'store', 'version', 'at:' .. ARGV[2])
local origin = '^[^.]*'
local is_earlier = not stored[1] or (tonumber(stored[2]) < tonumber(ARGV[3])
  and string.match(stored[1], origin) == string.match(ARGV[2], origin))
local replaced = stored[3] or is_earlier and '+inf' or '-inf'
for _, id in ipairs(redis.call('ZRANGEBYSCORE', order, '-inf', replaced)) do
  redis.call('HDEL', parts, 'item:' .. id, 'hidden:' .. id, 'offer:' .. id)
  redis.call('ZREM', order, id)
end
local version = math.max(tonumber(stored[2] or '0'), tonumber(ARGV[3])) + 1
for i = 6, #ARGV, 3 do
  redis.call('HSETNX', parts, ARGV[i + 1] .. ':' .. ARGV[i], ARGV[i + 2])
  redis.call('ZADD', order, version, ARGV[i])
end
local bytes = 0
for _, text in ipairs(redis.call('HVALS', parts)) do
  bytes = bytes + #text
end
if stored[1] then
  redis.call('HSET', head, 'of:' .. stored[1], stored[2], 'at:' .. stored[1], version)
end
redis.call('HSET', head, 'of:' .. ARGV[2], ARGV[3], 'at:' .. ARGV[2], version)
redis.call('HSET', head, 'store', ARGV[5], 'version', version, 'forgot_at', version,
  'bytes', bytes, 'write:' .. version, ARGV[5])
redis.call('PUBLISH', ARGV[1], version)
return 1
"""
)


class RedisEdits(RedisChanges):
    """Means the same as `MemoryEdits`, for all replicas."""

    def __init__(self, connection: RedisConnection, *, deadline_seconds: float) -> None:
        super().__init__(connection, _CHANNEL, deadline_seconds=deadline_seconds)

    async def write(self, changes: Sequence[Change], known: Position) -> Position:
        """See `service.item_edits.EditStore.write`."""
        sent = [part for each in changes for part in (each.item_id, each.part, each.text or "")]
        arguments: list[str | int] = [_CHANNEL, EDITED_ITEMS_MAX, EDITS_MAX_BYTES]
        arguments += [known.store, known.version, known.write, uuid4().hex, WRITES_NAMED]
        found = await self._run(_WRITE, [*arguments, *sent], self._deadline_seconds)
        if found[0] == b"full":
            refuse_too_many(*map(int, found[1:]))
        store, version, write = found
        return Position(store.decode(), int(version), write.decode())

    async def read(self, known: Position) -> Update | None:
        """See `service.item_edits.EditStore.read`."""
        position = (known.store, known.version, known.write)
        found = await self._run(_READ, position, WHOLE_SECONDS)
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
        name = f"{position.store.partition('.')[0]}.{uuid4().hex}"
        arguments: list[str | int] = [_CHANNEL, position.store, position.version]
        arguments += [position.write, name]
        await self._run(_RESTORE, [*arguments, *sent], WHOLE_SECONDS)

    async def _run(self, script: Script, arguments: Sequence[str | int], seconds: float) -> Any:
        try:
            found = await self._connection.run(script, _KEYS, arguments, deadline_seconds=seconds)
        except StateUnavailableError as error:
            raise CatalogueUnavailableError(error.reason) from None
        if found == [b"lost"]:
            raise EditsLostError
        return found


def _update(found: Sequence[Any]) -> Update:
    """Return what `_READ` answered.

    Raises:
        ValueError: it is not what this module has written.
    """
    store, version, write, is_whole, *items = found
    parts = {
        items[at].decode(): {
            part: text.decode()
            for part, text in zip(PARTS, items[at + 1 : at + 4], strict=True)
            if text
        }
        for at in range(0, len(items), 4)
    }
    position = Position(store.decode(), int(version), write.decode())
    return Update(position, parts, bool(is_whole))

"""The rollout in Redis, for all replicas: `cofine:rollout:1`, JSON, without a time to live.

Every change is published, so that replicas hear of it at once; they also look once in a while, for
messages get lost.
"""

import logging

from pydantic import ValidationError

from service.errors import StateUnavailableError
from service.redis_changes import RedisChanges
from service.redis_connection import RedisConnection, Script
from service.rollout import Rollout

_KEY = "cofine:rollout:1"
_CHANNEL = "cofine:rollout:changed"
_READ = Script("return redis.call('GET', KEYS[1])")
_WRITE = Script("""
local stored = redis.call('GET', KEYS[1])
local version = stored and cjson.decode(stored).version or 0
if tonumber(ARGV[1]) ~= version + 1 then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[1])
return 1
""")
_LOGGER = logging.getLogger(__name__)


class RedisRolloutStore(RedisChanges):
    """Means the same as `MemoryRolloutStore`, for all replicas."""

    def __init__(self, connection: RedisConnection, *, deadline_seconds: float) -> None:
        super().__init__(connection, _CHANNEL, deadline_seconds=deadline_seconds)

    async def read(self) -> Rollout | None:
        """Return the rollout, None when there has never been a change.

        Raises:
            StateUnavailableError: Redis did not answer in time, or holds what is no rollout.
        """
        text = await self._connection.run(
            _READ, [_KEY], (), deadline_seconds=self._deadline_seconds
        )
        if text is None:
            return None
        try:
            return Rollout.model_validate_json(text)
        except ValidationError:
            _LOGGER.error("rollout_unreadable", extra={"key": _KEY})
            raise StateUnavailableError("error") from None

    async def write(self, rollout: Rollout) -> bool:
        """Store the rollout unless another one of its version, or a later one, is there."""
        arguments = (rollout.version, rollout.model_dump_json(), _CHANNEL)
        written = await self._connection.run(
            _WRITE, [_KEY], arguments, deadline_seconds=self._deadline_seconds
        )
        return bool(written)

"""The keys in force: read at start, read again when their file changes, no restart.

A slip of the pen locks nobody out and lets nobody in: the keys that were read last stay in force.
"""

import logging
from pathlib import Path

from service.api_keys import KeyRing, parse_keys
from service.metrics import Metrics
from service.watched_file import FileKind, WatchedFile

_LOGGER = logging.getLogger(__name__)


class KeysFile:
    """The keys in force."""

    def __init__(self, path: Path | None, metrics: Metrics) -> None:
        """Read the file at `path`.

        Raises:
            SettingsError: it cannot be used.
        """
        self._metrics = metrics
        self._file: WatchedFile[KeyRing] | None = None
        if path is not None:
            kind = FileKind("COFINE_KEYS", "keys", parse_keys, metrics.keys_reloads)
            self._file = WatchedFile(path, kind)
            metrics.api_keys.set(len(self._file.content.keys))

    @property
    def ring(self) -> KeyRing | None:
        """All of them; None where there is no keys file and the service is open."""
        return None if self._file is None else self._file.content

    def start(self) -> None:
        """Begin to look for changes, or warn that nobody is kept out."""
        if self._file is None:
            _LOGGER.warning(
                "access_is_open", extra={"reason": "COFINE_KEYS is not set: anyone may call"}
            )
        else:
            self._file.start(self._count)

    async def stop(self) -> None:
        """End the looking."""
        if self._file is not None:
            await self._file.stop()

    async def _count(self, ring: KeyRing) -> None:
        self._metrics.api_keys.set(len(ring.keys))

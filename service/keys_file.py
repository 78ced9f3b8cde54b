"""The keys file as it stands now: read at start, read again when it changes, no restart.

A file that cannot be used stops the start. Later, the keys that were read last stay in force and
the log says what is wrong, so that a slip of the pen locks nobody out and lets nobody in.
"""

import asyncio
import logging
from pathlib import Path

from service.api_keys import KeyRing, parse_keys
from service.errors import SettingsError
from service.metrics import Metrics

POLL_SECONDS = 1.0
"""Looked at, not watched: Kubernetes exchanges links for a mounted Secret, not the file."""
_FILE_MAX_BYTES = 2**20
_LOGGER = logging.getLogger(__name__)


class KeysFile:
    """The keys in force.

    Attributes:
        ring: all of them; None where there is no keys file and the service is open.
    """

    def __init__(self, path: Path | None, metrics: Metrics) -> None:
        """Read the file at `path`.

        Raises:
            SettingsError: it cannot be used.
        """
        self._path = path
        self._metrics = metrics
        self._content = b""
        self._complaint = ""
        self._polling: asyncio.Task[None] | None = None
        self.ring: KeyRing | None = None
        if path is not None:
            self._content = _read(path)
            self.ring = _parse(self._content, path)
            metrics.api_keys.set(len(self.ring.keys))

    def start(self) -> None:
        """Begin to look for changes, or warn that nobody is kept out."""
        if self._path is None:
            _LOGGER.warning(
                "access_is_open", extra={"reason": "COFINE_KEYS is not set: anyone may call"}
            )
        else:
            self._polling = asyncio.create_task(self._poll(self._path))

    async def stop(self) -> None:
        """End the looking."""
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait({self._polling})

    async def _poll(self, path: Path) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._read_again(path)
            except SettingsError as error:
                self._complain(str(error))

    async def _read_again(self, path: Path) -> None:
        content = await asyncio.to_thread(_read, path)
        if content == self._content:
            self._complaint = ""
            return
        self.ring = _parse(content, path)
        self._content, self._complaint = content, ""
        self._metrics.api_keys.set(len(self.ring.keys))
        self._metrics.keys_reloads["ok"].inc()
        _LOGGER.info("keys_reloaded", extra={"keys": len(self.ring.keys)})

    def _complain(self, complaint: str) -> None:
        """Log once what is wrong, and not every second."""
        if complaint != self._complaint:
            self._complaint = complaint
            self._metrics.keys_reloads["refused"].inc()
            _LOGGER.error("keys_refused", extra={"reason": complaint})


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"COFINE_KEYS: {path} cannot be read: {error.strerror}") from None
    if len(content) > _FILE_MAX_BYTES:
        raise SettingsError(f"COFINE_KEYS: {path} has more than {_FILE_MAX_BYTES} bytes")
    return content


def _parse(content: bytes, path: Path) -> KeyRing:
    try:
        return parse_keys(content.decode("utf-8"), str(path))
    except UnicodeDecodeError:
        raise SettingsError(f"COFINE_KEYS: {path} is not UTF-8") from None

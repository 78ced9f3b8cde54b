"""A file that a setting names, as it stands now: read at start, read again when it changes.

A file that cannot be used stops the start. Later, what was read last stays in force and the log
says what is wrong, so that a slip of the pen changes nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from service.errors import ServiceError, SettingsError
from service.metrics import Reloads

POLL_SECONDS = 1.0
"""Looked at, not watched: Kubernetes exchanges links for a mounted file, not the file."""
_FILE_MAX_BYTES = 2**20
_LOGGER = logging.getLogger(__name__)

Content = TypeVar("Content")


@dataclass(frozen=True)
class FileKind(Generic[Content]):
    """What is read from a file, and how its changes are told.

    Attributes:
        setting: that names the file, as COFINE_KEYS.
        name: in the log, as `keys`.
        parse: from text and the file's name; raises `SettingsError`.
        reloads: counters of the changes.
    """

    setting: str
    name: str
    parse: Callable[[str, str], Content]
    reloads: Reloads


class WatchedFile(Generic[Content]):
    """The content in force.

    Attributes:
        content: of the file as it was when it could be used last.
    """

    def __init__(self, path: Path, kind: FileKind[Content]) -> None:
        """Read the file at `path`.

        Raises:
            SettingsError: it cannot be used.
        """
        self._path = path
        self._kind = kind
        self._bytes = self._read()
        self._complaint = ""
        self._refused: tuple[bytes, Hashable] | None = None
        self._polling: asyncio.Task[None] | None = None
        self.content = self._parse(self._bytes)

    def start(
        self,
        take: Callable[[Content], Awaitable[None]],
        tried_on: Callable[[], Hashable] = lambda: None,
    ) -> None:
        """Begin to look for changes.

        Args:
            take: told of changed content before it is in force; raises `SettingsError` to refuse,
                anything else to be told again at the next look.
            tried_on: what `take` judges by; what was refused is not tried again until it differs.
        """
        self._polling = asyncio.create_task(self._poll(take, tried_on))

    async def stop(self) -> None:
        """End the looking."""
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait({self._polling})

    async def _poll(
        self, take: Callable[[Content], Awaitable[None]], tried_on: Callable[[], Hashable]
    ) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._read_again(take, tried_on())
            except SettingsError as error:
                self._complain(str(error))
            except ServiceError as error:
                self._complain(f"{self._kind.setting}: {self._path}: {error.detail}")
            except Exception as error:  # noqa: BLE001 (the next change has to be read, too)
                self._complain(
                    f"{self._kind.setting}: {self._path}: a defect of the service", error
                )

    async def _read_again(
        self, take: Callable[[Content], Awaitable[None]], tried_on: Hashable
    ) -> None:
        found = await asyncio.to_thread(self._read)
        if found == self._bytes:
            self._complaint, self._refused = "", None
            return
        if (found, tried_on) == self._refused:
            return
        try:
            content = self._parse(found)
            await take(content)
        except SettingsError:
            self._refused = found, tried_on
            raise
        self.content, self._bytes, self._complaint = content, found, ""
        self._kind.reloads["ok"].inc()
        _LOGGER.info("%s_reloaded", self._kind.name)

    def _complain(self, complaint: str, defect: Exception | None = None) -> None:
        """Log once what is wrong, and not every second."""
        if complaint != self._complaint:
            self._complaint = complaint
            self._kind.reloads["refused"].inc()
            _LOGGER.error(
                "%s_refused", self._kind.name, exc_info=defect, extra={"reason": complaint}
            )

    def _read(self) -> bytes:
        setting, path = self._kind.setting, self._path
        try:
            with path.open("rb") as file:
                content = file.read(_FILE_MAX_BYTES + 1)
        except OSError as error:
            raise SettingsError(f"{setting}: {path} cannot be read: {error.strerror}") from None
        if len(content) > _FILE_MAX_BYTES:
            raise SettingsError(f"{setting}: {path} has more than {_FILE_MAX_BYTES} bytes")
        return content

    def _parse(self, content: bytes) -> Content:
        try:
            return self._kind.parse(content.decode("utf-8"), str(self._path))
        except UnicodeDecodeError:
            raise SettingsError(f"{self._kind.setting}: {self._path} is not UTF-8") from None
        except RecursionError:
            message = f"{self._kind.setting}: {self._path} is nested too deeply"
            raise SettingsError(message) from None

"""One file of an event log (`model/event_log.py` defines it), locked while it is written."""

import contextlib
import fcntl
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

from model.event_log import SEGMENT_SUFFIX

SEGMENT_MAX_BYTES = 64 * 1024 * 1024


class Segment:
    """A new segment, open for writing; other processes see that it is in use.

    Attributes:
        path: of the file.
        bytes: that were written whole.
        opened: when, on the monotonic clock, in seconds.
    """

    def __init__(self, folder: Path) -> None:
        """Begin a segment in `folder`.

        Raises:
            OSError: it cannot be made there.
        """
        # To the microsecond: names sort as segments began, also those of one second.
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}{SEGMENT_SUFFIX}"
        self.path = folder / name
        self.bytes = 0
        self.opened = time.monotonic()
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            _make_names_durable(folder)
        except OSError:  # out of descriptors, as a rule: the one that is open must not be lost, too
            self.close()
            raise

    def write(self, lines: bytes, *, durably: bool) -> None:
        """Append the lines, all or none.

        Raises:
            OSError: they are not there; the segment must be closed.
        """
        try:
            left = memoryview(lines)
            while left:
                left = left[os.write(self._file, left) :]
            if durably:
                os.fsync(self._file)
        except OSError:
            # What a failed fsync has left behind is unknown: nobody was told that it is there.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.bytes)
            raise
        self.bytes += len(lines)

    def close(self) -> None:
        """Give the segment free, and remove it if it holds nothing."""
        if not self.bytes:
            with contextlib.suppress(OSError):
                self.path.unlink()
        with contextlib.suppress(OSError):
            os.close(self._file)


def _make_names_durable(folder: Path) -> None:
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

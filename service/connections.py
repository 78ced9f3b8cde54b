"""What one connection may cost: clients that say too much, too slowly or never listen are cut off.

The server itself keeps every header that comes, without end, and waits for ever for the rest of a
head and for a client that does not read its answers. Bodies have limits of their own
(`service/middleware.py`), and the server closes connections that are idle between requests.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_MAX_BYTES: Final = 65_536
"""For address, headers and what frames a body."""


class BoundedConnection(HttpToolsProtocol):
    """Closes a connection whose request has more bytes beside its body than a head may have.

    Also one whose head does not come, or whose answers are not taken, within `patience_seconds`.
    """

    _beside_bodies_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _answer_timer: asyncio.TimerHandle | None = None

    def __init__(self, *given: Any, patience_seconds: float, **named: Any) -> None:
        """Take what the server gives each connection, and how long to wait."""
        super().__init__(*given, **named)
        self._patience_seconds = patience_seconds

    @property
    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a first head."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take what a client sent."""
        if self._head_timer is None and self._is_between_requests:
            self._expect_head()
        self._beside_bodies_bytes += len(data)
        super().data_received(data)
        if self._beside_bodies_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
            if self._is_between_requests:
                self.send_400_response("The head of the request is too large.")
            self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a head."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """Take a head."""
        _cancel(self._head_timer)
        self._head_timer = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._beside_bodies_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._beside_bodies_bytes = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not read."""
        super().pause_writing()
        self._answer_timer = self.loop.call_later(self._patience_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: it has read."""
        _cancel(self._answer_timer)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        _cancel(self._head_timer)
        _cancel(self._answer_timer)
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        _cancel(self._head_timer)
        self._head_timer = self.loop.call_later(self._patience_seconds, self._give_up)

    def _give_up(self) -> None:
        if self._is_between_requests:
            self.transport.close()
        else:  # the next request stands still; the one before is owed its answer
            self._expect_head()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()

"""A TCP proxy that makes a server slow: every piece of data waits before it goes on."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SlowProxy:
    """Forwards a port of its own to `target_port`; `delay_seconds` may change at any time."""

    def __init__(self, target_port: int) -> None:
        self.delay_seconds = 0.0
        self.port = 0
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._stopped = asyncio.Event()
        self.thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def start(self) -> None:
        self.thread.start()
        assert self._listening.wait(10), "the proxy does not listen"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self.thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stopped.wait()
        server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            await asyncio.gather(
                self._forward(reader, far_writer), self._forward(far_reader, writer)
            )
        except (OSError, asyncio.CancelledError):
            pass  # either side is gone, or the proxy ends: so does the connection
        finally:
            writer.transport.abort()
            far_writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await asyncio.sleep(self.delay_seconds)
            writer.write(data)
        writer.close()


@contextmanager
def slow_proxy(target_port: int) -> Iterator[SlowProxy]:
    proxy = SlowProxy(target_port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()

"""Waiting for what becomes true by itself, on the event loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable

WAIT_SECONDS = 30.0


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> bool:
    """Ask again and again until `condition` holds; fail after a while."""
    give_up_at = time.monotonic() + WAIT_SECONDS
    while not await condition():
        assert time.monotonic() < give_up_at, f"in vain for {WAIT_SECONDS} s: {what}"
        await asyncio.sleep(0.01)
    return True

"""Waiting for a condition that changes when something happens.

Polling a hundred scenarios every few milliseconds would slow all of them down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["PATIENCE", "Signal"]

PATIENCE = 5.0
"""Real seconds that a scenario waits for a condition."""


class Signal:
    """Wakes all waiters each time something happened."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def fire(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, condition: Callable[[], bool]) -> bool:
        """Wait until ``condition()`` holds; returns False if it does not in time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        while not condition():
            future = loop.create_future()
            self._waiting.add(future)
            done, _ = await asyncio.wait([future], timeout=max(0.0, end - loop.time()))
            if not done:
                self._waiting.discard(future)
                return condition()
        return True

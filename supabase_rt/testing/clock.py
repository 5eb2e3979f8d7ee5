"""A clock that tests move: minutes of heartbeats and backoff in milliseconds."""

from __future__ import annotations

import asyncio
from typing import Self

__all__ = ["FakeClock"]

STEP = 0.25
SETTLE = 0.0005


class FakeClock:
    """Moves the time of the running event loop; an async context manager.

    ::

        async with FakeClock() as clock, LocalRealtime() as server:
            ...
            server.faults.stall()
            await clock.advance(60)  # the heartbeat goes unanswered, the client reconnects

    Enter it before the client connects. Real time passes too, so that sockets work. Skipped time
    stays skipped after the exit, because a clock that goes back would stop every timer. Raises
    ``RuntimeError`` in a loop whose clock cannot be moved (uvloop).
    """

    def __init__(self) -> None:
        self.skipped: float = 0.0
        """Seconds skipped so far."""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        real = loop.time

        def moved() -> float:
            return real() + self.skipped

        try:
            setattr(loop, "time", moved)  # noqa: B010
        except AttributeError:
            raise RuntimeError(
                f"the clock of a {type(loop).__name__} cannot be moved; use asyncio's own loop"
            ) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        """Does nothing: the loop keeps its time until it ends."""

    async def advance(self, seconds: float, *, step: float = STEP, settle: float = SETTLE) -> None:
        """Skip ``seconds``, in steps, with ``settle`` real seconds after each.

        All timers due within a step fire at its end, in order. Their messages arrive before the
        next step. A server in another thread may need a longer ``settle``.
        """
        left = seconds
        while left > 0:
            self.skipped += min(step, left)
            left -= step
            await asyncio.sleep(settle)
        for _ in range(5):
            await asyncio.sleep(0)

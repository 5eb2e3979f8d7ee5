"""An event loop whose clock jumps: hours pass in seconds, over real sockets.

Client, proxy and server run in one loop over loopback, where written data can be read at once. If
no socket is readable and no callback is ready, nothing can happen before the next timer. So the
clock may jump to that moment. Work in threads is not noticed: tests that wait for a thread or
another process use a plain loop.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualLoop", "run_virtual"]

T = TypeVar("T")
START = 1000.0


class _Selector(selectors.DefaultSelector):
    """Does not wait, but moves ``now`` by the requested time."""

    now = START
    turns_left = 0
    callback: Callable[[], object] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Called once in each turn of the loop."""
        if self.callback is not None:
            self.turns_left -= 1
            if self.turns_left < 0:
                callback, self.callback = self.callback, None
                callback()
                timeout = 0
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        # A kernel that delivers packets late gets one more turn before time moves.
        os.sched_yield()
        if found := super().select(0):
            return found
        if timeout is None:
            # There is no timer, so only an event from outside can end this wait.
            return super().select(None)
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` stands still during work, and jumps to the next timer when no work is left."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def lag(self, seconds: float) -> None:
        """Let time pass without a turn of the loop, as if a callback blocked it."""
        self._virtual.now += seconds

    def after_turns(self, count: int, callback: Callable[[], object] | None) -> None:
        """Call back after so many turns; unlike ``sleep(0)`` it does not keep the loop awake."""
        self._virtual.turns_left, self._virtual.callback = count, callback


def run_virtual(work: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """``asyncio.run`` in virtual time."""
    with asyncio.Runner(debug=debug, loop_factory=VirtualLoop) as runner:
        return runner.run(work)

"""A timer of the loop that is set again and again."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

__all__ = ["Timer"]


class Timer:
    """A timer that is only ever moved forward.

    If it is set to a later time, it still fires at the earlier one; the owner then finds nothing
    due and sets it anew. Every request has a deadline and nearly every one is answered before it.
    Cancelling a timer for each of them would cost more than the request.
    """

    def __init__(self, on_fire: Callable[[], None]) -> None:
        self._on_fire = on_fire
        self._at: float | None = None
        self._handle: asyncio.TimerHandle | None = None

    def set(
        self, loop: asyncio.AbstractEventLoop, at: float | None, context: contextvars.Context
    ) -> None:
        """Fire at ``at`` by the loop's clock, or earlier; None stops the timer."""
        if at is None:
            self._stop()
        elif self._at is None or at < self._at:
            self._stop()
            self._at = at
            self._handle = loop.call_at(at, self.fire, context=context.copy())

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self.forget()

    def fire(self) -> None:
        """Call the owner; the timer is no longer set."""
        self.forget()
        self._on_fire()

    def forget(self) -> None:
        """Drop the handle: the timer fired, or its loop is gone."""
        self._at = self._handle = None

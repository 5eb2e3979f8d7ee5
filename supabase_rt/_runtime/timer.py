"""One timer of the loop, set again and again."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

__all__ = ["Alarm"]


class Alarm:
    """One timer. It is moved forward only: set to later, it rings for nothing once, and is then
    set anew. Every request has a deadline and nearly every one is answered before it, and a timer
    that came and went with each would cost more than the request.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._at: float | None = None
        self._handle: asyncio.TimerHandle | None = None

    def set(
        self, loop: asyncio.AbstractEventLoop, at: float | None, context: contextvars.Context
    ) -> None:
        """Ring at ``at`` by the loop's clock or before, or not at all."""
        if at is None:
            self._stop()
        elif self._at is None or at < self._at:
            self._stop()
            self._at = at
            self._handle = loop.call_at(at, self._rang, context=context.copy())

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self.forget()

    def _rang(self) -> None:
        self.forget()
        self._ring()

    def forget(self) -> None:
        """The timer rang, or its loop is gone."""
        self._at = self._handle = None

"""Which handler kept the event loop waiting."""

from __future__ import annotations

from time import perf_counter

__all__ = ["BLOCKING_AFTER", "Stopwatch"]

BLOCKING_AFTER = 0.1
"""Seconds on the loop after which a handler is named in a warning."""


class Stopwatch:
    """When handlers last gave back control, within one stretch of work on the loop.

    One reading of the clock after every call instead of two around it: what lies between the
    end of one call and the start of the next is our own, and short. Whoever begins a stretch, or
    did something else meanwhile, starts it anew.
    """

    __slots__ = ("since", "size")

    def __init__(self) -> None:
        self.since: float = 0.0
        self.size: int = 0
        """Bytes of the frame that is told; queues are bounded by it."""

    def start(self) -> None:
        self.since = perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap, or the start."""
        before, self.since = self.since, perf_counter()
        return self.since - before

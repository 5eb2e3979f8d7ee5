"""A stopwatch that finds handlers that keep the event loop busy for too long."""

from __future__ import annotations

from time import perf_counter

__all__ = ["BLOCKING_AFTER", "Stopwatch"]

BLOCKING_AFTER = 0.1
"""Seconds after which a handler is named in a warning."""


class Stopwatch:
    """Times handlers that run one after the other, with one reading of the clock for each.

    A lap ends when a handler returns, and the next lap begins. Our own work between two handlers is
    so short that it may count for the next one. Call ``start`` before the first handler, and after
    any longer work in between.
    """

    __slots__ = ("since", "size")

    def __init__(self) -> None:
        self.since: float = 0.0
        self.size: int = 0
        """Bytes of the frame in hand; queues that are bounded in bytes read it."""

    def start(self) -> None:
        self.since = perf_counter()

    def lap(self) -> float:
        """End the lap; returns its seconds."""
        before, self.since = self.since, perf_counter()
        return self.since - before

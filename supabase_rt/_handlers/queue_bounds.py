"""The bounds of the queues in which events wait: the number of events, their bytes, and which event
is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .._protocol.channel_options import MAXBYTES

__all__ = ["OVERFLOWS", "Drops", "OverflowPolicy", "QueueLimits"]

OVERFLOWS = ("drop_oldest", "drop_newest", "close")
"""The values of ``overflow=``."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The options ``maxsize=``, ``maxbytes=`` and ``overflow=`` of one handler."""

    maxsize: int | None = 1000
    maxbytes: int = MAXBYTES
    overflow: str = "drop_oldest"


class Drops:
    """Counts the events that are dropped, and reports them once for each turn of the loop.

    A report for each event would be a flood of its own.
    """

    def __init__(self, report: Callable[[str, int, float, float], None], source: str) -> None:
        self._report = report
        self._source = source
        self._count = 0
        self._since = 0.0

    def add(self) -> None:
        """Counts one more event that was dropped."""
        if not self._count:
            self._since = time.time()
            asyncio.get_running_loop().call_soon(self._send_report)
        self._count += 1

    def _send_report(self) -> None:
        count, self._count = self._count, 0
        self._report(self._source, count, self._since, time.time())


class BoundedQueue(Protocol):
    """A queue, as its overflow policy sees it."""

    @property
    def waiting(self) -> int: ...
    @property
    def waiting_bytes(self) -> int: ...
    def drop_oldest(self) -> None: ...


class OverflowPolicy:
    """Decides which event is dropped when a queue is full."""

    __slots__ = ("_close", "_limits", "drops")

    def __init__(self, limits: QueueLimits, drops: Drops, close: Callable[[], None]) -> None:
        self._limits = limits
        self._close = close
        """Ends the handler with an error, for ``overflow="close"``."""
        self.drops: Drops = drops

    def is_full(self, queue: BoundedQueue, size: int) -> bool:
        """Returns True if an event must be dropped before one more of ``size`` bytes may wait."""
        limits, waiting = self._limits, queue.waiting
        if limits.maxsize is not None and waiting >= limits.maxsize:
            return True
        # An event that is larger than the bound may wait alone.
        return waiting > 0 and queue.waiting_bytes + size > limits.maxbytes

    def make_room(self, queue: BoundedQueue, size: int) -> bool:
        """The queue is full: drops by policy. Returns True if the new event may be queued."""
        if self._limits.overflow == "drop_oldest":
            while self.is_full(queue, size):
                self.drops.add()
                queue.drop_oldest()
            return True
        self.drop_newest()
        return False

    def drop_newest(self) -> None:
        """Counts the new event as dropped, and ends the handler if its policy says so."""
        self.drops.add()
        if self._limits.overflow == "close":
            self._close()

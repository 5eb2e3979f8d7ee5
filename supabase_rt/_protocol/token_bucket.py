"""A rate limit as a bucket of tokens; time is an argument."""

from __future__ import annotations

import math

__all__ = ["TokenBucket"]

_ROUNDING = 1e-6
"""What arithmetic with a large clock may lose; else the moment of ``ready_at`` could come and
not be ready, in the same moment over and over."""


class TokenBucket:
    """``burst`` at once, then ``rate`` a second. Time is an argument."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._at = 0.0

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self.burst, self._level + (now - self._at) * self.rate)
            self._at = now

    def acquire(self, now: float) -> bool:
        self._fill(now)
        if self._level < 1.0 - _ROUNDING:
            return False
        self._level -= 1.0
        return True

    def reserve(self, now: float) -> float:
        """Take one that may not be there yet; returns when it is."""
        due = self.ready_at(now)
        self._level -= 1.0
        return due

    def owed(self, now: float) -> int:
        """How many were reserved that are not there yet."""
        self._fill(now)
        return max(0, math.ceil(-self._level - _ROUNDING))

    def holds(self, count: int, now: float) -> bool:
        """Whether so many may go."""
        self._fill(now)
        return self._level >= count - _ROUNDING

    def ready_at(self, now: float, count: int = 1) -> float:
        """When the next one may go, or the next few."""
        self._fill(now)
        return now + max(0.0, count - self._level) / self.rate

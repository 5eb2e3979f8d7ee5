"""A rate limit as a token bucket; time is an argument."""

from __future__ import annotations

import math

__all__ = ["TokenBucket"]

_ROUNDING = 1e-6
"""The rounding error of arithmetic with large times. Without it, ``acquire`` could fail again and
again at the very moment that ``ready_at`` returned.
"""


class TokenBucket:
    """Allows ``burst`` at once, then ``rate`` a second."""

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
        """Take a token, which may become free only later; returns the time at which it is free."""
        due = self.ready_at(now)
        self._level -= 1.0
        return due

    def owed(self, now: float) -> int:
        """Returns the number of reserved tokens that are not there yet."""
        self._fill(now)
        return max(0, math.ceil(-self._level - _ROUNDING))

    def holds(self, count: int, now: float) -> bool:
        """Returns True if ``count`` tokens are there."""
        self._fill(now)
        return self._level >= count - _ROUNDING

    def ready_at(self, now: float, count: int = 1) -> float:
        """Returns the time at which ``count`` tokens are there."""
        self._fill(now)
        return now + max(0.0, count - self._level) / self.rate

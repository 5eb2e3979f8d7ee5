"""Broadcasts at the pace that the user chose: ``send_limit`` of the client."""

from __future__ import annotations

import logging

from .logs import facts
from .protocol.pushes import TokenBucket

__all__ = ["Pacer"]

_log = logging.getLogger("supabase_rt.channel")


class Pacer:
    """Gives every broadcast its moment, in the order of the calls."""

    def __init__(self, limit: tuple[int, float], most: int) -> None:
        calls, seconds = limit
        self._bucket = TokenBucket(calls / seconds, float(calls))
        self._most = most
        self._warned = False

    def refuses(self, now: float) -> bool:
        """Whether so many wait that another one is refused; the log hears of the first."""
        if self._bucket.owed(now) < self._most:
            self._warned = False
            return False
        if not self._warned:
            self._warned = True
            _log.error(
                "%d broadcasts wait for send_limit; further ones resolve 'error' (await your "
                "sends to go at its pace)",
                self._most,
                extra=facts(count=self._most),
            )
        return True

    def reserve(self, now: float) -> float:
        """Seconds until this broadcast may go; none of a later call goes before it."""
        return max(0.0, self._bucket.reserve(now) - now)

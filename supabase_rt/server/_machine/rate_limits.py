"""The rate limits of a project, on all its clients together (docs/protocol.md#10-limits).

This module has no clock: the server calls ``tick`` every ``rate_interval`` seconds. Every message
is counted. So counting is one addition between two ticks, and a check reads one attribute. So a
burst that ends before the next tick has no effect, as on the real server.
"""

from __future__ import annotations

import collections
import logging
import math

from ..._printable import get_logger
from ..settings import Settings

__all__ = ["Limits", "Rate"]

logger: logging.Logger = get_logger("supabase_rt.server")

BUCKETS = 12


class Rate:
    """An average over the last intervals; with the ``limit`` None it is never exceeded."""

    __slots__ = ("_about", "_buckets", "_interval", "average", "count", "limit", "tripped")

    def __init__(self, limit: float | None, interval: float, about: str = "") -> None:
        self.limit: float | None = limit
        self.count: int = 0
        """The count since the last tick; callers add to it."""
        self.average: float = 0.0
        """The average per second at the last tick."""
        self.tripped: bool = False
        """True if the average has reached the limit."""
        self._about = about
        self._interval = interval
        self._buckets: collections.deque[int] = collections.deque(maxlen=BUCKETS)

    def tick(self) -> None:
        """End an interval and update the average."""
        if self.count or self._buckets:
            self._buckets.append(self.count)
            self.count = 0
        if not any(self._buckets):
            # Idle for a minute: empty intervals must not dilute the average of the next use.
            self._buckets.clear()
        seconds = self._interval * max(1, len(self._buckets))
        self.average = sum(self._buckets) / seconds
        was, self.tripped = self.tripped, self.limit is not None and self.average >= self.limit
        if self.tripped and not was:
            # Some limits have no effect that a client can see, so the log must say it.
            logger.warning("%.0f a second reach the limit of %s", self.average, self._about)

    def would_exceed(self, more: int) -> bool:
        """Returns True if this many more at once would exceed the limit."""
        return self.limit is not None and self.average + more > self.limit


class Limits:
    """The rates of one server, and the number of its users."""

    def __init__(self, settings: Settings) -> None:
        interval = settings.rate_interval
        events = settings.max_events_per_second
        self.joins: Rate = Rate(
            settings.max_joins_per_second,
            interval,
            "max_joins_per_second: joins are refused and their sockets closed",
        )
        self.events: Rate = Rate(
            events, interval, "max_events_per_second: channels that get a broadcast are closed"
        )
        """Broadcasts, counted when sent and once for each channel that gets them."""
        self.changes: Rate = Rate(
            events, interval, "max_events_per_second: row changes are skipped without a word"
        )
        """Row changes, counted once for each channel that gets them."""
        self.requests: Rate = Rate(
            events, interval, "max_events_per_second: HTTP requests are answered with 429"
        )
        """HTTP requests."""
        self.presence: Rate = Rate(
            settings.max_presence_events_per_second,
            interval,
            "max_presence_events_per_second: channels that track are closed",
        )
        """Tracks, states, and diffs, counted once for each channel that gets them."""
        self.users: int = 0
        """Sockets that have joined a channel since they connected."""
        self._max_users = settings.max_concurrent_users
        self._rates = (self.joins, self.events, self.changes, self.requests, self.presence)

    @property
    def full(self) -> bool:
        """True if the limit on users is reached."""
        return self._max_users is not None and self.users >= self._max_users

    def tick(self) -> None:
        """End an interval of all rates."""
        for rate in self._rates:
            rate.tick()

    def request_headers(self) -> dict[str, str]:
        """Returns the headers with the rate of requests; empty without a limit."""
        limit = self.requests.limit
        if limit is None:
            return {}
        rolling = math.floor(self.requests.average)
        return {
            "x-rate-limit": f"{limit:g}",
            "x-rate-limit-remaining": f"{max(0, limit - rolling):g}",
            "x-rate-rolling": str(rolling),
        }

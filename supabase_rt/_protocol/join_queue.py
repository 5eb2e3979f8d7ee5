"""The queue of channels that wait to be joined on the open link.

The server decides joins one at a time and delays a refusal by 5 s. It closes the socket of a client
that joins too fast (docs/protocol.md#one-join-at-a-time). So joins are paced by a token bucket, and
refused channels queue behind all others.
"""

from __future__ import annotations

import heapq

from .channel.channel_machine import ChannelMachine
from .shared_state import SharedState
from .token_bucket import TokenBucket

__all__ = ["JOIN_BURST", "JOIN_RATE", "JoinQueue"]

JOIN_RATE = 50.0
JOIN_BURST = 100.0
"""Half the server's default limit of 100 a second, which it averages over at least 5 s. The burst
is the number of channels that one client may have by default."""
JOIN_BATCH = 5
"""Joins sent together once the burst is spent. A wake-up for each of them would cost more than
the joins themselves."""


class JoinQueue:
    """Channels waiting to be joined on the open link."""

    def __init__(self, context: SharedState) -> None:
        self._context = context
        self._bucket = TokenBucket(JOIN_RATE, JOIN_BURST)
        self._waiting: dict[ChannelMachine, None] = {}
        """All channels that wait, in order."""
        self._tokenless: dict[ChannelMachine, None] = {}
        """The channels among them that need a fresh token first."""
        self._ready: list[tuple[int, int, ChannelMachine]] = []
        """A heap of the channels that may be joined; one that left meanwhile is skipped at the
        top."""
        self._count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, channel: ChannelMachine) -> bool:
        return channel in self._waiting

    def add(self, channel: ChannelMachine, needs_token: bool) -> None:
        needs_token = needs_token or channel in self._tokenless
        self._waiting[channel] = None
        if needs_token:
            self._tokenless[channel] = None
        else:
            self._line_up(channel)

    def _line_up(self, channel: ChannelMachine) -> None:
        self._count += 1
        heapq.heappush(self._ready, (channel.rejoin.refusals, self._count, channel))

    def discard(self, channel: ChannelMachine) -> None:
        self._waiting.pop(channel, None)
        self._tokenless.pop(channel, None)
        if not self._waiting:
            # Otherwise channels that left would be referenced here until the next join.
            self._ready.clear()

    def clear(self) -> None:
        self._waiting.clear()
        self._tokenless.clear()
        self._ready.clear()

    @property
    def wants_token(self) -> bool:
        """True if a channel waits for a fresh token."""
        return bool(self._tokenless)

    def token_arrived(self) -> None:
        """The token source has answered or failed: join the channels that waited for it."""
        tokenless, self._tokenless = self._tokenless, {}
        for channel in tokenless:
            self._line_up(channel)

    def pump(self, now: float) -> None:
        """Write as many joins as the bucket allows, and set a deadline for the next ones."""
        if self._ready and not self._bucket.holds(self._few, now):
            self._wake(now)
            return
        while self._ready:
            channel = self._ready[0][-1]
            if channel not in self._waiting or channel in self._tokenless:
                heapq.heappop(self._ready)
            elif self._bucket.acquire(now):
                heapq.heappop(self._ready)
                self.discard(channel)
                channel.write_join(now)
            else:
                self._wake(now)
                return

    @property
    def _few(self) -> int:
        """The number of joins to wait for: a batch, or fewer if fewer are queued or fit the
        bucket.
        """
        return min(JOIN_BATCH, len(self._ready), int(self._bucket.burst))

    def _wake(self, now: float) -> None:
        deadlines = self._context.outbox.deadlines
        planned, due = deadlines.get("joins"), self._bucket.ready_at(now, self._few)
        # This runs for most frames and mostly finds the deadline set. An early wake-up is harmless.
        if planned is None or due < planned:
            deadlines.set("joins", due)

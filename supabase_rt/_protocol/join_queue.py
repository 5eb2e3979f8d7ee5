"""Who joins next.

The server decides joins one at a time, holds a refusal back for 5 s, and cuts the socket of a
client that joins too fast
(docs/protocol.md#one-join-at-a-time and 10). So joins are paced by a token bucket,
and a channel that was refused goes behind those that were not.
"""

from __future__ import annotations

import heapq

from .channel.channel_machine import ChannelMachine
from .shared_state import SharedState
from .token_bucket import TokenBucket

__all__ = ["JOIN_BURST", "JOIN_RATE", "JoinQueue"]

JOIN_RATE = 50.0
JOIN_BURST = 100.0
"""Half the server's default of 100 a second, averaged there over at least 5 s; the burst is as
many channels as one client may have by default."""
JOIN_BATCH = 5
"""So many go together once the burst is spent: the joins themselves cost less than waking up for
each of them."""


class JoinQueue:
    """Channels waiting to be joined on the open link."""

    def __init__(self, context: SharedState) -> None:
        self._context = context
        self._bucket = TokenBucket(JOIN_RATE, JOIN_BURST)
        self._waiting: dict[ChannelMachine, None] = {}
        """Every channel that waits, in order."""
        self._tokenless: dict[ChannelMachine, None] = {}
        """Those of them that wait for a token first."""
        self._ready: list[tuple[int, int, ChannelMachine]] = []
        """A heap of those whose turn may come; who left meanwhile is skipped when it surfaces."""
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
            # Else those who left would be kept here until somebody joins again.
            self._ready.clear()

    def clear(self) -> None:
        self._waiting.clear()
        self._tokenless.clear()
        self._ready.clear()

    @property
    def wants_token(self) -> bool:
        """Whether a channel waits for a fresh token."""
        return bool(self._tokenless)

    def token_arrived(self) -> None:
        """The token is as fresh as it gets, even if asking for it failed."""
        tokenless, self._tokenless = self._tokenless, {}
        for channel in tokenless:
            self._line_up(channel)

    def pump(self, now: float) -> None:
        """Write as many joins as the bucket allows; wake again when it allows some more."""
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
        """How many to wait for; not for more than there are or ever will be allowed at once."""
        return min(JOIN_BATCH, len(self._ready), int(self._bucket.burst))

    def _wake(self, now: float) -> None:
        deadlines = self._context.outbox.deadlines
        planned, due = deadlines.get("joins"), self._bucket.ready_at(now, self._few)
        # Most frames that come by find it planned. Waking a little early does no harm.
        if planned is None or due < planned:
            deadlines.set("joins", due)

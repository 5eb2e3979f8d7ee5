"""Who joins next.

The server decides joins one at a time, holds a refusal back for 5 s, and cuts the socket of a
client that joins too fast (protocol reference 1.9 and 10). So joins are paced by a token bucket,
and a channel that was refused goes behind those that were not.
"""

from __future__ import annotations

import heapq

from .channel import ChannelMachine
from .context import Context
from .pushes import TokenBucket

__all__ = ["JOIN_BURST", "JOIN_RATE", "JoinQueue"]

JOIN_RATE = 50.0
JOIN_BURST = 100.0
"""Half the server's default of 100 a second, averaged there over at least 5 s; the burst is as
many channels as one client may have by default."""


class JoinQueue:
    """Channels waiting to be joined on the open link."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._bucket = TokenBucket(JOIN_RATE, JOIN_BURST)
        self._waiting: dict[ChannelMachine, bool] = {}
        """Every channel that waits, and whether it waits for a token."""
        self._ready: list[tuple[int, int, ChannelMachine]] = []
        """A heap of those whose turn may come; who left meanwhile is skipped when it surfaces."""
        self._count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, channel: ChannelMachine) -> bool:
        return channel in self._waiting

    def add(self, channel: ChannelMachine, needs_token: bool) -> None:
        needs_token = needs_token or self._waiting.get(channel, False)
        self._waiting[channel] = needs_token
        if not needs_token:
            self._line_up(channel)

    def _line_up(self, channel: ChannelMachine) -> None:
        self._count += 1
        heapq.heappush(self._ready, (channel.recovery.refusals, self._count, channel))

    def discard(self, channel: ChannelMachine) -> None:
        self._waiting.pop(channel, None)

    def clear(self) -> None:
        self._waiting.clear()
        self._ready.clear()

    @property
    def wants_token(self) -> bool:
        """Whether a channel waits for a fresh token."""
        return any(self._waiting.values())

    def token_arrived(self) -> None:
        """The token is as fresh as it gets, even if asking for it failed."""
        for channel, needs_token in self._waiting.items():
            if needs_token:
                self._waiting[channel] = False
                self._line_up(channel)

    def pump(self, now: float) -> None:
        """Write as many joins as the bucket allows; wake again when it allows the next."""
        while self._ready:
            channel = self._ready[0][-1]
            if self._waiting.get(channel) is not False:
                heapq.heappop(self._ready)
            elif self._bucket.take(now):
                heapq.heappop(self._ready)
                self.discard(channel)
                channel.write_join(now)
            else:
                self._context.outbox.timers.set("joins", self._bucket.ready_at(now))
                return

"""Whose frames are looked at next: a client that sends without end must not keep others waiting."""

from __future__ import annotations

import asyncio
import heapq
import itertools

__all__ = ["SLICE", "Turns", "Usage"]

ALLOWANCE = 0.01
"""Seconds of work for a client, within about a second, that never wait for a turn."""
TOGETHER = 0.2
"""The same for all clients together, where there are many."""
QUIET = 0.1
"""Seconds of work for all clients, within about a second, up to which nobody waits at all."""
HALF_LIFE = 1.0
SLICE = 0.002
"""Seconds of one turn; a frame that takes longer is still done."""
GAP = 4
"""Turns of the loop between two of these: as many as it takes to read, answer and write."""


class Usage:
    """The work done for one client."""

    __slots__ = ("_at", "_used", "share")

    def __init__(self) -> None:
        self._at = 0.0
        self._used = 0.0
        self.share: float = 0.0
        """How far this client has come in its share of all turns."""

    def count(self, seconds: float, now: float) -> None:
        """Count work done."""
        self._used = self.at(now) + seconds
        self._at = now
        self.share += seconds

    def at(self, now: float) -> float:
        """The work that is remembered at ``now``; half of it is forgotten in a second."""
        return self._used * 0.5 ** ((now - self._at) / HALF_LIFE) if self._used else 0.0


class Turns:
    """Clients of little work go ahead at once, all others in turn.

    The next turn is that of the client with the least share so far. Who asked for nothing for a
    while has no share in advance: it begins where the others are. Between two turns everybody
    else is heard and answered. So whoever asks little waits for one turn at most, however many
    flood the server.
    """

    def __init__(self) -> None:
        self.work: Usage = Usage()
        """The work done for all clients."""
        self.clients: int = 0
        """How many clients there are."""
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._serial = itertools.count()
        self._share = 0.0
        self._taken = False

    def is_light(self, usage: Usage, now: float) -> bool:
        """Whether a client needs no turn."""
        allowed = min(ALLOWANCE, TOGETHER / max(1, self.clients))
        return usage.at(now) < allowed or self.work.at(now) < QUIET

    def count(self, usage: Usage, seconds: float, now: float) -> None:
        """Count work done for a client."""
        usage.count(seconds, now)
        self.work.count(seconds, now)

    async def wait(self, usage: Usage) -> None:
        """Wait for a turn, which lasts until the caller waits for something."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        usage.share = max(usage.share, self._share)
        heapq.heappush(self._waiting, (usage.share, next(self._serial), turn))
        if not self._taken:
            self._taken = True
            loop.call_soon(self._next, loop)
        await turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            share, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._share = max(self._share, share)
                turn.set_result(None)
                loop.call_soon(self._after, loop, GAP)
                return
        self._taken = False

    def _after(self, loop: asyncio.AbstractEventLoop, left: int) -> None:
        if left:
            loop.call_soon(self._after, loop, left - 1)
        else:
            self._next(loop)

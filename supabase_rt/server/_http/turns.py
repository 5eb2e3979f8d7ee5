"""The order in which clients are served, so that a flood keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import collections
import heapq
import itertools

__all__ = ["AT_ONCE", "SLICE", "Slices", "Turns", "Usage"]

ALLOWANCE = 0.01
"""Seconds of work for a client, within about a second, that do not have to wait for a turn."""
TOGETHER = 0.2
"""The same limit for all clients together, if there are many."""
QUIET = 0.1
"""Seconds of work for all clients, within about a second; below it no client waits for a turn."""
HALF_LIFE = 1.0
SLICE = 0.001
"""Seconds of one turn; a frame that takes longer is still finished."""
LONGEST_PASS = 0.004
"""Seconds of work in one turn of the loop; beyond it even clients with little work wait."""
NOTICED = 0.001
"""Seconds of work that are enough to notice that the next turn of the loop has begun."""
AT_ONCE = 8
"""Slices of large frames that are written in one turn of the loop."""
GAP = 4
"""Turns of the loop from one client's turn to the next: enough to read, answer and write."""


class Usage:
    """The work done for one client, or for a group that takes turns as one.

    A group of ``weight`` gets as many turns as so many single clients.
    """

    __slots__ = ("_at", "_used", "_weight", "share", "waiting")

    def __init__(self, weight: int = 1) -> None:
        self._at = 0.0
        self._used = 0.0
        self._weight = weight
        self.share: float = 0.0
        """The work done for this client since it began to take turns."""
        self.waiting: list[asyncio.Future[None]] | None = None
        """The turns that this client waits for; None if it waits for none."""

    @property
    def is_known(self) -> bool:
        """True if there has been any work for this client."""
        return self._at > 0

    def count(self, seconds: float, now: float) -> None:
        """Count work done."""
        self._used = self.at(now) + seconds
        self._at = now
        self.share += seconds / self._weight

    def at(self, now: float) -> float:
        """Returns the work that is remembered at ``now``; half of it is forgotten in a second."""
        return self._used * 0.5 ** ((now - self._at) / HALF_LIFE) if self._used else 0.0


class Slices:
    """Lets a few slices of large frames be written in one turn of the loop.

    Copying 64 KB for each of 150 sockets takes the system so long that all clients notice.
    """

    def __init__(self) -> None:
        self._written = 0
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()
        self._new_pass: asyncio.Handle | None = None

    async def wait(self) -> None:
        """Wait until a slice may be written."""
        loop = asyncio.get_running_loop()
        if self._new_pass is None:
            self._new_pass = loop.call_soon(self._begin_pass, loop)
        if self._written < AT_ONCE and not self._waiting:
            self._written += 1
            return
        room = loop.create_future()
        self._waiting.append(room)
        await room

    def _begin_pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._written, self._new_pass = 0, None
        while self._waiting and self._written < AT_ONCE:
            room = self._waiting.popleft()
            if not room.done():
                self._written += 1
                room.set_result(None)
        if self._written:
            self._new_pass = loop.call_soon(self._begin_pass, loop)


class Turns:
    """Serves clients of little work at once, and all others in turn.

    The next turn goes to the client with the least share. A client that was idle saves up no turns:
    its share begins at the least share of the others. If many clients begin at the same time,
    earlier clients go first, then the newest of the crowd. So a crowd that comes at once does not
    delay the next client. Between two turns all other clients are heard.
    """

    def __init__(self) -> None:
        self.work: Usage = Usage()
        """The work done for all clients."""
        self.clients: int = 0
        """The number of clients."""
        self.slices: Slices = Slices()
        """The large frames that are written."""
        self._waiting: list[tuple[float, bool, int, Usage]] = []
        self._serial = itertools.count()
        self._share = 0.0
        self._taken = False
        self._unfinished: Usage | None = None
        self._spent = 0.0
        self._new_pass: asyncio.Handle | None = None

    def is_light(self, usage: Usage, now: float) -> bool:
        """Returns True if a client needs no turn."""
        if self._spent > LONGEST_PASS:
            return False
        allowed = min(ALLOWANCE, TOGETHER / max(1, self.clients))
        return usage.at(now) < allowed or self.work.at(now) < QUIET

    def count(self, usage: Usage, seconds: float, now: float) -> None:
        """Count work done for a client."""
        usage.count(seconds, now)
        self.work.count(seconds, now)
        if not self._waiting:
            # Work that kept nobody waiting gives the other clients no advance.
            self._share = max(self._share, usage.share)

    def spend(self, seconds: float) -> None:
        """Count work towards this turn of the loop; to be called in the loop."""
        self._spent += seconds
        if self._spent > NOTICED and self._new_pass is None:
            self._new_pass = asyncio.get_running_loop().call_soon(self._begin_pass)

    def _begin_pass(self) -> None:
        self._spent, self._new_pass = 0.0, None

    async def wait(self, usage: Usage) -> None:
        """Wait for a turn, which lasts until the caller waits for something.

        If several callers wait for a turn of the same usage, the newest goes first.
        """
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        if usage.waiting is None:
            usage.waiting = [turn]
            self._push(usage)
        else:
            usage.waiting.append(turn)
        if not self._taken:
            self._taken = True
            loop.call_soon(self._next, loop)
        await turn

    def _push(self, usage: Usage) -> None:
        usage.share = max(usage.share, self._share)
        serial = next(self._serial)
        entry = usage.share, not usage.is_known, serial if usage.is_known else -serial, usage
        heapq.heappush(self._waiting, entry)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        again, self._unfinished = self._unfinished, None
        if again is not None:
            # It is queued only now, because the work of its last turn must be counted before.
            self._push(again)
        while self._waiting:
            share, _, _, usage = heapq.heappop(self._waiting)
            turn = self._newest(usage)
            if turn is not None:
                self._share = max(self._share, share)
                turn.set_result(None)
                loop.call_soon(self._after, loop, GAP)
                return
        self._taken = False

    def _newest(self, usage: Usage) -> asyncio.Future[None] | None:
        turns, usage.waiting = usage.waiting or [], None
        while turns:
            turn = turns.pop()
            if not turn.done():
                if turns:
                    usage.waiting, self._unfinished = turns, usage
                return turn
        return None

    def _after(self, loop: asyncio.AbstractEventLoop, left: int) -> None:
        if left:
            loop.call_soon(self._after, loop, left - 1)
        else:
            self._next(loop)

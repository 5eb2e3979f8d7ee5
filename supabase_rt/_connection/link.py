"""One attempt to connect and, if it succeeds, the way out of its socket.

A frame is written at the call while the peer takes what it is given. When it does not, the frames
wait in a queue, in the order of the calls, for the one writer: a task that lives only as long as
there is something to catch up with. As nothing is written past a queue that is not empty, there
is one order, and a link that never meets a slow peer never pays for a task to hand its frames to.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from .._printable import get_logger
from .._runtime.log_fields import facts
from .._runtime.outcome import Outcome, settle
from ..errors import ConnectionLost
from .traffic import Traffic
from .transport import Transport, Unfinished

__all__ = ["Link"]

log: Final = get_logger("supabase_rt.connection")

DRAIN_TIMEOUT = 1.0
"""Seconds that frames already accepted get to leave before the socket is closed."""

BURST = 64
"""Frames written one after the other before somebody else gets a turn of the loop: one who
awaits every send in a long loop would else keep it from the reader and from the heartbeat."""

MOST_WAITING = 64 * 2**20
"""Bytes that may wait for a peer who does not take them, however few the frames are."""

WRITTEN: Outcome[str] = Outcome.of("ok")
"""The result of every frame that nobody answers and that left at the call."""


class Link:
    """One connection: its task, its socket once it is open, and the frames that wait for it.

    ``failed`` is called where writing fails for a reason that is not the socket's end.
    """

    def __init__(self, traffic: Traffic, max_outbound: int, failed: Callable[[Link], None]) -> None:
        self.task: asyncio.Task[None] | None = None
        self.transport: Transport | None = None
        self._traffic = traffic
        self._max_outbound = max_outbound
        self._failed = failed
        self._queue: deque[tuple[str | bytes, Any]] = deque()
        self._waiting = 0
        """Bytes in the queue."""
        self._unfinished: Unfinished | None = None
        self._writer: asyncio.Task[None] | None = None
        self._is_over = False
        self.is_clear: bool = False
        """Whether a frame would be written at the call."""
        self._in_a_row = 0
        self._has_warned = False

    # -- writing -------------------------------------------------------------------------

    def open(self, transport: Transport) -> None:
        """The socket is there; frames may go."""
        self.transport = transport
        self.is_clear = True

    def put(self, data: str | bytes, outcome: Any) -> None:
        """Write a frame, or queue it; ``outcome`` settles when it is written or never will be."""
        if not self._leaves_now(data):
            self._line_up(data, outcome)
        elif outcome is not None:
            settle(outcome, "ok")

    def cast(self, data: bytes) -> Outcome[str]:
        """``put`` for a frame that nobody answers: most results are there already."""
        if self._leaves_now(data):
            self._in_a_row += 1
            if self._in_a_row < BURST:
                return WRITTEN
            self._in_a_row = 0
            outcome: Outcome[str] = Outcome()
            asyncio.get_running_loop().call_soon(outcome.succeed, "ok")
            return outcome
        outcome = Outcome()
        self._line_up(data, outcome)
        return outcome

    def _leaves_now(self, data: str | bytes) -> bool:
        """Write the frame if nothing goes before it; one that did not leave has to line up."""
        if not self.is_clear:
            return False
        assert self.transport is not None
        try:
            unfinished = self.transport.write(data)
        except Exception as exc:
            self._broke(exc)
            return False
        if unfinished is None:
            self._traffic.frames_out += 1
            return True
        self._unfinished = unfinished
        self.is_clear = False
        return False

    def _line_up(self, data: str | bytes, outcome: Any) -> None:
        if self.transport is None:
            settle(outcome, "error")
            return
        self._queue.append((data, outcome))
        self._waiting += len(data)
        if self._unfinished is not None and self._writer is None:
            writer = asyncio.get_running_loop().create_task(
                self._catch_up(), name="supabase_rt:writer"
            )
            # A loop may run its tasks at once (asyncio.eager_task_factory).
            self._writer = None if writer.done() else writer

    async def _catch_up(self) -> None:
        """The one writer: frames leave in their order until none is left, or the socket ends.

        The first of the queue has been handed over, and is waited for.
        """
        queue, transport = self._queue, self.transport
        assert transport is not None
        try:
            while queue:
                if self._unfinished is None:
                    self._unfinished = transport.write(queue[0][0])
                if self._unfinished is not None:
                    await self._unfinished.end()
                    self._unfinished = None
                self._traffic.frames_out += 1
                data, outcome = queue.popleft()
                self._waiting -= len(data)
                settle(outcome, "ok")
                self._in_a_row += 1
                if self._in_a_row >= BURST:
                    self._in_a_row = 0
                    await asyncio.sleep(0)
        except Exception as exc:
            self._broke(exc)
        else:
            self._has_warned = False
            self.is_clear = not self._is_over
        finally:
            self._writer = None

    def _broke(self, error: Exception) -> None:
        """Nothing more can be written; what waits is settled at the end of the link."""
        self._is_over = True
        self.is_clear = False
        if not isinstance(error, ConnectionLost):
            log.error("the writer failed", exc_info=error, extra=facts(error))
            self._failed(self)
        # Else the reader sees the same end, and reports it.

    # -- too much ------------------------------------------------------------------------

    def refuses(self) -> bool:
        """Whether so much waits that a frame of the user's is refused; counted, and logged once."""
        if len(self._queue) < self._max_outbound and self._waiting < MOST_WAITING:
            return False
        self._traffic.frames_refused += 1
        if not self._has_warned:
            self._has_warned = True
            log.error(
                "%d frames wait to be written; further sends resolve 'error' until the "
                "server takes them (await your sends to go at its pace)",
                len(self._queue),
                extra=facts(count=len(self._queue), size=self._waiting),
            )
        return True

    # -- the end -------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait until what was accepted has left, but not for long."""
        if self._writer is not None:
            _, late = await asyncio.wait([self._writer], timeout=DRAIN_TIMEOUT)
            if late:
                known = facts(count=len(self._queue))
                log.debug("frames were left unwritten at the close", extra=known)

    async def leave(self, code: int, reason: str) -> None:
        """Have its task end, and wait for that: by a close, or before there was a socket.

        What was accepted leaves within the time of the close, ``CLOSE_TIMEOUT`` in all.
        """
        if self.transport is not None:
            by = self.transport.close_by()
            await self.drain()
            if self.transport is not None:
                await self.transport.close(code, reason, by)
        elif self.task is not None:
            self.task.cancel()
        if self.task is not None:
            await asyncio.wait([self.task])

    async def end(self) -> None:
        """Stop writing. What was not written will not be: the rejoin goes first on the next."""
        self.transport = None
        self._is_over = True
        self.is_clear = False
        try:
            if self._writer is not None:
                self._writer.cancel()
                await asyncio.wait([self._writer])
        finally:
            while self._queue:
                settle(self._queue.popleft()[1], "error")

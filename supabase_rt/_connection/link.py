"""A link: one attempt to connect and, if it succeeds, writing to its socket.

While the peer reads fast enough, a frame is written at the call. Otherwise frames wait in a queue
for the writer, a task that ends when the queue is empty. While the queue is not empty, every new
frame joins it, so frames leave in the order of the calls. A link whose peer is never slow never
starts the task.
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
"""Seconds for accepted frames to be written before the socket is closed."""

BURST = 64
"""Frames written in a row before other tasks get a turn of the loop.

An await of a send that is done already does not yield. A long loop of sends would therefore keep
the reader and the heartbeat from running.
"""

MAX_WAITING_BYTES = 64 * 2**20
"""Bytes that may wait for a slow peer, however few the frames are."""

WRITTEN: Outcome[str] = Outcome.of("ok")
"""The outcome, shared, of all frames that were written at the call and get no reply."""


class Link:
    """One connection: its task, its socket once it is open, and the frames that wait.

    ``failed`` is called if writing fails for another reason than the end of the socket.
    """

    def __init__(self, traffic: Traffic, max_outbound: int, failed: Callable[[Link], None]) -> None:
        self.task: asyncio.Task[None] | None = None
        self.transport: Transport | None = None
        self._traffic = traffic
        self._max_outbound = max_outbound
        self._failed = failed
        self._queue: deque[tuple[str | bytes, Any]] = deque()
        self._waiting_bytes = 0
        self._unfinished: Unfinished | None = None
        self._writer: asyncio.Task[None] | None = None
        self._is_over = False
        self.is_clear: bool = False
        """True if a frame would be written at the call."""
        self._in_a_row = 0
        self._has_warned = False

    # -- writing -------------------------------------------------------------------------

    def open(self, transport: Transport) -> None:
        """Start writing: the socket is open."""
        self.transport = transport
        self.is_clear = True

    def put(self, data: str | bytes, outcome: Any) -> None:
        """Write a frame, or queue it; ``outcome`` settles when it is written or dropped."""
        if not self._write_now(data):
            self._enqueue(data, outcome)
        elif outcome is not None:
            settle(outcome, "ok")

    def cast(self, data: bytes) -> Outcome[str]:
        """Write or queue a frame that gets no reply; the outcome is mostly settled already."""
        if self._write_now(data):
            self._in_a_row += 1
            if self._in_a_row < BURST:
                return WRITTEN
            self._in_a_row = 0
            outcome: Outcome[str] = Outcome()
            asyncio.get_running_loop().call_soon(outcome.succeed, "ok")
            return outcome
        outcome = Outcome()
        self._enqueue(data, outcome)
        return outcome

    def _write_now(self, data: str | bytes) -> bool:
        """Write the frame if none waits before it; returns False if it has to be queued."""
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

    def _enqueue(self, data: str | bytes, outcome: Any) -> None:
        if self.transport is None:
            settle(outcome, "error")
            return
        self._queue.append((data, outcome))
        self._waiting_bytes += len(data)
        if self._unfinished is not None and self._writer is None:
            writer = asyncio.get_running_loop().create_task(
                self._write_queue(), name="supabase_rt:writer"
            )
            # A loop may run its tasks at once (asyncio.eager_task_factory).
            self._writer = None if writer.done() else writer

    async def _write_queue(self) -> None:
        """Write the queued frames in their order until the queue is empty or the socket ends.

        At its start ``_unfinished`` is the first frame of the queue, which is partly written.
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
                self._waiting_bytes -= len(data)
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
        """Stop writing after a failure; the outcomes that wait are settled by ``end``."""
        self._is_over = True
        self.is_clear = False
        if not isinstance(error, ConnectionLost):
            log.error("the writer failed", exc_info=error, extra=facts(error))
            self._failed(self)
        # The reader sees the end of the socket by itself, and reports it.

    # -- the limit of the queue ----------------------------------------------------------

    def refuses(self) -> bool:
        """Returns True if the queue is full: the caller refuses a frame. Counted; logged once."""
        if len(self._queue) < self._max_outbound and self._waiting_bytes < MAX_WAITING_BYTES:
            return False
        self._traffic.frames_refused += 1
        if not self._has_warned:
            self._has_warned = True
            log.error(
                "%d frames wait to be written; further sends resolve 'error' until the "
                "server takes them (await your sends to go at its pace)",
                len(self._queue),
                extra=facts(count=len(self._queue), size=self._waiting_bytes),
            )
        return True

    # -- the end -------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait until the accepted frames are written, at most ``DRAIN_TIMEOUT`` seconds."""
        if self._writer is not None:
            _, late = await asyncio.wait([self._writer], timeout=DRAIN_TIMEOUT)
            if late:
                known = facts(count=len(self._queue))
                log.debug("frames were left unwritten at the close", extra=known)

    async def leave(self, code: int, reason: str) -> None:
        """Close the socket, or cancel the attempt to open one, and wait for the task to end.

        Accepted frames are written first; together that takes at most ``CLOSE_TIMEOUT`` seconds.
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
        """Stop writing and drop waiting frames: the next link must begin with the rejoin."""
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

"""One attempt to connect and, if it succeeds, the way out: a queue and its one writer."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import ConnectionFailed, ConnectionLost
from .outcome import Outcome
from .protocol.messages import Message
from .transport import Transport

__all__ = ["Codec", "Link", "Traffic", "disconnected", "settle"]

log = logging.getLogger("supabase_rt.connection")

DRAIN_TIMEOUT = 1.0
"""Seconds that frames already accepted get to leave before the socket is closed."""


@dataclass(slots=True)
class Codec:
    """Messages to frames and back."""

    encode: Callable[[Message], str | bytes]
    decode_text: Callable[[bytes], Message]
    decode_binary: Callable[[bytes], Message]


@dataclass(slots=True)
class Traffic:
    """What went over the socket, for ``health()``."""

    frames_in: int = 0
    frames_out: int = 0
    frames_refused: int = 0
    connected_since: float | None = None
    reconnects: int = 0


def settle(outcome: Any, result: str) -> None:
    """Settle the outcome of a frame, where it has one."""
    if isinstance(outcome, Outcome):
        outcome.succeed(result)


def disconnected() -> ConnectionFailed:
    """What those hear who wait for a link when ``disconnect`` is called."""
    return ConnectionFailed(
        "disconnect() was called before the connection was open", retryable=False
    )


class Link:
    """The queue of frames that wait to be written, and the writer that empties it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.transport: Transport | None = None
        self._queue: deque[tuple[str | bytes, Any]] = deque()
        self._wakeup = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, data: str | bytes, outcome: Any) -> None:
        """Queue a frame; ``outcome`` settles when it is written, or never will be."""
        self._queue.append((data, outcome))
        self._drained.clear()
        self._wakeup.set()

    async def write(self, traffic: Traffic, drained: Callable[[], None]) -> None:
        """The one writer: frames leave in the order of the calls, until the socket is closed."""
        queue, transport = self._queue, self.transport
        assert transport is not None
        while True:
            while queue:
                data, outcome = queue[0]
                try:
                    await transport.send(data)
                except ConnectionLost:
                    # The reader sees the same end and reports it.
                    return
                queue.popleft()
                traffic.frames_out += 1
                if outcome is not None:
                    settle(outcome, "ok")
            drained()
            self._drained.set()
            self._wakeup.clear()
            await self._wakeup.wait()

    def drop(self) -> None:
        """What was not written will not be: the rejoin goes first on the next link."""
        while self._queue:
            settle(self._queue.popleft()[1], "error")
        self._drained.set()

    async def drain(self) -> None:
        """Wait until what was accepted has left, but not for long."""
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT):
                await self._drained.wait()
        except TimeoutError:
            log.debug("frames were left unwritten at the close")

"""One direction of a connection through the proxy."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Literal, Protocol

from .wsframes import BINARY, Splitter, WsFrame, build

__all__ = ["DOWN", "UP", "Direction", "Fate", "Pipe", "Spoil", "reset"]

Direction = Literal["up", "down"]
UP: Direction = "up"
DOWN: Direction = "down"

Spoil = Literal["duplicate", "drop", "half", "utf8", "bits", "cut"]
"""The faults of a data frame, in this order: written twice, lost, and cut in half under its full
length. Then invalid UTF-8, reserved bits, and an end of the connection in the middle of it.
"""

Fate = Literal["whole", "copy", "injected", "spoiled"]
"""The fate of a frame; ``copy`` marks the second frame of a duplicate."""

RESET = struct.pack("ii", 1, 0)
DEPTH = 256
"""The most frames under way; beyond it the sender waits, as with full buffers."""


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with a RST."""
    found = writer.get_extra_info("socket")
    if found is not None and not writer.is_closing():
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


class _Rules(Protocol):
    latency: dict[Direction, float]
    bandwidth: dict[Direction, float]
    spoils: dict[Direction, list[Spoil]]

    def is_stalled(self, direction: Direction) -> bool: ...


class _Link(Protocol):
    was_slow: bool

    @property
    def proxy(self) -> _Rules: ...
    def filter_head(self, head: bytes) -> bytes: ...
    def watch(self, direction: Direction, frame: WsFrame, fate: Fate) -> None: ...


_Item = tuple[float, bytes, WsFrame | None, Fate]


class Pipe:
    """Reads in one task and writes in another, so that frames can be delayed in between."""

    def __init__(
        self,
        link: _Link,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.flowing = asyncio.Event()
        if not link.proxy.is_stalled(direction):
            self.flowing.set()
        self._link = link
        self._rules = link.proxy
        self._direction = direction
        self._reader = reader
        self._writer = writer
        self._splitter = Splitter()
        self._queue: asyncio.Queue[_Item | None] = asyncio.Queue()
        self._is_ended = False
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Move bytes until the source ends and all of them are written."""
        reading = self._loop.create_task(self._read())
        try:
            await self._write()
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(2**16):
                head, frames = self._splitter.feed(data)
                if head:
                    self._put(self._link.filter_head(head), None, "whole")
                for frame in frames:
                    self._take(frame)
                while self._queue.qsize() > DEPTH:
                    await asyncio.sleep(0.01)
        except OSError:
            pass
        self._queue.put_nowait(None)

    def put(self, frame: WsFrame, fate: Fate = "whole") -> None:
        """Queue a frame behind those under way."""
        self._put(frame.raw, frame, fate)

    def end(self) -> None:
        """End the stream now; frames under way are lost."""
        self._is_ended = True
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()

    def _put(self, data: bytes, frame: WsFrame | None, fate: Fate) -> None:
        due = self._loop.time() + self._rules.latency[self._direction]
        self._queue.put_nowait((due, data, frame, fate))

    def _take(self, frame: WsFrame) -> None:
        """Pass a frame of the sender on, and spoil it if a fault is due."""
        spoils = self._rules.spoils[self._direction]
        how = spoils.pop(0) if spoils and frame.is_data else None
        if how is None or how == "duplicate":
            self.put(frame)
        if how == "duplicate":
            self.put(frame, "copy")
        elif how is not None and how not in ("duplicate", "drop"):
            self._put(self._spoiled(frame, how), frame, "spoiled")
        if how == "cut":
            self._queue.put_nowait(None)

    def _spoiled(self, frame: WsFrame, how: Spoil) -> bytes:
        masked = self._direction == UP
        payload, bits, length = frame.payload, 0, None
        if how == "half":
            payload = payload[:3] if frame.opcode == BINARY else payload[: len(payload) // 2]
        elif how == "cut":
            payload, length = payload[: len(payload) // 2], len(payload)
        elif how == "utf8":
            payload = b"\xff\xfe" + payload[2:]
        else:
            bits = 0x70
        return build(frame.opcode, payload, masked=masked, bits=bits, length=length)

    async def _write(self) -> None:
        try:
            while (item := await self._queue.get()) is not None:
                await self._write_item(*item)
            await self.flowing.wait()
            self.end()
        except OSError:
            self._writer.transport.abort()

    async def _write_item(self, due: float, data: bytes, frame: WsFrame | None, fate: Fate) -> None:
        rate = self._rules.bandwidth[self._direction]
        wait = max(due - self._loop.time(), len(data) / rate if rate else 0.0)
        if wait > 0 or not self.flowing.is_set():
            self._link.was_slow = True
            await asyncio.sleep(max(0.0, wait))
            await self.flowing.wait()
        if self._is_ended:
            return
        self._writer.write(data)
        if frame is not None:
            self._link.watch(self._direction, frame, fate)
        await self._writer.drain()

"""A TCP proxy that knows WebSocket frames and can simulate all faults of a network.

    client  ── up ──▶  proxy  ── up ──▶  server
            ◀─ down ─         ◀─ down ─

Settings of the proxy (latency, bandwidth, stall) apply to present and later links. Actions (reset,
close, inject) apply to the present links. Frames are passed on whole and in order, and the end of
the stream follows them, unless a fault says otherwise.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from .pipe import DOWN, UP, Direction, Fate, Pipe, Spoil, reset
from .wsframes import CLOSE, WsFrame, build

__all__ = ["DOWN", "UP", "FaultProxy", "ProxyLink", "Watcher"]

Refusal = Literal["reset", "hang"] | int
Watcher = Callable[["ProxyLink", Direction, WsFrame, Fate], None]
"""Called for every frame that is written: link, direction, frame, fate."""

EXTENSIONS = re.compile(rb"(?im)^sec-websocket-extensions:.*\r\n")


class ProxyLink:
    """A connection through the proxy."""

    def __init__(self, proxy: FaultProxy, number: int, client: asyncio.StreamWriter) -> None:
        self.number = number
        self.proxy = proxy
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.pipes: dict[Direction, Pipe] = {}
        self.was_slow = False
        """True if frames were delayed here, so that the two ends may have different knowledge."""

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Pass bytes both ways until both ends are gone."""
        upstream, self.server = await asyncio.open_connection("127.0.0.1", self.proxy.port_behind)
        up = Pipe(self, UP, reader, self.server)
        down = Pipe(self, DOWN, upstream, self.client)
        self.pipes = {UP: up, DOWN: down}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(up.run())
                group.create_task(down.run())
        finally:
            self.client.transport.abort()
            self.server.transport.abort()

    def filter_head(self, head: bytes) -> bytes:
        """Refuse compression, so that the proxy can read every frame."""
        return EXTENSIONS.sub(b"", head)

    def watch(self, direction: Direction, frame: WsFrame, fate: Fate) -> None:
        """A frame has been written."""
        if self.proxy.watcher is not None:
            self.proxy.watcher(self, direction, frame, fate)

    # -- what can be done to it ----------------------------------------------------------

    def reset(self) -> None:
        """Send an RST to both sides; unread data is lost."""
        for pipe in self.pipes.values():
            pipe.flowing.set()
        for writer in (self.client, self.server):
            if writer is not None:
                reset(writer)

    def fin(self) -> None:
        """End the stream to the client without a close frame, and drop the server."""
        if DOWN in self.pipes:
            self.pipes[DOWN].end()
        if self.server is not None:
            reset(self.server)

    def close(self, code: int | None, reason: bytes = b"") -> None:
        """Write a close frame to the client that the server never sent, then drop the server."""
        content = b"" if code is None else struct.pack("!H", code) + reason
        self.inject(DOWN, CLOSE, content)
        if self.server is not None:
            reset(self.server)

    def inject(self, direction: Direction, opcode: int, payload: bytes, bits: int = 0) -> None:
        """Write a frame of our own behind those under way."""
        raw = build(opcode, payload, masked=direction == UP, bits=bits)
        pipe = self.pipes.get(direction)
        if pipe is not None:
            pipe.put(WsFrame(opcode, payload, raw), "injected")


class FaultProxy:
    """Listens on ``port`` and passes everything on to ``port_behind``."""

    def __init__(self, port_behind: int) -> None:
        self.port_behind = port_behind
        self.port = 0
        self.links: list[ProxyLink] = []
        """The links that are alive, oldest first."""
        self.made = 0
        self.watcher: Watcher | None = None
        self.latency: dict[Direction, float] = {UP: 0.0, DOWN: 0.0}
        self.bandwidth: dict[Direction, float] = {UP: 0.0, DOWN: 0.0}
        """Bytes a second; 0 is no limit."""
        self.spoils: dict[Direction, list[Spoil]] = {UP: [], DOWN: []}
        self.refusal: Refusal | None = None
        self._is_stalled: dict[Direction, bool] = {UP: False, DOWN: False}
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    async def __aenter__(self) -> FaultProxy:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop_listening()
        for link in list(self.links):
            link.reset()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        if self._errors:
            raise BaseExceptionGroup("the proxy itself failed", self._errors)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(self._serve(reader, writer))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusal is not None:
            await self._refuse(reader, writer, self.refusal)
            return
        self.made += 1
        link = ProxyLink(self, self.made, writer)
        self.links.append(link)
        try:
            await link.run(reader)
        except* OSError:
            reset(writer)
        finally:
            self.links.remove(link)

    async def _refuse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, how: Refusal
    ) -> None:
        try:
            if how == "reset":
                reset(writer)
            elif how == "hang":
                await reader.read()
            else:
                await reader.readuntil(b"\r\n\r\n")
                line = f"HTTP/1.1 {how} Refused\r\n"
                writer.write(f"{line}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    # -- faults --------------------------------------------------------------------------

    async def vanish(self) -> None:
        """Begin an outage: reset every link and refuse new ones."""
        self._stop_listening()
        self.reset()

    async def heal(self) -> None:
        """End all faults; links that are broken stay broken."""
        for direction in (UP, DOWN):
            self.latency[direction] = self.bandwidth[direction] = 0.0
            self.spoils[direction].clear()
        self.refusal = None
        self.resume()
        if self._listener is None:
            await self._listen()

    def reset(self) -> None:
        """RST to both sides of every link."""
        for link in list(self.links):
            link.reset()

    def fin(self) -> None:
        """End every link without a close frame."""
        for link in list(self.links):
            link.fin()

    def close(self, code: int | None, reason: bytes = b"") -> None:
        """Close every link with this code."""
        for link in list(self.links):
            link.close(code, reason)

    def inject(self, direction: Direction, opcode: int, payload: bytes, bits: int = 0) -> None:
        """Write this frame to every link."""
        for link in list(self.links):
            link.inject(direction, opcode, payload, bits)

    def spoil(self, direction: Direction, how: Spoil) -> None:
        """Do this to the next data frame in this direction."""
        self.spoils[direction].append(how)

    def stall(self, *directions: Direction, new: bool = True) -> None:
        """Pass nothing on, in both directions or in one; sockets stay open. ``new``: later links
        stall, too.
        """
        for direction in directions or (UP, DOWN):
            self._is_stalled[direction] = new
            for link in self.links:
                if direction in link.pipes:
                    link.pipes[direction].flowing.clear()

    def resume(self) -> None:
        """End every stall and pass the held frames on."""
        for direction in (UP, DOWN):
            self._is_stalled[direction] = False
            for link in self.links:
                if direction in link.pipes:
                    link.pipes[direction].flowing.set()

    def is_stalled(self, direction: Direction) -> bool:
        """Returns True if a new link begins stalled."""
        return self._is_stalled[direction]

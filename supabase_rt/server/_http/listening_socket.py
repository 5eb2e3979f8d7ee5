"""The listening socket, and the transport of each connection between it and aiohttp."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .._machine.intake import Inflow, Intake
from .._machine.memory_bounds import MAX_HEADERS
from ..settings import Settings
from .turns import Turns, Usage

__all__ = ["Doorway", "Flow", "attend"]

SWEEP = 1.0
"""Seconds between two looks at what takes too long."""
SPARE_FILES = 64
"""Open files that are not connections: the database's, the log, the program around the server."""
PIECE = 16_384
"""Bytes that are read from a connection at once."""
LITTLE = 1_024
FEEDING = 0.005
"""Seconds of parsing in one turn of the loop."""
REQUEST = 0.001
"""Seconds of a request, about, by which floods of them are recognized."""
FEW_REQUESTS = 0.03
HANDED_ON = (
    "close",
    "get_extra_info",
    "get_protocol",
    "get_write_buffer_limits",
    "get_write_buffer_size",
    "is_closing",
    "is_reading",
    "set_protocol",
    "set_write_buffer_limits",
    "write",
    "writelines",
)


class Flow(asyncio.Transport):
    """The transport as aiohttp sees it: reading is on only while both sides want it.

    Everything else is the method of the transport itself, because it is on the path of each frame.
    """

    def __init__(self, transport: asyncio.Transport, intake: Intake) -> None:
        super().__init__()
        self._transport = transport
        self._intake = intake
        self._paused = self._held = self._fed_later = False
        self.inflow: Inflow | None = None
        self.received = 0
        """Bytes so far."""
        self.writable: asyncio.Event = asyncio.Event()
        """Whether the write buffer is below its high-water mark."""
        self.writable.set()
        self.lost = False
        """Whether the connection is gone."""
        self.on_lost: Callable[[], None] = lambda: None
        """Called when it is."""
        for name in HANDED_ON:
            setattr(self, name, getattr(transport, name))

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def pause_reading(self) -> None:
        """Stop reading, as aiohttp asks."""
        self._paused = True
        self._set()

    def resume_reading(self) -> None:
        """Read again, as aiohttp asks."""
        self._paused = False
        self._set()

    def hold(self) -> None:
        """Stop reading, as the intake asks."""
        self._held = True
        self._set()

    def go_on(self) -> None:
        """Read again, as the intake asks."""
        self._held = False
        self._set()

    def feed_later(self, later: bool) -> None:
        """Read nothing more while something is read that waits."""
        self._fed_later = later
        self._set()

    def _set(self) -> None:
        wanted = not (self._paused or self._held or self._fed_later)
        with contextlib.suppress(RuntimeError):
            if wanted and not self._transport.is_reading():
                self._transport.resume_reading()
            elif not wanted and self._transport.is_reading():
                self._transport.pause_reading()

    def upgrade(self, kept: Callable[[], bool]) -> None:
        """Note that a WebSocket begins."""
        if self.inflow is not None:
            self._intake.upgrade(self.inflow, kept, time.monotonic())

    def complete(self, size: int, *, waited: bool, later: int) -> None:
        """Note that a message of the client was taken, and how many bytes came since it did."""
        if self.inflow is not None:
            now = time.monotonic()
            self._intake.complete(self.inflow, size, now, waited=waited, later=later)

    def ask(self, body_done: Callable[[], bool]) -> None:
        """Note that a request has begun."""
        if self.inflow is not None:
            self._intake.ask(self.inflow, body_done, time.monotonic())

    def answer(self) -> None:
        """Note that a request was answered."""
        if self.inflow is not None:
            self._intake.answer(self.inflow, time.monotonic())


class _Feeding:
    """Parsing what came, for so long in one turn of the loop, and the rest in the next ones.

    A quarter of a megabyte of empty frames takes aiohttp as long as a hundred clients may wait.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._waiting: collections.deque[tuple[Flow, asyncio.Protocol, bytes]] = collections.deque()
        self._next_turn: asyncio.Handle | None = None

    def feed(self, flow: Flow, inner: asyncio.Protocol, data: bytes) -> None:
        """Parse now or soon. A little is parsed at once, whoever else has sent how much."""
        if len(data) > LITTLE and self._spent > FEEDING:
            self._waiting.append((flow, inner, data))
            flow.feed_later(True)
        else:
            self._feed(inner, data)

    def _feed(self, inner: asyncio.Protocol, data: bytes) -> None:
        began = time.perf_counter()
        inner.data_received(data)
        self._spent += time.perf_counter() - began
        if self._next_turn is None:
            self._next_turn = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._spent, self._next_turn = 0.0, None
        while self._waiting and self._spent <= FEEDING:
            flow, inner, data = self._waiting.popleft()
            if not flow.lost:
                flow.feed_later(False)
                self._feed(inner, data)


class _Guard(asyncio.Protocol):
    """Stands between a transport and the protocol of aiohttp, and counts what comes."""

    def __init__(self, inner: asyncio.Protocol, intake: Intake, feeding: _Feeding) -> None:
        self._inner = inner
        self._intake = intake
        self._feeding = feeding
        self._flow: Flow | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        flow = Flow(transport, self._intake)
        flow.inflow = self._intake.open(flow, time.monotonic())
        if flow.inflow is None:
            transport.abort()
            return
        self._flow = flow
        if hasattr(transport, "max_size"):
            # Pieces that are parsed in a moment, instead of a quarter of a megabyte.
            transport.max_size = PIECE
        self._inner.connection_made(flow)

    def data_received(self, data: bytes) -> None:
        flow = self._flow
        if flow is not None and flow.inflow is not None:
            flow.received += len(data)
            self._intake.receive(flow.inflow, len(data), time.monotonic())
            self._feeding.feed(flow, self._inner, data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._flow is not None else None

    def pause_writing(self) -> None:
        if self._flow is not None:
            self._flow.writable.clear()
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._flow is not None:
            self._flow.writable.set()
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        flow = self._flow
        if flow is not None and flow.inflow is not None:
            self._intake.close(flow.inflow)
            flow.writable.set()
            flow.lost = True
            self._inner.connection_lost(exc)
            flow.on_lost()


def attend(turns: Turns) -> Middleware:
    """Tell the intake of each request, and refuse one whose headers are too much to keep.

    A flood of requests, by many connections perhaps, is answered one after the other.
    """
    usage = Usage()

    @web.middleware
    async def attend_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        flow = request.transport
        if not isinstance(flow, Flow):
            return await handler(request)
        flow.ask(request.content.is_eof)
        try:
            now = time.monotonic()
            if usage.at(now) > FEW_REQUESTS:
                await turns.wait(usage)
            usage.count(REQUEST, now)
            if sum(len(name) + len(value) for name, value in request.raw_headers) > MAX_HEADERS:
                return web.Response(status=431)
            return await handler(request)
        finally:
            flow.answer()

    return attend_request


class Doorway:
    """Listens, and ends what takes too long."""

    def __init__(self, settings: Settings) -> None:
        self._intake = Intake(settings)
        self._feeding = _Feeding()
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._intake.most_connections = _possible(settings.max_connections)

    async def open(self, inner: Callable[[], Any], host: str, port: int) -> int:
        """Listen; the port. Raises ``OSError`` where it is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Guard(inner(), self._intake, self._feeding),
            host,
            port,
            reuse_address=True,
            backlog=128,
        )
        self._sweep(loop)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more; what is connected stays."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeping = loop.call_later(SWEEP, self._sweep, loop)
        self._intake.sweep(time.monotonic())


def _possible(wanted: int | None) -> int | None:
    """As many connections as wanted, and as the process may have open files.

    At the end of its files a server hears nobody, neither the new nor those who would make room.
    """
    if wanted is None or sys.platform == "win32":
        return wanted
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files - SPARE_FILES))

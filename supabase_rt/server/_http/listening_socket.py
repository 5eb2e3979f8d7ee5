"""The listening socket, and the transport between each of its connections and aiohttp."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .._machine.intake import Inflow, Intake
from .._machine.memory_bounds import MAX_HEADERS
from ..settings import Settings
from .turns import Turns, Usage

__all__ = ["Doorway", "Flow", "attend"]

SWEEP = 1.0
"""Seconds between two searches for connections that take too long."""
SPARE_FILES = 64
"""Open files that are not connections: files of the database, the log and the program.
"""
PIECE = 16_384
"""Bytes that are read from a connection at once."""
LITTLE = 1_024
FEEDING = 0.001
"""Seconds of parsing in one turn of the loop."""
ACCEPTED = 16
"""Connections that are accepted in one turn of the loop."""
BACKLOG = 4_096
"""Connections that may wait to be accepted; the system allows less. A client that finds no room
tries again after a second."""
REQUEST = 0.001
"""The assumed cost of one request in seconds; it makes floods of requests recognizable."""
FEW_REQUESTS = 0.03
ALL_REQUESTS = 8
"""The weight of all requests together when turns are given, in clients."""


class Flow(asyncio.Transport):
    """The transport as aiohttp sees it: it reads only while both sides want it to.

    The methods ``write`` and ``is_closing``, called for each frame, are those of the transport
    itself.
    """

    __slots__ = (
        "_drained",
        "_fed_later",
        "_held",
        "_intake",
        "_paused",
        "_transport",
        "inflow",
        "is_blocked",
        "is_closing",
        "lost",
        "on_lost",
        "received",
        "write",
    )

    def __init__(self, transport: asyncio.Transport, intake: Intake) -> None:
        super().__init__()
        self._transport = transport
        self._intake = intake
        self._paused = self._held = self._fed_later = False
        self._drained: asyncio.Future[None] | None = None
        self.inflow: Inflow | None = None
        self.received = 0
        """Bytes so far."""
        self.is_blocked = False
        """True if the write buffer is above its high-water mark."""
        self.lost = False
        """True if the connection is gone."""
        self.on_lost: Callable[[], None] | None = None
        """Called when it is."""
        for name in ("is_closing", "write"):
            setattr(self, name, getattr(transport, name))

    def close(self) -> None:
        """See ``asyncio.Transport``."""
        self._transport.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See ``asyncio.Transport``."""
        return self._transport.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """See ``asyncio.Transport``."""
        return self._transport.get_protocol()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """See ``asyncio.Transport``."""
        return self._transport.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """See ``asyncio.Transport``."""
        return self._transport.get_write_buffer_size()

    def is_reading(self) -> bool:
        """See ``asyncio.Transport``."""
        return self._transport.is_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See ``asyncio.Transport``."""
        self._transport.set_protocol(protocol)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See ``asyncio.Transport``."""
        self._transport.set_write_buffer_limits(high, low)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """See ``asyncio.Transport``."""
        self._transport.writelines(list_of_data)

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    async def drained(self) -> None:
        """Wait until the write buffer is below its high-water mark, or the connection is gone."""
        while self.is_blocked and not self.lost:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def block(self, blocked: bool) -> None:
        """Note whether the write buffer is above its high-water mark."""
        self.is_blocked = blocked
        self._wake()

    def lose(self) -> None:
        """Note that the connection is gone."""
        self.lost = True
        self._wake()
        if self.on_lost is not None:
            self.on_lost()

    def _wake(self) -> None:
        waiter, self._drained = self._drained, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

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
        """Read nothing more while bytes of this connection wait to be parsed."""
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
        """Note that a message of the client was taken; ``later`` bytes came after it was
        complete.
        """
        if self.inflow is not None:
            now = time.monotonic()
            self._intake.complete(self.inflow, size, now, waited=waited, later=later)

    def ask(self, body_done: Callable[[], bool]) -> None:
        """Note that a request has begun."""
        if self.inflow is not None:
            self._intake.ask(self.inflow, body_done, time.monotonic())

    def answer(self, size: int | None) -> None:
        """Note that a request was answered; its ``size`` is in bytes, None if not known."""
        if self.inflow is not None:
            self._intake.answer(self.inflow, time.monotonic(), size)


class _Feeding:
    """Limits the time for parsing received bytes in one turn of the loop; the rest follows in later
    turns.

    aiohttp takes 100 ms for a quarter of a megabyte of empty frames, and all clients would wait.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._waiting: collections.deque[tuple[Flow, asyncio.Protocol, bytes]] = collections.deque()
        self._next_turn: asyncio.Handle | None = None

    def feed(self, flow: Flow, inner: asyncio.Protocol, data: bytes) -> None:
        """Parse now or soon. A few bytes are parsed at once, however much others have sent."""
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
    """Stands between a transport and the protocol of aiohttp, and counts received bytes."""

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
            # Small pieces are parsed in a moment; the default is a quarter of a megabyte.
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
            self._flow.block(True)
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._flow is not None:
            self._flow.block(False)
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        flow = self._flow
        if flow is not None and flow.inflow is not None:
            self._intake.close(flow.inflow)
            self._inner.connection_lost(exc)
            flow.lose()


def attend(turns: Turns) -> Middleware:
    """Tell the intake of each request, and refuse a request whose headers are too large to keep.

    Floods of requests, perhaps by many connections, are answered one by one, the newest first.
    """
    requests = Usage(ALL_REQUESTS)

    @web.middleware
    async def attend_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        flow = request.transport
        if not isinstance(flow, Flow):
            return await handler(request)
        flow.ask(request.content.is_eof)
        try:
            now = time.monotonic()
            if requests.at(now) > FEW_REQUESTS:
                await turns.wait(requests)
                if flow.lost:
                    return web.Response(status=503)
            requests.count(REQUEST, now)
            turns.spend(REQUEST)
            if sum(len(name) + len(value) for name, value in request.raw_headers) > MAX_HEADERS:
                return web.Response(status=431)
            return await handler(request)
        finally:
            flow.answer(_size(request))

    return attend_request


def _size(request: web.Request) -> int | None:
    """Returns the bytes of a request in the usual form; None if its body comes in chunks."""
    if "Transfer-Encoding" in request.headers:
        return None
    line = len(request.method) + len(request.raw_path) + len("  HTTP/1.1\r\n\r\n")
    headers = sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
    return line + headers + request.content.total_bytes


class Doorway:
    """Listens, and ends connections that take too long."""

    def __init__(self, settings: Settings) -> None:
        self._intake = Intake(settings)
        self._feeding = _Feeding()
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._next_sweep = 0.0
        self._intake.most_connections = _possible(settings.max_connections)

    async def open(self, inner: Callable[[], Any], host: str, port: int) -> int:
        """Listen, and return the port. Raises ``OSError`` if it is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Guard(inner(), self._intake, self._feeding),
            host,
            port,
            reuse_address=True,
            backlog=ACCEPTED,
        )
        for each in self._server.sockets:
            with each.dup() as listening:
                listening.listen(BACKLOG)
        self._next_sweep = loop.time()
        self._sweep(loop)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more; connections stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        late = loop.time() - self._next_sweep
        self._next_sweep = loop.time() + SWEEP
        self._sweeping = loop.call_at(self._next_sweep, self._sweep, loop)
        if late < SWEEP:
            # If the process stood still, it must first read what its clients sent meanwhile.
            self._intake.sweep(time.monotonic())


def _possible(wanted: int | None) -> int | None:
    """Returns ``wanted``, or fewer if the process may not have so many open files.

    A server without a free file descriptor accepts nobody, not even to refuse the connection.
    """
    if wanted is None or sys.platform == "win32":
        return wanted
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files - SPARE_FILES))

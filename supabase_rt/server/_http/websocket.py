"""One WebSocket of the server: moves frames between aiohttp and a session."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

from .._machine.memory_bounds import size_of
from .._machine.outgoing import NO_CODE, Close, Frame
from .._machine.server_channel import ServerChannel
from .._machine.server_session import Session
from .._machine.server_state import Backend, logger
from .listening_socket import Flow
from .turns import SLICE, Usage

__all__ = ["Socket"]

MOST_PONGS = 16
"""Of a flood of pings only the latest are answered."""
IN_A_ROW = 20
"""Messages after which a client that needs no turn lets others be heard."""
MESSAGE = 0.00001
"""Seconds to take a message, besides what it asks for."""
LARGE = 65_536
"""Bytes of a frame that is written in slices of that size."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes closing a reset instead of an orderly end."""


class Socket:
    """Reads in the task of the request handler, writes in a task of its own.

    Two tasks, because a client that stops reading must not keep the server from hearing it.
    """

    def __init__(
        self,
        ws: web.WebSocketResponse[bool],
        transport: asyncio.Transport,
        backend: Backend,
        vsn: str,
        token: str,
        number: int,
        headers: Mapping[str, str],
    ) -> None:
        self.number = number
        self.done: asyncio.Event = asyncio.Event()
        self._ws = ws
        self._transport = transport
        self._backend = backend
        self._loop = asyncio.get_running_loop()
        self._queue: collections.deque[tuple[float, Frame | Close | str | bytes]]
        self._queue = collections.deque()
        self._waiting_bytes = 0
        self._pongs: collections.deque[bytes] = collections.deque(maxlen=MOST_PONGS)
        self._usage = Usage()
        self._turn_ends = 0.0
        self._in_a_row = 0
        self._large: str | bytes | None = None
        self._decided = asyncio.Event()
        """Set whenever no join is undecided: only then frames of the client are taken."""
        self._whole = asyncio.Event()
        """Set whenever no frame is written in part."""
        self._whole.set()
        self._written = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._armed: float | None = None
        self._session = Session(
            backend,
            vsn,
            token,
            now=time.time(),
            number=number,
            headers=headers,
            wake=self._collect,
        )

    # -- the life of the socket --------------------------------------------------------

    async def run(self) -> None:
        """Serve until the socket is gone."""
        name = f"supabase_rt server: writer of socket {self.number}"
        writer = self._loop.create_task(self._write(), name=name)
        self._backend.faults.links[self.number] = self
        self._backend.readers[self.number] = self
        self._backend.turns.clients += 1
        if isinstance(self._transport, Flow):
            self._transport.upgrade(lambda: bool(self._session.channels))
            self._transport.on_lost = self._decided.set
        try:
            await self._read()
        finally:
            self._closing = True
            self._backend.turns.clients -= 1
            self._backend.readers.pop(self.number, None)
            self._backend.faults.links.pop(self.number, None)
            self._session.end()
            self._forget_queue()
            for timer in (self._timer, self._patience):
                if timer is not None:
                    timer.cancel()
            writer.cancel()
            await asyncio.wait([writer])
            self.done.set()

    async def _read(self) -> None:
        self._arm()
        flow = self._transport if isinstance(self._transport, Flow) else None
        while True:
            before = flow.received if flow is not None else 0
            message = await self._ws.receive()
            arrived = flow.received if flow is not None else 0
            # After the receive: what came while the socket was stalled is not answered yet.
            await self._flowing.wait()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await self._decision()
                await self._its_turn()
                if not self._closing:
                    self._take(message.type, message.data)
                if flow is not None:
                    later = flow.received - arrived
                    flow.complete(len(message.data), waited=arrived != before, later=later)
            elif message.type is WSMsgType.PING:
                await self._its_turn()
                self._backend.turns.count(self._usage, MESSAGE, self._loop.time())
                self._session.touch(time.time())
                self._pongs.append(message.data)
                self._written.set()
            elif message.type is WSMsgType.PONG:
                await self._its_turn()
                self._session.touch(time.time())
            else:
                if message.type is WSMsgType.CLOSE and not self._closing:
                    await self._echo(message.data)
                return

    async def _decision(self) -> None:
        """Wait while a join is undecided.

        What the client sends meanwhile fills its own buffers, and none of ours.
        """
        flow = self._transport
        while self._session.busy and not self._closing:
            if isinstance(flow, Flow) and flow.lost:
                return
            self._decided.clear()
            await self._decided.wait()

    async def _its_turn(self) -> None:
        """Wait, after much work for this client, while others are heard."""
        now = self._loop.time()
        if now > self._turn_ends:
            if not self._backend.turns.is_light(self._usage, now):
                await self._backend.turns.wait(self._usage)
            elif self._in_a_row > IN_A_ROW:
                await asyncio.sleep(0)
            now = self._loop.time()
            self._turn_ends = now + SLICE
            self._in_a_row = 0
        self._in_a_row += 1

    def _take(self, kind: WSMsgType, data: bytes) -> None:
        began = self._loop.time()
        # Bad UTF-8 costs the client its frame, not its socket: the decoder finds the surrogates.
        text = data.decode("utf-8", "surrogateescape") if kind is WSMsgType.TEXT else data
        self._guarded(lambda: self._session.receive(text, time.time()))
        now = self._loop.time()
        self._backend.turns.count(self._usage, MESSAGE + now - began, now)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Whatever goes wrong costs this socket, and no other."""
        try:
            action()
        except Exception:
            logger.exception("socket %d failed and is closed", self.number)
            self.close(1011)
        if self._timer is None or self._session.deadline != self._armed:
            # Most frames change no deadline, and setting a timer costs more than such a frame.
            self._arm()

    async def _echo(self, code: int) -> None:
        self._closing = True
        with contextlib.suppress(TimeoutError):
            # A close frame in the middle of another would be read as a part of it.
            async with asyncio.timeout(self._backend.settings.close_timeout):
                await self._whole.wait()
        if self._whole.is_set():
            await self._ws.close(code=code or 1000, drain=False)

    def _arm(self) -> None:
        if self._closing:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._armed = self._session.deadline
        if deadline is not None:
            # Not the whole way at once: a token of ten years is more than a timer may hold.
            delay = min(max(0.0, deadline - time.time()), 3600.0)
            self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._guarded(lambda: self._session.advance(time.time()))

    # -- writing -----------------------------------------------------------------------

    def _collect(self) -> None:
        """Take over what the session has to say."""
        outbox = self._session.outbox
        while outbox:
            self._put(outbox.popleft())
        if not self._session.busy:
            self._decided.set()
        if self._session.deadline != self._armed:
            # What a database answered came by itself, and may have set a deadline.
            self._arm()

    def _put(self, item: Frame | Close | str | bytes) -> None:
        if self._closing:
            return
        size = _size(item)
        self._queue.append((self._loop.time(), item))
        self._waiting_bytes += size
        self._written.set()
        if isinstance(item, Close):
            # The end does not wait for a client that has ceased to read what is ahead of it.
            self._hang_up_soon(self._backend.faults.latency)
        if self._waiting_bytes > self._backend.settings.max_buffer_size:
            self.cut()
        # Last, because it may cut this socket or another.
        self._backend.outgoing.add(size)

    async def _write(self) -> None:
        try:
            while True:
                await self._written.wait()
                self._written.clear()
                while self._queue or self._pongs:
                    while self._pongs:
                        await self._flowing.wait()
                        await self._ws.pong(self._pongs.popleft())
                    if self._queue:
                        await self._write_next()
        except (ConnectionError, aiohttp.ClientError):
            self._transport.abort()
        except Exception:
            logger.exception("socket %d cannot be written to and is cut", self.number)
            self._transport.abort()

    async def _write_next(self) -> None:
        since, item = self._queue[0]
        await self._flowing.wait()
        delay = since + self._backend.faults.latency - self._loop.time()
        if delay > 0:
            await asyncio.sleep(delay)
        if not self._queue or self._queue[0][1] is not item:
            # Closed while this waited: the queue holds the close frame now.
            return
        if isinstance(item, Close):
            self._queue.popleft()
            if item.code == NO_CODE:
                self.cut()
            else:
                await self._write_close(item)
            return
        data = self._backend.faults.apply(item) if isinstance(item, Frame) else item
        self._queue.popleft()
        size = _size(item)
        self._waiting_bytes -= size
        self._backend.outgoing.take(size)
        if data is None:
            return
        if len(data) > LARGE and isinstance(self._transport, Flow):
            await self._write_large(self._transport, data)
        elif isinstance(data, str):
            await self._ws.send_str(data)
        else:
            await self._ws.send_bytes(data)

    async def _write_large(self, flow: Flow, data: str | bytes) -> None:
        """Write a frame in slices.

        In one piece each client that does not read would have a copy of it in its buffer, and a
        frame for a thousand clients would keep all others waiting.
        """
        first = 0x81 if isinstance(data, str) else 0x82
        size = len(_encoded(data))
        self._large = data
        self._whole.clear()
        try:
            flow.write(struct.pack("!BBQ", first, 127, size))
            for start in range(0, len(data), LARGE):
                part = _encoded(data[start : start + LARGE])
                await flow.writable.wait()
                if flow.lost:
                    raise ConnectionResetError("the connection is lost")
                flow.write(part)
                await asyncio.sleep(0)
        finally:
            self._large = None
        self._whole.set()

    async def _write_close(self, close: Close) -> None:
        self._closing = True
        # Not ws.close(): it ends the transport without waiting for the client's answer, and what
        # the client sent meanwhile would turn the end into a reset that eats the close frame.
        content = struct.pack("!H", close.code) + close.reason.encode()
        await self._ws.send_frame(content, WSMsgType.CLOSE)
        self._hang_up_soon()

    def _hang_up_soon(self, later: float = 0.0) -> None:
        if self._patience is not None:
            self._patience.cancel()
        timeout = self._backend.settings.close_timeout + later
        self._patience = self._loop.call_later(timeout, self._hang_up)

    def _hang_up(self) -> None:
        if self._flowing.is_set():
            self._transport.abort()
        else:
            self._hang_up_soon()

    # -- what the faults do to it ------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Bytes that wait for the client to read them."""
        return self._waiting_bytes + self._session.held_back_bytes

    def unread(self) -> Iterable[str | bytes]:
        """The frames that wait for the client to read them."""
        for _, item in self._queue:
            if not isinstance(item, Close):
                yield item.data if isinstance(item, Frame) else item
        yield from self._session.held_back()
        if self._large is not None:
            yield self._large

    def _forget_queue(self) -> None:
        self._queue.clear()
        self._backend.outgoing.take(self._waiting_bytes)
        self._waiting_bytes = 0

    def cut(self) -> None:
        """Reset the TCP connection."""
        self._closing = True
        self._decided.set()
        self._forget_queue()
        found = self._transport.get_extra_info("socket")
        if found is not None and found.fileno() != -1:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._transport.abort()
        self._flowing.set()

    def close(self, code: int, reason: str = "", *, flush: bool = False) -> None:
        """Begin the closing handshake, ahead of what waits to be written, or after it."""
        if self._closing:
            return
        if not flush:
            self._forget_queue()
        self._put(Close(code, reason))
        self._closing = True
        self._decided.set()
        self._flowing.set()

    def stall(self) -> None:
        """Neither read nor write until ``resume``."""
        self._flowing.clear()

    def resume(self) -> None:
        """Read and write again."""
        self._flowing.set()

    def send_raw(self, data: str | bytes) -> None:
        """Write a frame as it is."""
        self._put(data)

    def describe(self) -> dict[str, Any]:
        """What the status page shows of it."""
        peer = self._transport.get_extra_info("peername") or ("?",)
        return {
            "number": self.number,
            "peer": str(peer[0]),
            "vsn": self._session.vsn,
            "channels": [channel.describe() for channel in self._session.channels.values()],
        }

    def channels(self) -> Iterable[ServerChannel]:
        """The channels joined on this socket."""
        return list(self._session.channels.values())


def _encoded(data: str | bytes) -> bytes:
    return data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data


def _size(item: Frame | Close | str | bytes) -> int:
    if isinstance(item, Close):
        return 0
    return size_of(item.data if isinstance(item, Frame) else item)

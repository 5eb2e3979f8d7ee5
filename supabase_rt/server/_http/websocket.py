"""One WebSocket of the server: moves frames between aiohttp and a session."""

from __future__ import annotations

import asyncio
import collections
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import aiohttp
from aiohttp import WSMsgType, web

from .._machine.memory_bounds import size_of
from .._machine.outgoing import LARGE, NO_CODE, Close, OutgoingFrame, Text
from .._machine.server_channel import ServerChannel
from .._machine.server_session import ServerSession
from .._machine.server_state import Backend, logger
from .listening_socket import Flow
from .turns import SLICE, Usage

__all__ = ["Socket"]

MOST_PONGS = 16
"""The most pings that wait for an answer; in a flood only the latest ones are answered."""
IN_A_ROW = 20
"""The number of messages after which a client without a turn lets the others go first."""
MESSAGE = 0.00001
"""Seconds to take a message, without the work that the message causes."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes closing a reset instead of an orderly end."""


_Item: TypeAlias = OutgoingFrame | Close | str | bytes


class Socket:
    """Reads in the task of the request handler, writes in a task of its own.

    Two tasks are needed: if a client stops reading, the server must still read from it.
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
        self._ws = ws
        self._transport = transport
        self._backend = backend
        self._loop = asyncio.get_running_loop()
        # Many of these objects are made only when needed, because most sockets of a server are
        # idle.
        self._queue: collections.deque[tuple[float, _Item]] | None = None
        self._waiting_bytes = 0
        self._pongs: collections.deque[bytes] | None = None
        self._usage = Usage()
        self._turn_ends = 0.0
        self._in_a_row = 0
        self._large: str | bytes | None = None
        self._decided: asyncio.Future[None] | None = None
        """The reader waits for this while a join is undecided."""
        self._whole: asyncio.Event | None = None
        """An event that is set while no frame is partly written; None before the first such
        frame.
        """
        self._news: asyncio.Future[None] | None = None
        """The writer waits for this while there is nothing to write."""
        self._flowing: asyncio.Event | None = None
        """An event that is set unless the socket is stalled; None before the first stall."""
        self._done: asyncio.Future[None] | None = None
        self._is_over = False
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._armed: float | None = None
        self._session = ServerSession(
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
            self._transport.upgrade(self._has_joined)
            self._transport.on_lost = self._decide
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
            self._is_over = True
            if self._done is not None and not self._done.done():
                self._done.set_result(None)

    async def ended(self) -> None:
        """Wait until the socket is gone."""
        if not self._is_over:
            self._done = self._done or self._loop.create_future()
            await asyncio.shield(self._done)

    def _has_joined(self) -> bool:
        return bool(self._session.channels)

    async def _read(self) -> None:
        self._arm()
        flow = self._transport if isinstance(self._transport, Flow) else None
        while True:
            before = flow.received if flow is not None else 0
            message = await self._ws.receive()
            arrived = flow.received if flow is not None else 0
            # This comes after the receive: messages that came while the socket was stalled are not
            # answered yet.
            if self._flowing is not None:
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
                self._backend.turns.spend(MESSAGE)
                self._session.touch(time.time())
                if self._pongs is None:
                    self._pongs = collections.deque(maxlen=MOST_PONGS)
                self._pongs.append(message.data)
                self._tell_writer()
            elif message.type is WSMsgType.PONG:
                await self._its_turn()
                self._session.touch(time.time())
            else:
                if message.type is WSMsgType.CLOSE and not self._closing:
                    await self._echo(message.data)
                return

    async def _decision(self) -> None:
        """Wait while a join is undecided.

        Frames that the client sends meanwhile fill the buffers of the client, and none of ours.
        """
        flow = self._transport
        while self._session.busy and not self._closing:
            if isinstance(flow, Flow) and flow.lost:
                return
            self._decided = self._loop.create_future()
            await self._decided

    def _decide(self) -> None:
        waiter, self._decided = self._decided, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _its_turn(self) -> None:
        """After much work for this client, wait while others are heard."""
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
        text: str | bytes = data
        if kind is WSMsgType.TEXT:
            # Bad UTF-8 costs the client only this frame and not its socket, because the decoder
            # finds it.
            large = len(data) > LARGE
            text = Text(data) if large else data.decode("utf-8", "surrogateescape")
        self._guarded(lambda: self._session.receive(text, time.time()))
        now = self._loop.time()
        spent, turns = MESSAGE + now - began, self._backend.turns
        turns.count(self._usage, spent, now)
        turns.spend(spent)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run an action; if it fails, this socket is closed, and no other."""
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
        try:
            async with asyncio.timeout(self._backend.settings.close_timeout):
                # A close frame in the middle of another would be read as a part of it.
                if self._whole is not None:
                    await self._whole.wait()
                await self._ws.close(code=code or 1000, drain=False)
        except TimeoutError:
            # The client does not read, and aiohttp waits for room before it writes a close frame.
            self._transport.abort()

    def _arm(self) -> None:
        if self._closing:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._armed = self._session.deadline
        if deadline is not None:
            # The delay is limited: a token may live for ten years, which is more than a timer can
            # hold.
            delay = min(max(0.0, deadline - time.time()), 3600.0)
            self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._guarded(lambda: self._session.advance(time.time()))

    # -- writing -----------------------------------------------------------------------

    def _collect(self) -> None:
        """Take the frames that the session wants to write."""
        outbox = self._session.outbox
        while outbox:
            self._put(outbox.popleft())
        if self._decided is not None and not self._session.busy:
            self._decide()
        if self._session.deadline != self._armed:
            # An answer of the database arrives outside of a frame, and may have set a deadline.
            self._arm()

    def _put(self, item: _Item) -> None:
        if self._closing:
            return
        size = _size(item)
        if self._queue is None:
            self._queue = collections.deque()
        self._queue.append((self._loop.time(), item))
        self._waiting_bytes += size
        if self._news is not None:
            self._tell_writer()
        if isinstance(item, Close):
            # The socket ends in time even if the client does not read the frames before the close.
            self._hang_up_soon(self._backend.faults.latency)
        if self._waiting_bytes > self._backend.settings.max_buffer_size:
            self.cut()
        # This comes last, because it may cut this socket or another.
        self._backend.outgoing.add(size)

    def _tell_writer(self) -> None:
        waiter, self._news = self._news, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _write(self) -> None:
        try:
            while True:
                while self._queue or self._pongs:
                    if self._pongs:
                        await self._backend.turns.slices.wait()
                    while self._pongs:
                        if self._flowing is not None:
                            await self._flowing.wait()
                        await self._ws.pong(self._pongs.popleft())
                    if self._queue:
                        await self._write_next(self._queue)
                self._news = self._loop.create_future()
                await self._news
        except (ConnectionError, aiohttp.ClientError):
            self._transport.abort()
        except Exception:
            logger.exception("socket %d cannot be written to and is cut", self.number)
            self._transport.abort()

    async def _write_next(
        self, queue: collections.deque[tuple[float, OutgoingFrame | Close | str | bytes]]
    ) -> None:
        since, item = queue[0]
        if self._flowing is not None:
            await self._flowing.wait()
        latency = self._backend.faults.latency
        if latency and (delay := since + latency - self._loop.time()) > 0:
            await asyncio.sleep(delay)
        if not queue or queue[0][1] is not item:
            # The socket was closed during the wait, so the queue holds the close frame now.
            return
        if isinstance(item, Close):
            queue.popleft()
            if item.code == NO_CODE:
                self.cut()
            else:
                await self._write_close(item)
            return
        data = self._backend.faults.apply(item) if isinstance(item, OutgoingFrame) else item
        queue.popleft()
        size = _size(item)
        self._waiting_bytes -= size
        self._backend.outgoing.take(size)
        if data is None:
            return
        if len(data) > LARGE and isinstance(self._transport, Flow):
            await self._write_large(self._transport, data)
        elif isinstance(data, str | Text):
            await self._ws.send_str(data if isinstance(data, str) else data.decode())
        else:
            await self._ws.send_bytes(data)

    async def _write_large(self, flow: Flow, data: str | bytes) -> None:
        """Write a frame in slices.

        In one piece, the buffer of each client that does not read would hold a copy. A frame for a
        thousand clients would also keep all others waiting.
        """
        first = 0x81 if isinstance(data, str | Text) else 0x82
        content = _encoded(data)
        self._large = content
        if self._whole is None:
            self._whole = asyncio.Event()
        self._whole.clear()
        try:
            flow.write(struct.pack("!BBQ", first, 127, len(content)))
            for start in range(0, len(content), LARGE):
                if flow.is_blocked:
                    await flow.drained()
                await self._backend.turns.slices.wait()
                if flow.lost:
                    raise ConnectionResetError("the connection is lost")
                flow.write(content[start : start + LARGE])
        finally:
            self._large = None
        self._whole.set()

    async def _write_close(self, close: Close) -> None:
        self._closing = True
        # ws.close() would end the transport without waiting for the client's answer. Data that the
        # client sent meanwhile would turn that end into a reset, and the close frame would be lost.
        content = struct.pack("!H", close.code) + close.reason.encode()
        await self._ws.send_frame(content, WSMsgType.CLOSE)
        self._hang_up_soon()

    def _hang_up_soon(self, later: float = 0.0) -> None:
        if self._patience is not None:
            self._patience.cancel()
        timeout = self._backend.settings.close_timeout + later
        self._patience = self._loop.call_later(timeout, self._hang_up)

    def _hang_up(self) -> None:
        if self._flowing is None or self._flowing.is_set():
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
        for _, item in self._queue or ():
            if not isinstance(item, Close):
                yield item.data if isinstance(item, OutgoingFrame) else item
        yield from self._session.held_back()
        if self._large is not None:
            yield self._large

    def _forget_queue(self) -> None:
        if self._queue is not None:
            self._queue.clear()
        self._backend.outgoing.take(self._waiting_bytes)
        self._waiting_bytes = 0

    def cut(self) -> None:
        """Reset the TCP connection."""
        self._closing = True
        self._decide()
        self._forget_queue()
        found = self._transport.get_extra_info("socket")
        if found is not None and found.fileno() != -1:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._transport.abort()
        self.resume()

    def close(self, code: int, reason: str = "", *, flush: bool = False) -> None:
        """Begin the closing handshake, before the waiting frames or, with ``flush``, after them."""
        if self._closing:
            return
        if not flush:
            self._forget_queue()
        self._put(Close(code, reason))
        self._closing = True
        self._decide()
        self.resume()

    def stall(self) -> None:
        """Neither read nor write until ``resume``."""
        if self._flowing is None:
            self._flowing = asyncio.Event()
        self._flowing.clear()

    def resume(self) -> None:
        """Read and write again."""
        if self._flowing is not None:
            self._flowing.set()

    def send_raw(self, data: str | bytes) -> None:
        """Write a frame as it is."""
        self._put(data)

    def describe(self) -> dict[str, Any]:
        """Returns the facts that the status page shows of the socket."""
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


def _size(item: OutgoingFrame | Close | str | bytes) -> int:
    if isinstance(item, Close):
        return 0
    return size_of(item.data if isinstance(item, OutgoingFrame) else item)

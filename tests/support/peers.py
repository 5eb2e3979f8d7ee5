"""Peers unlike any real server: they send the answers of a test, byte by byte."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import ssl as ssl_module
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

__all__ = ["HttpPeer", "RawPeer", "closed_port", "http_peer", "raw_peer"]

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass
class HttpPeer:
    """Answers every request with ``status`` and ``body``; remembers the requests."""

    url: str = ""
    status: int = 202
    body: bytes | str = b""
    reason: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(
            {
                "method": request.method,
                "path": request.rel_url.raw_path,
                "query": dict(request.query),
                "headers": dict(request.headers),
                "body": await request.read(),
            }
        )
        if self.hang:
            await self.released.wait()
        body = self.body.encode() if isinstance(self.body, str) else self.body
        return web.Response(status=self.status, body=body, reason=self.reason, headers=self.headers)


@asynccontextmanager
async def http_peer(
    *, ssl: ssl_module.SSLContext | None = None, **about: Any
) -> AsyncIterator[HttpPeer]:
    """An HTTP server that answers everything in the same way."""
    peer = HttpPeer(**about)
    runner = web.ServerRunner(web.Server(peer.handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl).start()
    peer.url = f"http{'s' if ssl else ''}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield peer
    finally:
        peer.released.set()
        await runner.cleanup()


class RawPeer:
    """One TCP connection after its WebSocket handshake, for frames that no library writes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.request = b""

    async def handshake(self, extra: bytes = b"") -> None:
        """Answer the upgrade."""
        self.request = await self.reader.readuntil(b"\r\n\r\n")
        accept = base64.b64encode(hashlib.sha1(self._key() + GUID).digest())
        self.writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + extra
            + b"Sec-WebSocket-Accept: "
            + accept
            + b"\r\n\r\n"
        )
        await self.writer.drain()

    def _key(self) -> bytes:
        for line in self.request.split(b"\r\n"):
            name, _, value = line.partition(b": ")
            if name.lower() == b"sec-websocket-key":
                return value
        raise AssertionError("no websocket key in the request")

    def text(self, data: bytes) -> None:
        """Write a text frame with any bytes."""
        self.frame(0x81, data)

    def frame(self, first: int, data: bytes) -> None:
        """Write a frame with this first byte."""
        size = len(data)
        if size < 126:
            head = bytes([first, size])
        elif size < 65536:
            head = bytes([first, 126]) + size.to_bytes(2, "big")
        else:
            head = bytes([first, 127]) + size.to_bytes(8, "big")
        self.writer.write(head + data)

    async def eof(self) -> None:
        """Wait until the client is gone; its close frame is answered."""
        try:
            while (await self.receive())[0] != 0x88:
                pass
            self.frame(0x88, b"")
            await self.writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass

    async def receive(self) -> tuple[int, bytes]:
        """Returns the next frame of the client: first byte and content."""
        first, size = await self.reader.readexactly(2)
        size &= 0x7F
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        mask = await self.reader.readexactly(4)
        data = await self.reader.readexactly(size)
        key = (mask * (size // 4 + 1))[:size]
        unmasked = int.from_bytes(data, "big") ^ int.from_bytes(key, "big")
        return first, unmasked.to_bytes(size, "big")


@asynccontextmanager
async def raw_peer(
    script: Callable[[RawPeer], Awaitable[None]], **kwargs: Any
) -> AsyncIterator[str]:
    """Run ``script`` for every connection; yields the URL for ``RealtimeClient``."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(RawPeer(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **kwargs)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"ws://127.0.0.1:{port}/realtime/v1"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(list(tasks))
        await server.wait_closed()

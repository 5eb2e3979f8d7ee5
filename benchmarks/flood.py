"""The server's process: writes prepared frames to one client at a time, at very little cost.

It knows only as much of the protocol as a client needs to join. It has no limits and checks no
tokens. Commands arrive as JSON lines on stdin; each gets one answer on stdout.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .clients.driver import allow_many_sockets, lines, tell
from .work import Work, frames, presence_state, text_message

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BLOCK = 64 * 1024
"""Approximate number of bytes in one write."""


class Connection(asyncio.Protocol):
    """One client's socket."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._open = False
        self.vsn = "2.0.0"
        self.writable = asyncio.Event()
        self.writable.set()
        self.countdown = 0
        self.last_frame = b""
        self._acks: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=4 * BLOCK)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._open and not self._shake_hands():
            return
        self._read_frames()

    def _shake_hands(self) -> bool:
        head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not end:
            return False
        request, *fields = head.decode().split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in _split(fields)}
        query = parse_qs(urlsplit(request.split()[1]).query)
        self.vsn = query.get("vsn", ["1.0.0"])[0]
        accept = hashlib.sha1(headers["sec-websocket-key"].encode() + MAGIC).digest()
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n"
        )
        self._server.connections.setdefault(query["apikey"][0], []).append(self)
        self._buffer = bytearray(rest)
        self._open = True
        return True

    def _read_frames(self) -> None:
        buffer, start, size = self._buffer, 0, len(self._buffer)
        while size - start >= 6:
            length, at = buffer[start + 1] & 127, start + 2
            if length == 126:
                length, at = int.from_bytes(buffer[at : at + 2]), at + 2
            elif length == 127:
                length, at = int.from_bytes(buffer[at : at + 8]), at + 8
            end = at + 4 + length
            if size < end:
                break
            if not self.countdown:
                self._act(buffer[start] & 15, _unmask(buffer[at : at + 4], buffer[at + 4 : end]))
            elif self.countdown == 1:
                self.countdown = 0
                self.transport.write(self.last_frame)
            else:
                self.countdown -= 1
            start = end
        del buffer[:start]

    def _act(self, opcode: int, data: bytes) -> None:
        if opcode == 8:
            self.transport.write(b"\x88" + bytes((len(data),)) + data)
            self.transport.close()
        elif opcode == 9:
            self.transport.write(b"\x8a" + bytes((len(data),)) + data)
        elif opcode == 2:
            self._answer_broadcast(data)
        elif opcode == 1:
            self._answer(json.loads(data))

    def _answer_broadcast(self, data: bytes) -> None:
        join_ref, ref, topic = data[1], data[2], data[3]
        fields = data[7 : 7 + join_ref + ref + topic].decode()
        where = fields[join_ref + ref :]
        if where in self._acks:
            self._reply(fields[:join_ref], fields[join_ref : join_ref + ref], where, {})

    def _answer(self, message: Any) -> None:
        join_ref: Any
        ref: Any
        if isinstance(message, dict):
            join_ref, ref = message.get("join_ref"), message.get("ref")
            topic, event, payload = message["topic"], message["event"], message["payload"]
        else:
            join_ref, ref, topic, event, payload = message
        if event == "phx_join":
            self._join(join_ref, ref, topic, payload.get("config", {}))
        elif event != "broadcast" or topic in self._acks:
            self._reply(join_ref, ref, topic, {})

    def _join(self, join_ref: str, ref: str, topic: str, config: dict[str, Any]) -> None:
        if (config.get("broadcast") or {}).get("ack"):
            self._acks.add(topic)
        wanted = config.get("postgres_changes") or []
        bound = [{**entry, "id": number} for number, entry in enumerate(wanted, 1)]
        self._reply(join_ref, ref, topic, {"postgres_changes": bound})
        if (config.get("presence") or {}).get("enabled"):
            state = presence_state()
            self.transport.write(
                text_message(self.vsn, join_ref, None, topic, "presence_state", state)
            )

    def _reply(self, join_ref: str | None, ref: str, topic: str, response: Any) -> None:
        answer = {"status": "ok", "response": response}
        self.transport.write(text_message(self.vsn, join_ref, ref, topic, "phx_reply", answer))


def _split(fields: list[str]) -> list[tuple[str, str, str]]:
    return [field.partition(":") for field in fields]


def _unmask(mask: bytearray, data: bytearray) -> bytes:
    size = len(data)
    key = bytes(mask) * (size // 4 + 1)
    return (int.from_bytes(data) ^ int.from_bytes(key[:size])).to_bytes(size)


class Server:
    """The sockets of all clients, and the commands of the runner."""

    def __init__(self) -> None:
        self.connections: dict[str, list[Connection]] = {}
        self._blocks: dict[tuple[str, str], tuple[list[bytes], bytes, int]] = {}

    async def run(self) -> None:
        allow_many_sockets()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, backlog=1024)
        tell(port=server.sockets[0].getsockname()[1])
        async for command in lines():
            answer = getattr(self, "_" + command.pop("op"))(**command)
            tell(**answer)

    def _live(self, who: str) -> list[Connection]:
        found = self.connections.get(who, [])
        found[:] = [one for one in found if not one.transport.is_closing()]
        return found

    def _flood(self, who: str, work: dict[str, Any], count: int) -> dict[str, Any]:
        """Writes ``count`` frames to every socket of ``who``."""
        asked = Work(**work)
        for connection in self._live(who):
            task = asyncio.ensure_future(self._write(connection, asked, count))
            task.add_done_callback(lambda done: done.result())
        return {"started": time.monotonic()}

    async def _write(self, connection: Connection, work: Work, count: int) -> None:
        cycle, block, size = self._block(work, connection.vsn)
        while count >= size:
            connection.transport.write(block)
            count -= size
            await connection.writable.wait()
        whole, rest = divmod(count, len(cycle))
        connection.transport.write(b"".join([*cycle * whole, *cycle[:rest]]))

    def _block(self, work: Work, vsn: str) -> tuple[list[bytes], bytes, int]:
        key = (work.name, vsn)
        if key not in self._blocks:
            cycle = frames(work, vsn)
            times = max(1, BLOCK // sum(map(len, cycle)))
            self._blocks[key] = cycle, b"".join(cycle * times), len(cycle) * times
        return self._blocks[key]

    def _count(self, who: str, work: dict[str, Any], count: int) -> dict[str, Any]:
        """Reads ``count`` frames from each socket of ``who``, then writes one broadcast."""
        for connection in self._live(who):
            connection.last_frame = frames(Work(**work), connection.vsn)[0]
            connection.countdown = count
        return {"started": time.monotonic()}

    def _cut(self, who: str) -> dict[str, Any]:
        """Cuts the sockets of ``who`` without a close frame."""
        found = self._live(who)
        for connection in found:
            connection.transport.abort()
        return {"started": time.monotonic(), "sockets": len(found)}


if __name__ == "__main__":
    try:
        asyncio.run(Server().run())
    except KeyboardInterrupt:
        sys.exit(130)

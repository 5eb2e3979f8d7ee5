"""Reading and writing WebSocket frames (RFC 6455, section 5)."""

from __future__ import annotations

import dataclasses
import os
import struct

__all__ = ["BINARY", "CLOSE", "PING", "PONG", "TEXT", "Splitter", "WsFrame", "build"]

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
MASKED = 0x80
HEAD_END = b"\r\n\r\n"


@dataclasses.dataclass(frozen=True, slots=True)
class WsFrame:
    """A frame; ``raw`` is its bytes. Opcode 0 continues the frame before."""

    opcode: int
    payload: bytes
    raw: bytes

    @property
    def is_data(self) -> bool:
        return self.opcode in (TEXT, BINARY)


def build(
    opcode: int, payload: bytes, *, masked: bool = False, bits: int = 0, length: int | None = None
) -> bytes:
    """Returns the bytes of a frame. ``bits`` spoil its first byte, ``length`` its length field."""
    size = len(payload) if length is None else length
    mark = MASKED if masked else 0
    if size < 126:
        head = bytes([FIN | opcode | bits, mark | size])
    elif size < 65536:
        head = bytes([FIN | opcode | bits, mark | 126]) + struct.pack("!H", size)
    else:
        head = bytes([FIN | opcode | bits, mark | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + _mask(payload, key)


def _mask(data: bytes, key: bytes) -> bytes:
    if not data:
        return data
    stream = (key * (len(data) // 4 + 1))[: len(data)]
    whole = int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")
    return whole.to_bytes(len(data), "big")


class Splitter:
    """Cuts one direction of a connection into its HTTP head and the frames after it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._in_head = True

    def feed(self, data: bytes) -> tuple[bytes, list[WsFrame]]:
        """Returns the HTTP head once it is complete, and all frames that are complete now."""
        self._data += data
        head = self._take_head() if self._in_head else b""
        frames: list[WsFrame] = []
        while not self._in_head and (frame := self._take_frame()) is not None:
            frames.append(frame)
        return head, frames

    def _take_head(self) -> bytes:
        end = self._data.find(HEAD_END)
        if end < 0:
            return b""
        self._in_head = False
        return self._cut(end + len(HEAD_END))

    def _cut(self, size: int) -> bytes:
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken

    def _take_frame(self) -> WsFrame | None:
        data = self._data
        if len(data) < 2:
            return None
        size, at = data[1] & 0x7F, 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(data[at : at + width], "big"), at + width
        key_at = at
        if data[1] & MASKED:
            at += 4
        if len(data) < at + size:
            return None
        raw = self._cut(at + size)
        payload = raw[at:]
        if raw[1] & MASKED:
            payload = _mask(payload, raw[key_at:at])
        return WsFrame(raw[0] & 0x0F, payload, raw)

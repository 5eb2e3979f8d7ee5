"""The bounds on memory, for one client and for all together, and functions that measure it.

A project's limits (``Settings``) count channels, calls and messages, so a few huge ones stay
below all of them. These bounds are in bytes of memory, so that no client can take the machine
from the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from ..._wire.envelope import Message, UserBroadcast

__all__ = [
    "MAX_BINDINGS",
    "MAX_HEADERS",
    "MAX_JOIN",
    "MOST_ANSWER",
    "MOST_CHANNELS",
    "MOST_CHANNELS_OF_ONE",
    "MOST_DECODED",
    "MOST_DECODED_BODY",
    "MOST_OUTGOING",
    "MOST_PRESENCE",
    "MOST_RECEIVED",
    "MOST_REMEMBERED",
    "MOST_STORED",
    "MOST_UNFINISHED",
    "Outgoing",
    "SlowReader",
    "encoded_size",
    "held",
    "size_of",
    "weigh",
]

MIB = 2**20
MAX_HEADERS = 32_768
"""Bytes of the headers of a request; a socket keeps them until its end."""
MAX_JOIN = 524_288
"""Bytes of a join's payload, when decoded."""
MAX_BINDINGS = 1_000
"""Entries of ``postgres_changes`` in a join."""
MOST_CHANNELS_OF_ONE = 8 * MIB
"""Bytes of the joins of all channels of a socket."""
MOST_CHANNELS = 64 * MIB
"""Bytes of the joins of all channels of the server."""
MOST_PRESENCE = 16 * MIB
"""Bytes of all tracked payloads."""
MOST_DECODED = 16 * MIB
"""Bytes of one payload, when decoded: three bytes of JSON may become a hundred."""
MOST_DECODED_BODY = 64 * MIB
"""Bytes of an HTTP body, when decoded; large bodies are handled one at a time."""
MOST_OUTGOING = 64 * MIB
"""Bytes that wait for clients to read them; a frame for many clients is kept once."""
MOST_ANSWER = 8 * MIB
"""Bytes of the rows in one answer of ``/rest/v1``; several are made at a time."""
MOST_RECEIVED = 10_000
MOST_REMEMBERED = 64 * MIB
"""Bytes of the clients' messages kept for tests: the newest 10,000, or 64 MiB of them."""
MOST_STORED = 32 * MIB
"""Bytes of the private messages kept for replay."""
MOST_UNFINISHED = 64 * MIB
"""Bytes of all messages and requests that have not arrived completely."""

MESSAGE = 1_024
"""Bytes of a remembered message, without its texts."""
CONTAINER, ITEM = 80, 40
"""Bytes of a list or dict of Python, and of one item in it."""


def weigh(payload: Any) -> int:
    """Returns the bytes that a payload may take when decoded, without decoding it."""
    if isinstance(payload, UserBroadcast):
        return len(payload.body) + len(payload.metadata)
    if isinstance(payload, msgspec.Raw):
        payload = bytes(payload)
    if isinstance(payload, str):
        containers = payload.count("[") + payload.count("{")
        return len(payload) + CONTAINER * containers + ITEM * payload.count(",")
    if not isinstance(payload, bytes):
        return 0
    containers = payload.count(b"[") + payload.count(b"{")
    return len(payload) + CONTAINER * containers + ITEM * payload.count(b",")


def held(message: Message, frame: int) -> int:
    """Returns the bytes of a kept message; its undecoded payload keeps the whole ``frame``."""
    texts = (message.topic, message.event, message.ref, message.join_ref)
    if not isinstance(message.payload, msgspec.Raw | bytes | UserBroadcast):
        frame *= CONTAINER // 3
    return MESSAGE + frame + sum(map(sys.getsizeof, texts))


def size_of(data: str | bytes) -> int:
    """Returns the bytes of a waiting frame; with one emoji, each of its letters takes four."""
    return sys.getsizeof(data)


def encoded_size(data: str | bytes) -> int:
    """Returns the approximate size of a received frame in bytes, without encoding it again."""
    return len(data) if isinstance(data, bytes) or data.isascii() else 2 * sys.getsizeof(data)


class SlowReader(Protocol):
    """A socket whose client may read slowly."""

    @property
    def waiting(self) -> int:
        """The bytes that wait for the client."""

    def unread(self) -> Iterable[str | bytes]:
        """Returns the frames that wait for the client."""

    def cut(self) -> None:
        """Reset the TCP connection."""


class Outgoing:
    """The frames that wait to be read, of all clients together.

    Every frame is counted, so counting is one addition. The sum counts a frame for many members
    once for each of them. The real size is measured only when the sum exceeds the limit.
    """

    def __init__(
        self, readers: Callable[[], Iterable[SlowReader]], most: int = MOST_OUTGOING
    ) -> None:
        self._readers = readers
        self._most = most
        self._look_at = most
        self.total: int = 0

    def add(self, size: int) -> None:
        """Count a waiting frame; above the limit, the clients with the most data are cut."""
        self.total += size
        if self.total > self._look_at:
            self._relieve()

    def take(self, size: int) -> None:
        """Count a frame that no longer waits."""
        self.total -= size
        if self.total <= self._most:
            self._look_at = self._most

    def _relieve(self) -> None:
        readers = sorted(self._readers(), key=lambda each: each.waiting, reverse=True)
        for reader in readers:
            if self._real(readers) <= self._most:
                break
            reader.cut()
        # Do not measure again at the next frame: most of the sum is frames for many clients.
        self._look_at = max(self._most, self.total + self._most // 8)

    def _real(self, readers: Iterable[SlowReader]) -> int:
        frames = {id(frame): size_of(frame) for each in readers for frame in each.unread()}
        return sum(frames.values())

"""How much of a client's may be kept, and how much of it is: one place for all such numbers.

A project's limits (``Settings``) count channels, calls and messages; a few huge ones stay below
all of them. These bounds are in bytes of memory, for one socket and for all together, so that
no client can take the machine from the others.
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
    "Reader",
    "encoded_size",
    "held",
    "size_of",
    "weigh",
]

MIB = 2**20
MAX_HEADERS = 32_768
"""Bytes of the headers of a request; they stay as long as a socket does."""
MAX_JOIN = 524_288
"""Of the payload of a join, once it is decoded."""
MAX_BINDINGS = 1_000
"""Entries of ``postgres_changes`` in a join."""
MOST_CHANNELS_OF_ONE = 8 * MIB
"""What all channels of a socket were joined with."""
MOST_CHANNELS = 64 * MIB
"""What all channels of the server were joined with."""
MOST_PRESENCE = 16 * MIB
"""Everything that is tracked."""
MOST_DECODED = 16 * MIB
"""Of one payload, once it is decoded: three bytes of JSON may become a hundred."""
MOST_DECODED_BODY = 64 * MIB
"""The same of a body over HTTP, of which one is handled at a time."""
MOST_OUTGOING = 64 * MIB
"""What waits for clients to read it; a frame for many is kept once."""
MOST_ANSWER = 8 * MIB
"""Of the rows in one answer of ``/rest/v1``, of which several are made at a time."""
MOST_RECEIVED = 10_000
MOST_REMEMBERED = 64 * MIB
"""What clients have sent, for tests to look at: the newest 10,000 messages or 64 MiB."""
MOST_STORED = 32 * MIB
"""Private messages that are kept for replay."""
MOST_UNFINISHED = 64 * MIB
"""Of messages and requests that have begun to come, all together."""

MESSAGE = 1_024
"""A remembered message aside from its texts."""
CONTAINER, ITEM = 80, 40
"""A list or object of Python, and an item of one."""


def weigh(payload: Any) -> int:
    """The bytes that a payload may take once it is decoded, without decoding it."""
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
    """The bytes that keeping a message holds; its undecoded payload holds the whole ``frame``."""
    texts = (message.topic, message.event, message.ref, message.join_ref)
    if not isinstance(message.payload, msgspec.Raw | bytes | UserBroadcast):
        frame *= CONTAINER // 3
    return MESSAGE + frame + sum(map(sys.getsizeof, texts))


def size_of(data: str | bytes) -> int:
    """The bytes of a frame that waits: one emoji makes four bytes of each of its letters."""
    return sys.getsizeof(data)


def encoded_size(data: str | bytes) -> int:
    """About the bytes of a frame that came, without encoding it anew."""
    return len(data) if isinstance(data, bytes) or data.isascii() else 2 * sys.getsizeof(data)


class Reader(Protocol):
    """What is known of a socket whose client may read slowly."""

    @property
    def waiting(self) -> int:
        """Bytes that wait for it."""

    def unread(self) -> Iterable[str | bytes]:
        """The frames that wait for it."""

    def cut(self) -> None:
        """Reset the TCP connection."""


class Outgoing:
    """What waits to be read by all clients.

    Adding is one addition, because it stands on the path of every frame. The sum counts a frame
    for many members once for each of them; only where it is too much the frames are looked at.
    """

    def __init__(self, readers: Callable[[], Iterable[Reader]], most: int = MOST_OUTGOING) -> None:
        self._readers = readers
        self._most = most
        self._look_at = most
        self.total: int = 0

    def add(self, size: int) -> None:
        """Count a frame that waits; whoever reads least is cut where it is too much."""
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
        # Not again with the next frame: most of the sum is frames that many wait for.
        self._look_at = max(self._most, self.total + self._most // 8)

    def _real(self, readers: Iterable[Reader]) -> int:
        frames = {id(frame): size_of(frame) for each in readers for frame in each.unread()}
        return sum(frames.values())

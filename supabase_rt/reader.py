"""Frames in: decoded, applied, told. Runs on the transport's stack, once for every frame.

Most frames lead to one delivery and nothing else. Those take a short way through the same rooms:
the session returns the delivery instead of putting it into the outbox, and it is told at once.
All else, and all that the handlers then cause, goes the long way through ``flush``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from .errors import DecodeError
from .link import Codec, Traffic
from .protocol.events import Delivery
from .protocol.messages import Message
from .protocol.session import Session

__all__ = ["Reader"]

log: Final = logging.getLogger("supabase_rt.connection")


class _Shell(Protocol):
    """What the reader needs of the connection."""

    session: Session
    traffic: Traffic
    is_telling: bool
    is_dirty: bool

    def flush(self) -> None: ...
    def report(self, error: BaseException) -> None: ...


class Reader:
    """The one reader of a link."""

    def __init__(
        self,
        shell: _Shell,
        codec: Codec,
        deliver: Callable[[Delivery], None],
        clock: Callable[[], float],
    ) -> None:
        self._shell = shell
        self._traffic = shell.traffic
        self._decode_text = codec.decode_text
        self._decode_binary = codec.decode_binary
        self._receive = shell.session.receive
        self._deliver = deliver
        self._clock = clock

    def on_text(self, data: bytes) -> None:
        """A text frame arrived."""
        self._on_frame(self._decode_text, data)

    def on_binary(self, data: bytes) -> None:
        """A binary frame arrived."""
        self._on_frame(self._decode_binary, data)

    def _on_frame(self, decode: Callable[[bytes], Message], data: bytes) -> None:
        self._traffic.frames_in += 1
        shell = self._shell
        try:
            delivery = self._receive(decode(data), self._clock())
        except DecodeError as exc:
            self._undecodable(exc, len(data))
            delivery = None
        if delivery is None:
            shell.flush()
            return
        # What the handlers call comes back into flush, as it does in the long way.
        shell.is_telling = True
        try:
            self._deliver(delivery)
        finally:
            shell.is_telling = False
        if shell.is_dirty:
            shell.is_dirty = False
            shell.flush()

    def _undecodable(self, error: DecodeError, size: int) -> None:
        shell = self._shell
        shell.session.unreadable(self._clock())
        log.warning("skipped a frame of %d bytes: %s", size, error)
        shell.report(error)

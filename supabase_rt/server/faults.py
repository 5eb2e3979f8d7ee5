"""Faults that a test switches on: cut sockets, refused joins, lost and spoiled frames."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from .._wire.envelope import TOPIC_PREFIX
from ._machine.outgoing import OutgoingFrame, Text

__all__ = ["Faults", "FaultyChannel", "FaultyLink"]


class FaultyChannel(Protocol):
    """A channel, as the faults see it."""

    topic: str
    join_ref: str | None

    def crash(self) -> None:
        """End it with ``phx_error``."""

    def shut_down(self, message: str | None = None) -> None:
        """End it with ``phx_close``; a message is sent as a ``system`` error first."""

    def system(self, message: str, status: str, extension: str) -> None:
        """Write a ``system`` message."""

    def emit(self, event: str, payload: Any) -> None:
        """Write any event."""

    def announce_disconnect(self) -> None:
        """Write the ``system`` message that the server is about to close the socket."""


class FaultyLink(Protocol):
    """A socket, as the faults see it."""

    def cut(self) -> None:
        """Reset the TCP connection."""

    def close(self, code: int, reason: str = "", *, flush: bool = False) -> None:
        """Begin the closing handshake, before the waiting frames or, with ``flush``, after them."""

    def stall(self) -> None:
        """Neither read nor write until ``resume``."""

    def resume(self) -> None:
        """Read and write again."""

    def send_raw(self, data: str | bytes) -> None:
        """Write a frame unchanged."""

    def channels(self) -> Iterable[FaultyChannel]:
        """The channels joined on this socket."""


class Faults:
    """The faults of one server. A topic may be given with or without ``realtime:``."""

    def __init__(self) -> None:
        self.links: dict[int, FaultyLink] = {}
        """The open sockets, by connection number."""
        self.handshakes: asyncio.Event = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        """Switch all faults off; their effects so far stay."""
        self.heartbeat_replies = True
        """If False, heartbeats are not answered."""
        self.postgres_error: str | None = None
        """The error text of every postgres_changes subscription; None lets them succeed."""
        self.latency: float = 0.0
        self.refused_status: int | None = None
        self._refusals: collections.deque[tuple[str, int | None]] = collections.deque()
        self._drops: list[str | None] = []
        self._corruptions: list[str | None] = []
        self.resume()

    # -- sockets -----------------------------------------------------------------------

    def cut(self) -> None:
        """Reset the TCP connection of every socket, without a close frame."""
        for link in list(self.links.values()):
            link.cut()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close every socket with a close frame; the real server gives no reason."""
        for link in list(self.links.values()):
            link.close(code, reason)

    def disconnect(self) -> None:
        """Do as after a change of the JWT secret: ``system`` on every channel, then close 1012."""
        self._each(None, lambda channel: channel.announce_disconnect())
        for link in list(self.links.values()):
            link.close(1012, flush=True)

    def stall(self, *, handshakes: bool = False) -> None:
        """Make the present sockets half-open: they stay, but nothing is read or written.

        New sockets work, as after a change of network. With ``handshakes`` they get no answer
        either, as from a machine that hangs.
        """
        if handshakes:
            self.handshakes.clear()
        for link in list(self.links.values()):
            link.stall()

    def resume(self) -> None:
        """End ``stall``; frames that arrived meanwhile are read and answered."""
        self.handshakes.set()
        for link in list(self.links.values()):
            link.resume()

    def refuse(self, status: int | None = 503) -> None:
        """Answer new handshakes with this HTTP status; 0 drops them, None accepts them."""
        self.refused_status = status

    def send_raw(self, data: str | bytes) -> None:
        """Write this frame, unchecked, to every socket."""
        for link in list(self.links.values()):
            link.send_raw(data)

    # -- frames ------------------------------------------------------------------------

    def delay(self, seconds: float) -> None:
        """Send every frame this many seconds later, in the same order; 0 ends the delay."""
        self.latency = seconds

    def drop_next(self, event: str | None = None) -> None:
        """Drop the next frame that is written, or the next one of this event."""
        self._drops.append(event)

    def corrupt_next(self, event: str | None = None) -> None:
        """Cut the next frame short, or the next one of this event."""
        self._corruptions.append(event)

    def apply(self, frame: OutgoingFrame) -> str | bytes | None:
        """Returns the data to write for a frame; None drops it."""
        if _take(self._drops, frame.event):
            return None
        if _take(self._corruptions, frame.event):
            half = len(frame.data) // 2
            # The frame is cut in the middle. A text frame is then not JSON, and a binary frame
            # lacks its body.
            if isinstance(frame.data, Text):
                return Text(frame.data[:half])
            return frame.data[:half] if isinstance(frame.data, str) else frame.data[:3]
        return frame.data

    # -- channels ----------------------------------------------------------------------

    def refuse_next_join(self, reason: str, count: int = 1, *, close: int | None = None) -> None:
        """Refuse the next ``count`` joins with this reason.

        ``close`` is a code that the socket is closed with afterwards. The real server closes
        with 1001 after ``ClientJoinRateLimitReached`` and ``TenantNotFound``.
        """
        self._refusals.extend([(reason, close)] * count)

    def take_refusal(self) -> tuple[str, int | None] | None:
        """Returns the reason and close code for the present join; None lets the server decide."""
        return self._refusals.popleft() if self._refusals else None

    def phx_error(self, topic: str | None = None) -> int:
        """Crash the channels of a topic, or all; returns their number."""
        return self._each(topic, lambda channel: channel.crash())

    def phx_close(self, topic: str | None = None, system_message: str | None = None) -> int:
        """Shut down the channels of a topic, or all; a message is a ``system`` error before."""
        return self._each(topic, lambda channel: channel.shut_down(system_message))

    def emit(self, topic: str, event: str, payload: Any) -> int:
        """Write any event to the channels of a topic; returns their number."""
        return self._each(topic, lambda channel: channel.emit(event, payload))

    def system(
        self,
        topic: str | None,
        message: str,
        *,
        status: str = "error",
        extension: str = "system",
    ) -> int:
        """Send a ``system`` message on the channels of a topic, or all."""
        return self._each(topic, lambda channel: channel.system(message, status, extension))

    def _each(self, topic: str | None, action: Callable[[FaultyChannel], None]) -> int:
        wanted = None if topic is None else TOPIC_PREFIX + topic.removeprefix(TOPIC_PREFIX)
        found = [
            channel
            for link in list(self.links.values())
            for channel in link.channels()
            if wanted in (None, channel.topic)
        ]
        for channel in found:
            action(channel)
        return len(found)


def _take(wanted: list[str | None], event: str) -> bool:
    """Remove the first entry that fits the event; returns True if there was one."""
    for index, name in enumerate(wanted):
        if name in (None, event):
            del wanted[index]
            return True
    return False

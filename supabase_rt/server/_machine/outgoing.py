"""Frames that the server writes, and messages for many members."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..._wire.envelope import Message, UserBroadcast
from ..._wire.serializer import broadcast_object, encode_text_bytes, encode_user_broadcast
from ...errors import DecodeError

__all__ = ["LARGE", "NO_CODE", "Close", "Fanout", "OutgoingFrame", "Text", "text_frame"]

LARGE = 65_536
"""Bytes of a frame that is written in slices of that size."""


class Text(bytes):
    """The UTF-8 of a large text frame.

    As a string it would be copied several times on its way, and one emoji makes it four times as
    large.
    """

    __slots__ = ()


class OutgoingFrame(NamedTuple):
    """One frame to write; faults pick frames by the event."""

    event: str
    data: str | bytes


NO_CODE = 1006
"""The code of a ``Close`` that is no frame but the end of the connection."""


class Close(NamedTuple):
    """A close frame after all frames before it, or the end of the connection without one."""

    code: int
    reason: str = ""


def text_frame(
    vsn: str,
    topic: str,
    event: str,
    payload: Any,
    *,
    join_ref: str | None = None,
    ref: str | None = None,
) -> OutgoingFrame:
    """Returns a text frame; a server's frames of vsn 1.0.0 have no join_ref.

    See docs/protocol.md#version-1.
    """
    visible = join_ref if vsn == "2.0.0" else None
    data = encode_text_bytes(vsn, Message(visible, ref, topic, event, payload))
    return OutgoingFrame(event, data.decode() if len(data) <= LARGE else Text(data))


class Fanout:
    """One message for many members, encoded at most once per vsn.

    ``payload`` is JSON data, a ``UserBroadcast`` or bytes (docs/protocol.md#what-receivers-get).
    A ``UserBroadcast`` goes to vsn 2.0.0 as the binary kind 4, and to vsn 1.0.0 as the equivalent
    object, unless its body is not JSON. Bytes are those of a push of kind 0: vsn 2.0.0 gets
    them as kind 2, and vsn 1.0.0 gets nothing.
    """

    __slots__ = ("_frames", "event", "message_id", "payload", "topic")

    def __init__(
        self, topic: str, event: str, payload: Any, *, message_id: str | None = None
    ) -> None:
        self.topic: str = topic
        self.event: str = event
        self.payload: Any = payload
        self.message_id: str | None = message_id
        self._frames: dict[str, OutgoingFrame | None] = {}

    def frame(self, vsn: str) -> OutgoingFrame | None:
        """Returns the frame for a member of this vsn, or None if it gets nothing."""
        if vsn not in self._frames:
            self._frames[vsn] = self._encode(vsn)
        return self._frames[vsn]

    def _encode(self, vsn: str) -> OutgoingFrame | None:
        payload = self.payload
        if isinstance(payload, bytes):
            return OutgoingFrame(self.event, self._kind_2(payload)) if vsn == "2.0.0" else None
        if isinstance(payload, UserBroadcast):
            if vsn == "2.0.0":
                return OutgoingFrame(self.event, encode_user_broadcast(self.topic, payload))
            if not payload.is_json:
                return None
            try:
                payload = broadcast_object(payload)
            except DecodeError:
                # The real server copies such bytes into the frame, which then is not JSON. No test
                # for a client of vsn 1.0.0 can need that.
                return None
        return text_frame(vsn, self.topic, self.event, payload)

    def _kind_2(self, data: bytes) -> bytes:
        topic, event = self.topic.encode(), self.event.encode()
        return bytes((2, len(topic), len(event))) + topic + event + data

"""What the server writes: frames of one socket, and messages on their way to many."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..._wire.envelope import Message, UserBroadcast
from ..._wire.serializer import broadcast_object, encode_text, encode_user_broadcast
from ...errors import DecodeError

__all__ = ["NO_CODE", "Close", "Fanout", "OutgoingFrame", "text_frame"]


class OutgoingFrame(NamedTuple):
    """One frame to write; the event is kept for the faults that pick frames by it."""

    event: str
    data: str | bytes


NO_CODE = 1006
"""The code of a ``Close`` that is no frame but the end of the connection."""


class Close(NamedTuple):
    """A close frame to write after everything before it, or the end without one."""

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
    """A text frame; vsn 1.0.0 has no join_ref in what the server writes.

    See docs/protocol.md#version-1.
    """
    visible = join_ref if vsn == "2.0.0" else None
    return OutgoingFrame(event, encode_text(vsn, Message(visible, ref, topic, event, payload)))


class Fanout:
    """One message for many members, encoded at most once per vsn.

    ``payload`` is JSON data, or a ``UserBroadcast``: then vsn 2.0.0 gets the binary kind 4, and
    vsn 1.0.0 the equivalent object, or nothing where the body is not JSON
    (docs/protocol.md#what-receivers-get). Bytes
    are those of a push of kind 0, which vsn 2.0.0 gets as kind 2 and vsn 1.0.0 not at all.
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
        """The frame for a member of this vsn, or None where it gets nothing."""
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
                # The real server splices such bytes in unread, and its vsn 1.0.0 clients get a
                # frame that is not JSON. Nobody can want that of a test server.
                return None
        return text_frame(vsn, self.topic, self.event, payload)

    def _kind_2(self, data: bytes) -> bytes:
        topic, event = self.topic.encode(), self.event.encode()
        return bytes((2, len(topic), len(event))) + topic + event + data

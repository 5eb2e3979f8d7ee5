"""The message of the Phoenix channel protocol, with its five fields.

The payload of a received message stays undecoded JSON (``msgspec.Raw``), because most payloads are
never read. ``json_codec.plain`` decodes one when it is needed.

msgspec is the decoder because it keeps integers of any size exact. It refuses some texts that the
standard library reads (``1e400``, lone surrogates, ``NaN``); for those ``loads`` uses ``json``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

__all__ = ["PHOENIX", "TOPIC_PREFIX", "Message", "UserBroadcast", "sub_topic"]

PHOENIX = "phoenix"
"""The topic of heartbeats."""

TOPIC_PREFIX = "realtime:"
"""The prefix of every channel's topic on the wire; users leave it out."""

if TYPE_CHECKING:
    Undecoded = Any
    Ref = str | None
else:
    Undecoded = msgspec.Raw
    # The server returns a ref in the JSON type that it received; this client sends strings.
    Ref = str | int | None


class Message(msgspec.Struct, array_like=True, gc=False):
    """One message, in the field order of vsn 2.0.0.

    ``payload`` of a sent message is plain Python data. ``payload`` of a received message is
    ``msgspec.Raw`` or ``UserBroadcast``, or plain data if only ``json`` could read the frame.
    """

    join_ref: Ref
    ref: Ref
    topic: str
    event: str
    payload: Undecoded


class UserBroadcast(msgspec.Struct, gc=False):
    """A broadcast in binary form: kinds 3 and 4 of vsn 2.0.0."""

    event: str
    is_json: bool
    metadata: bytes
    body: bytes


def sub_topic(topic: str) -> str:
    """Returns the topic as users, the HTTP interface and the SQL functions write it."""
    if topic.lower().startswith(TOPIC_PREFIX):
        return topic[len(TOPIC_PREFIX) :]
    return topic

"""The five-field envelope of the Phoenix channel protocol, and the JSON beneath it.

A message that came from the wire keeps its payload as undecoded JSON (``msgspec.Raw``): most
of it is never read, and what is read is decoded once, by whoever wants it. ``plain`` does that.

msgspec is the decoder because it keeps integers of any size exact. It refuses some texts that
the standard library reads (``1e400``, lone surrogates, ``NaN``); ``loads`` falls back for those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

__all__ = ["PHOENIX", "TOPIC_PREFIX", "Message", "UserBroadcast", "sub_topic"]

PHOENIX = "phoenix"
"""The topic of heartbeats."""

TOPIC_PREFIX = "realtime:"
"""What every channel's topic starts with on the wire; users leave it out."""

if TYPE_CHECKING:
    Undecoded = Any
    Ref = str | None
else:
    Undecoded = msgspec.Raw
    # The server echoes a ref in whatever JSON type it was given; ours are strings.
    Ref = str | int | None


class Message(msgspec.Struct, array_like=True, gc=False):
    """One message, in the field order of vsn 2.0.0.

    ``payload`` is plain Python data on its way out, and ``msgspec.Raw``, ``UserBroadcast`` or
    plain data (where only the standard library could read the frame) on its way in.
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
    """The topic as users write it, and as the HTTP and SQL interfaces do."""
    if topic.lower().startswith(TOPIC_PREFIX):
        return topic[len(TOPIC_PREFIX) :]
    return topic

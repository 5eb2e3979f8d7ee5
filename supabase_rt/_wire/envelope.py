"""The five-field envelope of the Phoenix channel protocol, and the JSON beneath it.

A message that came from the wire keeps its payload as undecoded JSON (``msgspec.Raw``): most
of it is never read, and what is read is decoded once, by whoever wants it. ``plain`` does that.

msgspec is the decoder because it keeps integers of any size exact. It refuses some texts that
the standard library reads (``1e400``, lone surrogates, ``NaN``); ``loads`` falls back for those.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..errors import DecodeError

__all__ = [
    "PHOENIX",
    "TOPIC_PREFIX",
    "UNREADABLE",
    "Message",
    "UserBroadcast",
    "dumps",
    "loads",
    "plain",
    "sub_topic",
]

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


UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What msgspec raises for JSON that is not what was asked for, or that only ``json`` reads."""

_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def loads(text: bytes | str) -> Any:
    """Decode JSON; raises ``DecodeError`` where neither decoder reads the text."""
    try:
        return _decoder.decode(text)
    except UNREADABLE:
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        problem = type(exc).__name__
    # Outside the except block: the cause quotes the whole text, which may hold secrets.
    raise DecodeError(f"not valid JSON ({problem})")


def plain(payload: Any) -> Any:
    """The payload of a message as plain Python data; raises ``DecodeError``."""
    if isinstance(payload, msgspec.Raw):
        try:
            return _decoder.decode(payload)
        except UNREADABLE:
            return loads(bytes(payload))
    return payload


def dumps(value: Any) -> bytes:
    """Encode to compact UTF-8 JSON.

    Raises ``TypeError`` or ``ValueError`` for what JSON cannot carry: the caller's mistake, to
    be heard at the call.
    """
    try:
        try:
            return _encoder.encode(value)
        except (OverflowError, UnicodeError):
            # Lone surrogates: legal in a Python str and, escaped, in JSON.
            return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except RecursionError:
        pass
    raise ValueError("a value that contains itself, or is nested too deeply, is not JSON")

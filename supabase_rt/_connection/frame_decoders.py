"""Text frames of vsn 2.0.0 decoded in one pass, payload and all.

``Message`` keeps the payload undecoded, because only its event says what it is; reading it then
goes over the same bytes a second time. Who knows the event beforehand need not: a stream of
frames is mostly of one kind. A guess that was wrong costs one decoding and nothing else, for the
frame says itself what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .._payloads.broadcast import Broadcast
from .._payloads.postgres_data import PostgresEnvelope
from .._wire.envelope import Message

__all__ = ["BROADCAST", "CHANGES", "DIFF", "decoder_for", "is_utf8", "undecoded"]

BROADCAST: Final = "broadcast"
CHANGES: Final = "postgres_changes"
DIFF: Final = "presence_diff"

if TYPE_CHECKING:
    Ref = Any
else:
    Ref = str | int | None


class _BroadcastFrame(msgspec.Struct, array_like=True, gc=False):
    join_ref: Ref
    ref: Ref
    topic: str
    event: str
    payload: Broadcast


class _ChangeFrame(msgspec.Struct, array_like=True, gc=False):
    join_ref: Ref
    ref: Ref
    topic: str
    event: str
    payload: PostgresEnvelope


class _PlainFrame(msgspec.Struct, array_like=True, gc=False):
    join_ref: Ref
    ref: Ref
    topic: str
    event: str
    payload: Any


_decoders: Final[dict[str, Callable[[bytes], Any]]] = {
    BROADCAST: msgspec.json.Decoder(_BroadcastFrame).decode,
    CHANGES: msgspec.json.Decoder(_ChangeFrame).decode,
    DIFF: msgspec.json.Decoder(_PlainFrame).decode,
}
undecoded: Final[Callable[[bytes], Any]] = msgspec.json.Decoder(msgspec.Raw).decode
"""JSON whose grammar is checked and nothing else; raises one of ``messages.UNREADABLE``."""

_any: Final[Callable[[bytes], Any]] = msgspec.json.Decoder(Message).decode


def decoder_for(event: str) -> Callable[[bytes], Any]:
    """The decoder for frames of this event; raises one of ``messages.UNREADABLE`` for others.

    What it returns has the fields of ``Message``. The payload is a ``Broadcast``, a
    ``PostgresEnvelope``, plain data (of a presence diff) or undecoded, and means something only
    if ``event`` is what was asked for. The characters of what is undecoded are not checked: see
    ``is_utf8``.
    """
    return _decoders.get(event, _any)


def is_utf8(data: bytes) -> bool:
    """Whether all of a frame is UTF-8: decoders do not look at what they leave undecoded."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True

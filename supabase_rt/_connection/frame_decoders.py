"""Decoders that read a text frame of vsn 2.0.0 in one pass, payload included.

``Message`` keeps the payload undecoded, because the type of the payload depends on the event.
Decoding it later reads the same bytes twice. Frames mostly come in runs of one event, so the
reader guesses the event of the next frame. The decoded frame tells its event; after a wrong guess
it is decoded once more.
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
"""Checks the grammar of JSON and decodes nothing; raises one of ``json_codec.UNREADABLE``."""

_any: Final[Callable[[bytes], Any]] = msgspec.json.Decoder(Message).decode


def decoder_for(event: str) -> Callable[[bytes], Any]:
    """Returns the decoder for frames of this event.

    The decoder returns an object with the fields of ``Message``. The payload is a ``Broadcast``, a
    ``PostgresEnvelope``, plain data (of a presence diff), or undecoded. It is meaningful only if
    the ``event`` of the frame is the expected one. A frame of another shape raises one of
    ``json_codec.UNREADABLE``. Undecoded payloads may hold invalid UTF-8: see ``is_utf8``.
    """
    return _decoders.get(event, _any)


def is_utf8(data: bytes) -> bool:
    """Returns True if the whole frame is UTF-8; decoders do not check the parts that they leave
    undecoded.
    """
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True

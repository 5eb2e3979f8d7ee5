"""The payload of a broadcast, and its decoding.

Like all payloads it is a read-only mapping too. Attributes have the spelling of Python, keys that
of supabase-js::

    message.payload             message["payload"]
    match message: case {"event": "cursor", "payload": {"x": x}}: ...

A payload that the handler does not read is never decoded.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import msgspec

from .._wire.envelope import UserBroadcast
from .._wire.json_codec import UNREADABLE, plain
from ..errors import DecodeError
from .base import TEXT_OR_NONE, Payload, brief, check_types, js_keys, shown

__all__ = ["Broadcast", "read_broadcast"]

if TYPE_CHECKING:
    Undecoded = Any
else:
    Undecoded = msgspec.Raw


_WIRE_NAMES: Final = {"_payload": "payload", "_meta": "meta"}


# -- broadcast ---------------------------------------------------------------------------


_set: Final = msgspec.structs.force_setattr


class Broadcast(Payload, msgspec.Struct, frozen=True, gc=False, eq=False, rename=_WIRE_NAMES.get):
    """A broadcast (docs/protocol.md#what-receivers-get).

    ``payload`` is any JSON value, or ``bytes`` of a binary broadcast. ``meta``
    (``{"id", "replayed"}``) comes with broadcasts from the database and from replay; otherwise
    its key is absent.

    The decoder of text frames makes this struct itself, in C: one object for each event, with the
    payload still undecoded.
    """

    type: str = "broadcast"
    """``"broadcast"``."""
    event: str | None = None
    """The event name of the sender, or ``None``."""
    _payload: Undecoded = None
    _meta: Undecoded = None

    _names: ClassVar[dict[str, str]] = js_keys("type", "event", "payload", "meta")
    _optional: ClassVar[str] = "meta"
    _defaults: ClassVar[dict[str, Any]] = {
        "type": "broadcast",
        **dict.fromkeys(("event", "payload", "meta", "encoding")),
    }

    @property
    def payload(self) -> Any:
        """The sent value: JSON, decoded when it is first read, or ``bytes``."""
        value = self._payload
        if isinstance(value, msgspec.Raw):
            value = plain(value)
            _set(self, "_payload", value)
        return value

    @property
    def meta(self) -> Any:
        """The data added by the server, or ``None``."""
        value = self._meta
        if isinstance(value, msgspec.Raw):
            value = plain(value)
            _set(self, "_meta", value)
        return value

    def __getitem__(self, key: str) -> Any:
        if key != "payload":
            return super().__getitem__(key)
        # Most handlers read only this key: the code of the property saves a call.
        value = self._payload
        if type(value) is msgspec.Raw:
            value = plain(value)
            _set(self, "_payload", value)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return Broadcast, (self.type, self.event, self.payload, self.meta)

    def _plain(self) -> dict[str, Any]:
        values = super()._plain()
        if isinstance(self.payload, bytes):
            values["payload"] = base64.b64encode(self.payload).decode("ascii")
            values["encoding"] = "base64"
        return values

    @classmethod
    def _restore(cls, values: dict[str, Any]) -> Self:
        check_types(values, type=str, event=TEXT_OR_NONE)
        payload = values["payload"]
        if values["encoding"] is not None:
            payload = _decode_bytes(values["encoding"], payload)
        return cls(values["type"], values["event"], payload, values["meta"])

    def __repr__(self) -> str:
        return shown("Broadcast", brief(self.event), content=lambda: self.payload)


def _decode_bytes(encoding: object, text: object) -> bytes:
    if encoding != "base64" or not isinstance(text, str):
        raise ValueError("a binary payload is a text with the encoding 'base64'")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError("the payload is not base64") from exc


_broadcast: Final = msgspec.json.Decoder(Broadcast)


def read_broadcast(payload: Any) -> Broadcast:
    """Read the payload of a broadcast message.

    ``payload`` is ``msgspec.Raw`` (a text frame), ``UserBroadcast`` (a binary one) or plain data.
    Raises ``DecodeError`` for a payload that is not a JSON object.
    """
    if isinstance(payload, msgspec.Raw):
        try:
            return _broadcast.decode(payload)
        except UNREADABLE:
            return _plain_broadcast(plain(payload))
    if isinstance(payload, UserBroadcast):
        body = msgspec.Raw(payload.body) if payload.is_json else payload.body
        meta = msgspec.Raw(payload.metadata) if payload.metadata else None
        return Broadcast("broadcast", payload.event, body, meta)
    return _plain_broadcast(payload)


def _plain_broadcast(found: Any) -> Broadcast:
    if not isinstance(found, dict):
        raise DecodeError(f"a broadcast that is no object but {type(found).__name__}")
    kind, event = found.get("type"), found.get("event")
    return Broadcast(
        kind if isinstance(kind, str) else "broadcast",
        event if isinstance(event, str) else None,
        found.get("payload"),
        found.get("meta"),
    )

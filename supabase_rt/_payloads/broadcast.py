"""What handlers are given: read-only objects that are also mappings with the keys of JS.

An event whose handler looks at nothing costs the decoding of its envelope. Attributes have
Python's spelling, keys that of supabase-js (JS reference, sections 1.8 and 3.2)::

    change.event_type           change["eventType"]
    match change: case {"eventType": "INSERT", "new": {"id": id}}: ...
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import msgspec

from .._wire.envelope import UNREADABLE, UserBroadcast, plain
from ..errors import DecodeError
from .base import LONGEST, TEXT_OR_NONE, Payload, brief, check_types, js_keys, shown
from .postgres_change import PostgresChange, PostgresData, read_postgres_changes

__all__ = [
    "Broadcast",
    "Payload",
    "PostgresChange",
    "PostgresData",
    "PresenceJoin",
    "PresenceLeave",
    "PresenceSync",
    "SystemMessage",
    "read_broadcast",
    "read_postgres_changes",
    "read_system",
]

if TYPE_CHECKING:
    Undecoded = Any
else:
    Undecoded = msgspec.Raw


_WIRE_NAMES: Final = {"_payload": "payload", "_meta": "meta"}


# -- broadcast ---------------------------------------------------------------------------


_set: Final = msgspec.structs.force_setattr


class Broadcast(Payload, msgspec.Struct, frozen=True, gc=False, eq=False, rename=_WIRE_NAMES.get):
    """A broadcast: protocol reference, section 7.4.

    ``payload`` is any JSON value, or ``bytes`` of a binary broadcast; ``meta`` is given by the
    database and replay (``{"id", "replayed"}``). The key ``"meta"`` is absent without one.

    It is the struct that the decoder makes of a text frame: one object for each event received,
    made in C, with the payload still undecoded.
    """

    type: str = "broadcast"
    """``"broadcast"``."""
    event: str | None = None
    """The name given by the sender; ``None`` where it gave none."""
    _payload: Undecoded = None
    _meta: Undecoded = None

    _names: ClassVar[dict[str, str]] = js_keys("type", "event", "payload", "meta")
    _optional: ClassVar[str] = "meta"

    @property
    def payload(self) -> Any:
        """What was sent: JSON, decoded at first sight, or ``bytes``."""
        value = self._payload
        if isinstance(value, msgspec.Raw):
            value = plain(value)
            _set(self, "_payload", value)
        return value

    @property
    def meta(self) -> Any:
        """What the server added, or ``None``."""
        value = self._meta
        if isinstance(value, msgspec.Raw):
            value = plain(value)
            _set(self, "_meta", value)
        return value

    def __getitem__(self, key: str) -> Any:
        if key != "payload":
            return super().__getitem__(key)
        # Most handlers read just this, and first: the property, written out.
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

    ``payload`` is ``msgspec.Raw`` (a text frame), ``UserBroadcast`` (a binary one) or plain
    data. Raises ``DecodeError`` for what is not a JSON object.
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


# -- presence ----------------------------------------------------------------------------


def _expect_event(values: dict[str, Any], event: str) -> None:
    if values["event"] != event:
        raise ValueError(f"'event' is {values['event']!r}, not {event!r}")


class PresenceSync(Payload):
    """The presence state of a channel is up to date: read ``channel.presence_state()``."""

    __slots__ = ()

    _names = js_keys("event")

    @property
    def event(self) -> str:
        """``"sync"``."""
        return "sync"

    @classmethod
    def _restore(cls, values: dict[str, Any]) -> Self:
        _expect_event(values, "sync")
        return cls()

    def __repr__(self) -> str:
        return "<PresenceSync>"


class _PresenceChange(Payload):
    __slots__ = ("_changed", "_current", "_key")

    _event: ClassVar[str]
    _changed_key: ClassVar[str]

    def __init__(
        self, key: str, current: list[dict[str, Any]], changed: list[dict[str, Any]]
    ) -> None:
        self._key = key
        self._current = current
        self._changed = changed

    @property
    def event(self) -> str:
        """``"join"`` or ``"leave"``."""
        return self._event

    @property
    def key(self) -> str:
        """Whose presence changed."""
        return self._key

    @property
    def current_presences(self) -> list[dict[str, Any]]:
        """Before a join, those that were there; after a leave, those that are left."""
        return self._current

    @classmethod
    def _restore(cls, values: dict[str, Any]) -> Self:
        _expect_event(values, cls._event)
        changed = cls._changed_key
        check_types(values, key=str, currentPresences=list, **{changed: list})
        return cls(values["key"], values["currentPresences"], values[changed])

    def __repr__(self) -> str:
        return shown(type(self).__name__, brief(self.key), content=lambda: self._changed)


class PresenceJoin(_PresenceChange):
    """Presences appeared under a key."""

    __slots__ = ()

    _event = "join"
    _changed_key = "newPresences"
    _names = js_keys("event", "key", "currentPresences", "newPresences")

    def __init__(
        self,
        key: str,
        current_presences: list[dict[str, Any]],
        new_presences: list[dict[str, Any]],
    ) -> None:
        super().__init__(key, current_presences, new_presences)

    @property
    def new_presences(self) -> list[dict[str, Any]]:
        """Those that appeared."""
        return self._changed


class PresenceLeave(_PresenceChange):
    """Presences went away from a key."""

    __slots__ = ()

    _event = "leave"
    _changed_key = "leftPresences"
    _names = js_keys("event", "key", "currentPresences", "leftPresences")

    def __init__(
        self,
        key: str,
        current_presences: list[dict[str, Any]],
        left_presences: list[dict[str, Any]],
    ) -> None:
        super().__init__(key, current_presences, left_presences)

    @property
    def left_presences(self) -> list[dict[str, Any]]:
        """Those that went away."""
        return self._changed


# -- system ------------------------------------------------------------------------------


class SystemMessage(Payload):
    """The server about the channel: protocol reference, section 4.

    The key ``"channel"`` is absent where the message is about the whole socket.
    """

    __slots__ = ("_channel", "_extension", "_message", "_status")

    _names = js_keys("extension", "status", "message", "channel")
    _optional = "channel"

    def __init__(
        self, extension: str, status: str, message: str, channel: str | None = None
    ) -> None:
        self._extension = extension
        self._status = status
        self._message = message
        self._channel = channel

    @property
    def extension(self) -> str:
        """``"postgres_changes"`` or ``"system"``."""
        return self._extension

    @property
    def status(self) -> str:
        """``"ok"`` or ``"error"``."""
        return self._status

    @property
    def message(self) -> str:
        """What happened."""
        return self._message

    @property
    def channel(self) -> str | None:
        """The topic without ``realtime:``, or ``None``."""
        return self._channel

    @classmethod
    def _restore(cls, values: dict[str, Any]) -> Self:
        check_types(values, extension=str, status=str, message=str, channel=TEXT_OR_NONE)
        return cls(**values)

    def __repr__(self) -> str:
        where = f"{self.extension:.60} {self.status:.60}:"
        return shown("SystemMessage", where, f"{self.message!r:.{LONGEST}}")


_SYSTEM: Final = ("extension", "status", "message", "channel")


def read_system(payload: Any) -> SystemMessage:
    """Read the payload of a system message: ``msgspec.Raw`` or plain data.

    Raises ``DecodeError`` where extension, status or message is missing or no text.
    """
    # Not by msgspec.convert: it fails at a lone surrogate, in keys that mean nothing here too.
    found = plain(payload)
    if not isinstance(found, dict):
        raise DecodeError(f"malformed system message: no object but {type(found).__name__}")
    values: list[Any] = [found.get(name) for name in _SYSTEM]
    extension, status, message, channel = values
    if not all(isinstance(value, str) for value in (extension, status, message)):
        raise DecodeError("malformed system message: extension, status or message is no text")
    if not isinstance(channel, TEXT_OR_NONE):
        raise DecodeError("malformed system message: the channel is no text")
    return SystemMessage(extension, status, message, channel)

"""Encoding and decoding of frames, for vsn 1.0.0 and 2.0.0 (docs/protocol.md#2-framing).

Text frames are JSON objects (1.0.0) or five-element arrays (2.0.0). Binary frames exist in
2.0.0 only: a kind byte, one length byte for each field of the header, the fields, the body.

    kind  direction          header fields
    0     client to server   join_ref ref topic event           push
    0     server to client   join_ref topic event               push, without ref
    1     server to client   join_ref ref topic status          reply
    2     server to client   topic event                        broadcast of a kind 0 push
    3     client to server   join_ref ref topic user_event metadata +encoding
    4     server to client   topic user_event metadata +encoding

Both directions are here, because the local server uses the same frames.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..errors import DecodeError
from .envelope import Message, UserBroadcast
from .json_codec import UNREADABLE, dumps, loads, plain

__all__ = [
    "MAX_FRAME",
    "SUPPORTED_VSNS",
    "BroadcastFrames",
    "broadcast_object",
    "decode_array",
    "decode_client_binary",
    "decode_server_binary",
    "decode_text",
    "encode_client",
    "encode_client_binary",
    "encode_text",
    "encode_text_bytes",
    "encode_user_broadcast",
    "is_binary",
    "is_too_large",
    "message_from_object",
    "message_to_object",
    "payload_object",
]

SUPPORTED_VSNS: Final = ("1.0.0", "2.0.0")

MAX_FRAME: Final = 5_000_000
"""Bytes; the server answers a larger frame by closing the socket with 1009."""

REMEMBERED_EVENTS: Final = 32
"""Header parts kept in the cache: each message may have a new event name."""

METADATA_KEYS: Final = ("persist",)
"""The keys of a broadcast that travel in the metadata of kind 3."""


class _Object(msgspec.Struct, gc=False):
    """A text frame of vsn 1.0.0. The server omits join_ref; a client may send it."""

    topic: str
    event: str
    payload: msgspec.Raw
    ref: str | int | None = None
    join_ref: str | int | None = None


_array = msgspec.json.Decoder(Message)
_object = msgspec.json.Decoder(_Object)
_syntax = msgspec.json.Decoder(msgspec.Raw)


def _check_utf8(data: bytes) -> None:
    # msgspec checks the grammar of an undecoded payload but not its characters. Without this check
    # a broken payload would fail later, in a handler.
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            problem = True
        else:
            problem = False
        if problem:
            raise DecodeError("text frame is not valid UTF-8")


def decode_array(data: bytes) -> Message:
    """Decode a text frame of vsn 2.0.0; a fast path of ``decode_text`` for most frames."""
    if data.isascii():
        try:
            return _array.decode(data)
        except (msgspec.MsgspecError, RecursionError):
            pass
    return decode_text("2.0.0", data)


def decode_text(vsn: str, data: bytes | str, *, lenient: bool = True) -> Message:
    """Decode a text frame; raises ``DecodeError`` for anything that is not a message.

    With ``lenient`` False the second decoder is not tried. It decodes the payload too, which can
    take thirty times the memory of the frame.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    _check_utf8(data)
    try:
        if vsn == "2.0.0":
            return _array.decode(data)
        found = _object.decode(data)
    except UNREADABLE:
        if not lenient:
            raise DecodeError("not a message, and too large to look closer") from None
        return message_from_object(loads(data))
    return Message(found.join_ref, found.ref, found.topic, found.event, found.payload)  # type: ignore[arg-type]


def encode_text_bytes(vsn: str, message: Message) -> bytes:
    """Encode a text frame; raises ``TypeError`` or ``ValueError`` for what JSON cannot carry."""
    if vsn == "2.0.0":
        return dumps((message.join_ref, message.ref, message.topic, message.event, message.payload))
    return dumps(message_to_object(message))


def encode_text(vsn: str, message: Message) -> str:
    """``encode_text_bytes`` as a string."""
    return encode_text_bytes(vsn, message).decode()


def message_to_object(message: Message) -> dict[str, Any]:
    """Returns the message as supabase-js passes it to ``encode`` and ``logger``."""
    found = {
        "topic": message.topic,
        "event": message.event,
        "payload": message.payload,
        "ref": message.ref,
    }
    if message.join_ref is not None:
        found["join_ref"] = message.join_ref
    return found


def message_from_object(found: Any) -> Message:
    """Returns the message of a decoded frame of either vsn; raises ``DecodeError``."""
    if isinstance(found, Message):
        return found
    if isinstance(found, list) and len(found) >= 5:
        join_ref, ref, topic, event, payload = found[:5]
    elif isinstance(found, dict) and "payload" in found:
        topic, event, payload = found.get("topic"), found.get("event"), found["payload"]
        join_ref, ref = found.get("join_ref"), found.get("ref")
    else:
        raise DecodeError(f"not a message: {type(found).__name__}")
    if not isinstance(topic, str) or not isinstance(event, str):
        raise DecodeError("message without a topic or an event")
    for value in (join_ref, ref):
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
            raise DecodeError("message with a ref that is neither text nor a number")
    return Message(join_ref, ref, topic, event, payload)


# -- binary ------------------------------------------------------------------------------


def _field(name: str, value: str | None) -> bytes:
    encoded = (value or "").encode()
    if len(encoded) > 255:
        raise ValueError(f"{name} length {len(encoded)} exceeds maximum of 255")
    return encoded


def _pack(kind: int, fields: list[bytes], body: bytes, encoding: int) -> bytes:
    header = bytes([kind, *map(len, fields), encoding])
    return b"".join([header, *fields, body])


def _unpack(data: bytes, count: int, *, encoding: bool = False) -> tuple[list[bytes], int]:
    """Returns the fields of the header and the index of the body."""
    start = 1 + count + encoding
    if len(data) < start:
        raise DecodeError("binary frame is shorter than its header")
    end = start + sum(data[1 : 1 + count])
    if len(data) < end:
        raise DecodeError("binary frame is shorter than its fields")
    fields: list[bytes] = []
    for length in data[1 : 1 + count]:
        fields.append(data[start : start + length])
        start += length
    return fields, end


def _texts(fields: list[bytes]) -> list[str]:
    try:
        return [str(field, "utf-8") for field in fields]
    except UnicodeDecodeError:
        pass
    raise DecodeError("binary frame with a field that is not UTF-8")


# A tuple, because a union type in the call would be built for every message.
_BINARY = (bytes, bytearray, memoryview)


def is_binary(value: Any) -> bool:
    """Returns True for a broadcast payload that is sent as opaque bytes."""
    return isinstance(value, _BINARY)


def is_too_large(frame: str | bytes) -> bool:
    """Returns True if the server would close the socket because of the size of this frame."""
    if len(frame) * 4 <= MAX_FRAME:
        return False
    size = len(frame.encode("utf-8", "surrogatepass") if isinstance(frame, str) else frame)
    return size > MAX_FRAME


def encode_client(vsn: str, message: Message) -> str | bytes:
    """Returns the frame of a client's message.

    In vsn 2.0.0 a broadcast is a binary frame of kind 3 and every other message is text, as in
    supabase-js. Raises ``TypeError`` or ``ValueError`` for a message that cannot be encoded.
    """
    payload = message.payload
    if message.event != "broadcast" or not isinstance(payload, dict):
        return encode_text(vsn, message)
    if vsn == "2.0.0" and isinstance(payload.get("event"), str):
        return encode_client_binary(message)
    if is_binary(payload.get("payload")):
        raise ValueError("a binary payload needs vsn='2.0.0' and a broadcast with an event name")
    return encode_text(vsn, message)


def encode_client_binary(message: Message) -> bytes:
    """Returns the frame of kind 3 of a broadcast; its payload is ``{"event", "payload", ...}``."""
    content = message.payload
    metadata = {key: content[key] for key in METADATA_KEYS if key in content}
    body = content.get("payload")
    binary = is_binary(body)
    fields = [
        _field("joinRef", message.join_ref),
        _field("ref", message.ref),
        _field("topic", message.topic),
        _field("userEvent", content["event"]),
        _field("metadata", dumps(metadata).decode() if metadata else ""),
    ]
    encoded = bytes(body) if binary else dumps({} if body is None else body)
    return _pack(3, fields, encoded, 0 if binary else 1)


class BroadcastFrames:
    """The frames of kind 3 for one join; the common parts of its broadcasts are encoded once."""

    __slots__ = ("_parts", "_start", "_topic", "join_ref")

    def __init__(self, join_ref: str, topic: str) -> None:
        self.join_ref: str = join_ref
        self._start = _field("joinRef", join_ref)
        self._topic = _field("topic", topic)
        self._parts: dict[tuple[str, int], tuple[bytes, bytes]] = {}

    def encode(self, ref: str, event: str, body: bytes) -> bytes:
        """Returns ``encode_client_binary`` of a message with a JSON ``body`` and no metadata."""
        number = ref.encode()
        key = event, len(number)
        parts = self._parts.get(key)
        if parts is None:
            parts = self._new_parts(*key)
        return b"".join((parts[0], number, parts[1], body))

    def _new_parts(self, event: str, digits: int) -> tuple[bytes, bytes]:
        """Returns the bytes before the ref, and those between the ref and the body."""
        start, topic, name = self._start, self._topic, _field("userEvent", event)
        header = bytes((3, len(start), digits, len(topic), len(name), 0, 1))
        if len(self._parts) >= REMEMBERED_EVENTS:
            self._parts.clear()
        parts = self._parts[event, digits] = header + start, topic + name
        return parts


def encode_user_broadcast(topic: str, frame: UserBroadcast) -> bytes:
    """Returns the frame of kind 4, which the server relays to a client of vsn 2.0.0."""
    if len(frame.metadata) > 255:
        raise ValueError(f"metadata length {len(frame.metadata)} exceeds maximum of 255")
    fields = [_field("topic", topic), _field("userEvent", frame.event), frame.metadata]
    return _pack(4, fields, frame.body, 1 if frame.is_json else 0)


def _user_broadcast(event: str, metadata: bytes, encoding: int, body: bytes) -> UserBroadcast:
    if metadata:
        _check_json(metadata)
    if encoding:
        _check_json(body)
    return UserBroadcast(event, bool(encoding), metadata, body)


def _check_json(text: bytes) -> None:
    # The server relays the bytes of a JSON broadcast unread, so they may be invalid.
    _check_utf8(text)
    try:
        _syntax.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        loads(text)


def decode_server_binary(data: bytes) -> Message:
    """Decode a binary frame of a server: kinds 0, 1, 2 and 4. Raises ``DecodeError``."""
    kind = data[0] if data else None
    if kind == 4:
        # Most broadcasts arrive in this kind, so it does without the calls of _unpack.
        if len(data) < 5:
            raise DecodeError("binary frame is shorter than its header")
        topic_end = 5 + data[1]
        event_end = topic_end + data[2]
        body = event_end + data[3]
        if len(data) < body:
            raise DecodeError("binary frame is shorter than its fields")
        try:
            topic, event = str(data[5:topic_end], "utf-8"), str(data[topic_end:event_end], "utf-8")
        except UnicodeDecodeError:
            topic = event = ""
        if not topic:
            raise DecodeError("binary frame without a readable topic")
        try:
            frame = _user_broadcast(event, data[event_end:body], data[4], data[body:])
        except DecodeError as error:
            error.topic, error.event = topic, "broadcast"
            raise
        return Message(None, None, topic, "broadcast", frame)
    if kind == 0:
        fields, body = _unpack(data, 3)
        join_ref, topic, event = _texts(fields)
        return Message(join_ref or None, None, topic, event, data[body:])
    if kind == 1:
        fields, body = _unpack(data, 4)
        join_ref, ref, topic, status = _texts(fields)
        payload = {"status": status, "response": data[body:]}
        return Message(join_ref or None, ref or None, topic, "phx_reply", payload)
    if kind == 2:
        fields, body = _unpack(data, 2)
        topic, event = _texts(fields)
        return Message(None, None, topic, event, data[body:])
    raise DecodeError(f"binary frame of unknown kind {kind}")


def decode_client_binary(data: bytes) -> Message:
    """Decode a binary frame of a client: kinds 0 and 3. Raises ``DecodeError``."""
    kind = data[0] if data else None
    if kind == 3:
        fields, body = _unpack(data, 5, encoding=True)
        join_ref, ref, topic, event = _texts(fields[:4])
        metadata = fields[4]
        frame = UserBroadcast(event, data[6] != 0, metadata, data[body:])
        if metadata:
            _check_json(metadata)
        return Message(join_ref or None, ref, topic, "broadcast", frame)
    if kind == 0:
        fields, body = _unpack(data, 4)
        join_ref, ref, topic, event = _texts(fields)
        return Message(join_ref or None, ref or None, topic, event, data[body:])
    raise DecodeError(f"binary frame of unknown kind {kind}")


def broadcast_object(frame: UserBroadcast) -> dict[str, Any]:
    """Returns a binary broadcast in the form of a text one; raises ``DecodeError``."""
    found: dict[str, Any] = {
        "type": "broadcast",
        "event": frame.event,
        "payload": loads(frame.body) if frame.is_json else frame.body,
    }
    if frame.metadata:
        found["meta"] = loads(frame.metadata)
    return found


def payload_object(message: Message) -> Any:
    """Returns the payload of a message as supabase-js does, from a text or a binary frame."""
    if isinstance(message.payload, UserBroadcast):
        return broadcast_object(message.payload)
    return plain(message.payload)

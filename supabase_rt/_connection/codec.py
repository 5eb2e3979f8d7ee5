"""The codec between messages and frames: the serializer, or functions of the user's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from .._printable import get_logger, printable
from .._runtime.log_fields import facts
from .._wire.envelope import Message
from .._wire.serializer import (
    MAX_FRAME,
    decode_array,
    decode_server_binary,
    decode_text,
    encode_client,
    is_too_large,
    message_from_object,
    message_to_object,
    payload_object,
)
from ..errors import DecodeError, SendError

__all__ = ["Codec", "build_codec", "frame_of", "refusal", "tell_logger"]

log: Final = get_logger("supabase_rt")
connection_log: Final = get_logger("supabase_rt.connection")

Function = Callable[[Any], Any]
Logger = Callable[[str, str, Any], Any]


def build_codec(
    vsn: str, encode: Function | None, decode: Function | None, logger: Logger | None
) -> Codec:
    """Returns the codec for a vsn; ``encode`` and ``decode``, if given, replace the serializer."""

    def to_frame(message: Message) -> str | bytes:
        if encode is None:
            return encode_client(vsn, message)
        frame = encode(message_to_object(message))
        if not isinstance(frame, str | bytes):
            raise TypeError(f"encode= returns str or bytes, not {type(frame).__name__}")
        return frame

    def from_text(data: bytes) -> Message:
        if decode is None:
            return decode_text(vsn, data)
        return _decoded(decode, _text(data))

    def from_binary(data: bytes) -> Message:
        if decode is None:
            return decode_server_binary(data)
        return _decoded(decode, data)

    if logger is None and decode is None:
        fast_path_allowed = vsn == "2.0.0"
        read = decode_array if fast_path_allowed else from_text
        return Codec(to_frame, read, decode_server_binary, fast_path_allowed)
    if logger is None:
        return Codec(to_frame, from_text, from_binary)
    return Codec(
        _logging_encoder(to_frame, logger),
        _logging_decoder(from_text, logger),
        _logging_decoder(from_binary, logger),
    )


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    raise DecodeError("text frame is not valid UTF-8")


def _decoded(decode: Function, data: Any) -> Message:
    try:
        found = decode(data)
    except DecodeError:
        raise
    except Exception as exc:
        problem = type(exc).__name__
    else:
        return message_from_object(found)
    raise DecodeError(f"decode= raised {problem}")


def frame_of(codec: Codec, message: Message) -> str | bytes | SendError | None:
    """Returns the frame of a message, an error for a frame that is too large, or None; both are
    logged.
    """
    try:
        frame = codec.encode(message)
    except Exception:
        # The payload was checked at the call, so this is a failure of the user's ``encode``.
        known = facts(topic=message.topic, event=message.event)
        connection_log.exception("cannot encode a %s frame", message.event, extra=known)
        return None
    if not is_too_large(frame):
        return frame
    error = SendError(
        f"a {message.event} frame of more than {MAX_FRAME:,} bytes was not sent",
        code="FrameTooLarge",
        hint="the server would close the socket over it, and every channel with it: send less",
    )
    known = facts(error, topic=message.topic, event=message.event)
    connection_log.error("%s: %s (%s)", message.topic, error, error.hint, extra=known)
    return error


def refusal(message: Message, error: SendError) -> Message:
    """Returns the reply for a frame that was not sent, as if the server had refused it."""
    payload = {"status": "error", "response": {"reason": f"{error.code}: {error}"}}
    return Message(message.join_ref, message.ref, message.topic, "phx_reply", payload)


def tell_logger(logger: Logger, kind: str, message: str, data: Any) -> None:
    """Call the user's logger; one that raises must not cost a frame."""
    try:
        logger(kind, printable(message), data)
    except Exception as exc:
        log.exception("logger= raised", extra=facts(exc))


def _without_token(payload: Any) -> Any:
    if isinstance(payload, dict) and "access_token" in payload:
        return {**payload, "access_token": "***"}
    return payload


def _logging_encoder(
    encode: Callable[[Message], str | bytes], logger: Logger
) -> Callable[[Message], str | bytes]:
    def logged(message: Message) -> str | bytes:
        text = f"{message.topic} {message.event} ({message.join_ref}, {message.ref})"
        tell_logger(logger, "push", text, _without_token(message.payload))
        return encode(message)

    return logged


def _logging_decoder(
    decode: Callable[[bytes], Message], logger: Logger
) -> Callable[[bytes], Message]:
    def logged(data: bytes) -> Message:
        message = decode(data)
        payload = payload_object(message)
        status = payload.get("status", "") if isinstance(payload, dict) else ""
        ref = f" ({message.ref})" if message.ref is not None else ""
        text = f"{status} {message.topic} {message.event}{ref}".strip()
        tell_logger(logger, "receive", text, payload)
        return message

    return logged


@dataclass(slots=True)
class Codec:
    """Messages to frames and back."""

    encode: Callable[[Message], str | bytes]
    decode_text: Callable[[bytes], Message]
    decode_binary: Callable[[bytes], Message]
    fast_path_allowed: bool = False
    """True for the serializer of vsn 2.0.0 without a logger: the reader may decode a frame by
    other means, with the same result."""

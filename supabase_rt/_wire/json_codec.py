"""JSON as bytes, and back."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from ..errors import DecodeError

__all__ = ["UNREADABLE", "dumps", "loads", "plain"]

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

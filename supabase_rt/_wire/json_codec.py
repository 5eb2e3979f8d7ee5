"""Encoding and decoding of JSON."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from ..errors import DecodeError

__all__ = ["UNREADABLE", "dumps", "loads", "plain"]

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""The errors of msgspec for JSON of another type, and for JSON that only ``json`` reads."""

_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def loads(text: bytes | str) -> Any:
    """Decode JSON; raises ``DecodeError`` if neither decoder can read the text."""
    try:
        return _decoder.decode(text)
    except UNREADABLE:
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        problem = type(exc).__name__
    # Raised outside the except block: the cause would quote the text, which may hold secrets.
    raise DecodeError(f"not valid JSON ({problem})")


def plain(payload: Any) -> Any:
    """Returns the payload of a message as plain Python data; raises ``DecodeError``."""
    if isinstance(payload, msgspec.Raw):
        try:
            return _decoder.decode(payload)
        except UNREADABLE:
            return loads(bytes(payload))
    return payload


def dumps(value: Any) -> bytes:
    """Encode to compact UTF-8 JSON.

    Raises ``TypeError`` or ``ValueError`` for a value that JSON cannot carry.
    """
    try:
        try:
            return _encoder.encode(value)
        except (OverflowError, UnicodeError):
            # Lone surrogates are allowed in a Python str and, escaped, in JSON.
            return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except RecursionError:
        pass
    raise ValueError("a value that contains itself, or is nested too deeply, is not JSON")

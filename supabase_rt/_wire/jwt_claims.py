"""The claims of a token, read without the key and without a check of the signature."""

from __future__ import annotations

import base64
import math
import re
from typing import Any, Final

from ..errors import DecodeError
from .json_codec import loads

__all__ = ["check_token", "claims_of", "expires_at", "is_jwt"]

_JWT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")


def claims_of(token: Any) -> dict[str, Any] | None:
    """Returns the claims of a JWT, or None for a value that is no JWT. Never raises.

    Nothing is verified, not even the signature.
    """
    match = _JWT.fullmatch(token) if isinstance(token, str) else None
    if match is None:
        return None
    header, claims = (_object(part) for part in match.groups())
    return None if header is None else claims


def _object(part: str) -> dict[str, Any] | None:
    try:
        found = loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, DecodeError):
        return None
    return found if isinstance(found, dict) else None


def is_jwt(token: Any) -> bool:
    """Returns True if ``token`` has the form of a JWT.

    An ``sb_...`` key has another form; the gateway of a hosted project exchanges it for a JWT
    (docs/protocol.md#credentials).
    """
    return claims_of(token) is not None


def expires_at(token: Any) -> float | None:
    """Returns the ``exp`` claim as Unix time in seconds, or None if there is none. Never raises.

    The signature is not checked: the result only decides when to refresh the token.
    """
    expiry = (claims_of(token) or {}).get("exp")
    if isinstance(expiry, bool) or not isinstance(expiry, int | float):
        return None
    try:
        seconds = float(expiry)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


LONGEST_TOKEN: Final = 1_000_000
"""Bytes. The join with a longer token could exceed the frame size at which the server closes the
socket."""


def check_token(token: Any) -> None:
    """Raise ``TypeError`` or ``ValueError`` for a token that must not be put into a header.

    A line break in a token would end the header and begin another one. The message never shows the
    token.
    """
    if not isinstance(token, str):
        raise TypeError(f"a token is a str, not {type(token).__name__}")
    if not (token.isascii() and token.isprintable()):
        raise ValueError(
            "a token is printable ASCII; this one holds a line break, another control character "
            "or a letter outside ASCII (was it read from a file? then call .strip())"
        )
    if len(token) > LONGEST_TOKEN:
        raise ValueError(f"a token is at most {LONGEST_TOKEN:,} bytes, not {len(token):,}")

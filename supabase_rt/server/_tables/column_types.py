"""Column types: inferred from Python values, encoded for the wire, compared in filters."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import uuid
from typing import Any

import msgspec

__all__ = ["cast", "default_value", "exact", "infer", "is_text", "wire"]

INTEGERS = {"int2", "int4", "int8", "oid"}
NUMBERS = {"float4", "float8", "numeric", "money"}
TEXTS = {"text", "varchar", "bpchar", "char", "name", "citext"}
_PLAIN = ((bool, "bool"), (float, "float8"), (decimal.Decimal, "numeric"), (uuid.UUID, "uuid"))


def infer(value: Any) -> str:
    """Returns the column type of a Python value in an undeclared table."""
    for kind, name in _PLAIN:
        if isinstance(value, kind):
            return name
    if isinstance(value, int):
        return "int8" if -(2**63) <= value < 2**63 else "numeric"
    if isinstance(value, dt.datetime):
        return "timestamp" if value.tzinfo is None else "timestamptz"
    if isinstance(value, dt.date):
        return "date"
    if isinstance(value, dt.time):
        return "time"
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytea"
    if isinstance(value, dict):
        return "jsonb"
    if isinstance(value, list | tuple):
        return "_" + next((infer(item) for item in value if item is not None), "text")
    return "text"


def wire(value: Any) -> Any:
    """Returns the value as Postgres's ``to_jsonb`` does (docs/protocol.md#the-event)."""
    if isinstance(value, float | decimal.Decimal):
        # JSON has no NaN. Finite decimals are kept for exact().
        return value if math.isfinite(value) else str(decimal.Decimal(value))
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo is None else value.astimezone(dt.UTC)).isoformat()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, dict):
        return {str(key): wire(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [wire(item) for item in value]
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"no column holds a {type(value).__name__}")


def exact(value: Any) -> Any:
    """Prepare a value of ``wire`` for the encoder.

    Decimals become numbers of full precision. A float would lose digits, and the JSON encoder
    writes a Decimal as text.
    """
    if isinstance(value, decimal.Decimal):
        return msgspec.Raw(format(value, "f").encode())
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    return value


def default_value(kind: str, rows: int) -> Any:
    """Returns the value for a missing primary key column; None if its type has no default."""
    if kind in INTEGERS:
        return rows + 1
    return uuid.uuid4() if kind == "uuid" else None


def is_text(kind: str) -> bool:
    """Returns True if patterns may be matched against a column of this type."""
    return kind in TEXTS


def cast(kind: str, value: Any) -> Any:
    """Convert a column's value, or its text in a filter, to a comparable object.

    Raises ``ValueError`` for a text that is not a value of the type.
    """
    if kind in INTEGERS:
        return int(value)
    if kind in NUMBERS:
        return _number(value)
    if kind == "bool":
        return _boolean(value)
    if kind in ("timestamptz", "timestamp"):
        return _moment(value)
    if kind == "date":
        return value if isinstance(value, dt.date) else dt.date.fromisoformat(value)
    if kind == "uuid":
        return str(uuid.UUID(str(value)))
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _number(value: Any) -> decimal.Decimal:
    try:
        found = decimal.Decimal(str(value))
    except decimal.InvalidOperation:
        pass
    else:
        # In Postgres NaN equals itself and is above all numbers; Decimal cannot compare it.
        return decimal.Decimal("Infinity") if found.is_nan() else found
    raise ValueError(f"not a number: {value!r}")


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    for found, words in ((True, ("true", "yes", "on", "1")), (False, ("false", "no", "off", "0"))):
        # Postgres accepts any prefix except "o", which could be on or off.
        if text and text != "o" and any(word.startswith(text) for word in words):
            return found
    raise ValueError(f"not a boolean: {value!r}")


def _moment(value: Any) -> dt.datetime:
    found = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))
    return found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)

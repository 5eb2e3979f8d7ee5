"""Payloads from plain data, and to JSON text, by way of dataclasses-json.

The conversion is for the edge of a program (a log, a queue, a test), never for the path of a
message: it costs 50 to 150 microseconds an object. dataclasses-json, and marshmallow behind
it, are loaded at its first use. The shapes have the keys of supabase-js; their fields are
``Any`` because dataclasses-json turns wrong types into right ones without a word, and the
classes in ``payloads`` check what they are given.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["from_dict", "from_json", "json_safe", "to_json"]


@functools.cache
def _shapes() -> dict[str, Any]:
    # By decorator: with the base class of dataclasses-json a field cannot be called "schema".
    from dataclasses_json import config, dataclass_json

    absent = config(exclude=lambda value: value is None)

    @dataclass_json
    @dataclass(kw_only=True)
    class PostgresChange:
        schema: Any = None
        table: Any = None
        commit_timestamp: Any = None
        eventType: Any
        new: Any = field(default_factory=dict)
        old: Any = field(default_factory=dict)
        errors: Any = None

    @dataclass_json
    @dataclass(kw_only=True)
    class Broadcast:
        type: Any = "broadcast"
        event: Any = None
        payload: Any = None
        meta: Any = field(default=None, metadata=absent)
        encoding: Any = field(default=None, metadata=absent)

    @dataclass_json
    @dataclass(kw_only=True)
    class PresenceSync:
        event: Any = "sync"

    @dataclass_json
    @dataclass(kw_only=True)
    class PresenceJoin:
        event: Any = "join"
        key: Any
        currentPresences: Any
        newPresences: Any

    @dataclass_json
    @dataclass(kw_only=True)
    class PresenceLeave:
        event: Any = "leave"
        key: Any
        currentPresences: Any
        leftPresences: Any

    @dataclass_json
    @dataclass(kw_only=True)
    class SystemMessage:
        extension: Any
        status: Any
        message: Any
        channel: Any = field(default=None, metadata=absent)

    shapes: tuple[Callable[..., Any], ...] = (
        PostgresChange,
        Broadcast,
        PresenceSync,
        PresenceJoin,
        PresenceLeave,
        SystemMessage,
    )
    return {shape.__name__: shape for shape in shapes}


def json_safe(value: Any) -> Any:
    """A copy of decoded JSON; numbers that JSON lacks become the texts that Postgres uses."""
    if isinstance(value, dict):
        return {key: json_safe(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def to_json(shape: str, values: Mapping[str, Any]) -> str:
    """The values of a payload, in the JS shape already, as JSON text."""
    try:
        return json.dumps(values)
    except TypeError:
        # A payload that was built from other objects than JSON has: by the rules of
        # dataclasses-json, which what came from the wire need not be kept waiting for.
        text: str = _shapes()[shape](**values).to_json()
        return text


def from_dict(shape: str, found: object) -> dict[str, Any]:
    """The values of a payload from the JS shape; raises ``ValueError`` for a missing key.

    Keys that the shape does not know are ignored, as dataclasses-json does.
    """
    if not isinstance(found, Mapping):
        raise ValueError(f"{shape} is read from an object, not from {type(found).__name__}")
    try:
        made = _shapes()[shape].from_dict(dict(found))
    except KeyError as exc:
        raise ValueError(f"{shape} without the key {exc}") from None
    return {one.name: getattr(made, one.name) for one in fields(made)}


def from_json(shape: str, text: str | bytes) -> dict[str, Any]:
    """The same from JSON text; raises ``ValueError`` where it is none."""
    return from_dict(shape, json.loads(text))

"""Payloads from plain data, and to JSON text, by dataclasses-json.

This conversion is for logs, queues and tests. It takes 50 to 150 microseconds an object, too long
for the path of a message. dataclasses-json and marshmallow are imported at its first use.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import field, fields, make_dataclass
from typing import Any

__all__ = ["JsonShape", "json_safe"]


class JsonShape:
    """The JSON object of one payload type, as a dataclass that dataclasses-json converts.

    ``keys`` are those of supabase-js, in their order. A key in ``defaults`` may be missing from
    plain data; it may also be one that the payload itself does not have. A key in ``optional`` is
    left out of the JSON while its value is None.
    """

    def __init__(
        self, name: str, keys: list[str], defaults: Mapping[str, Any], optional: set[str]
    ) -> None:
        self._name = name
        self._keys = keys
        self._defaults = defaults
        self._optional = optional

    @functools.cached_property
    def dataclass(self) -> Any:
        """The dataclass, made at the first use."""
        # The decorator is used, because with the base class of dataclasses-json a field cannot be
        # called "schema".
        from dataclasses_json import config, dataclass_json

        members: list[Any] = []
        for key in self._keys:
            options: dict[str, Any] = {}
            if key in self._defaults:
                # A copy for each object: the default may be a dict.
                options["default_factory"] = functools.partial(copy.copy, self._defaults[key])
            if key in self._optional:
                options["metadata"] = config(exclude=lambda value: value is None)
            # Any, because dataclasses-json turns values of a wrong type into the declared type
            # silently. The payload classes check types themselves.
            members.append((key, Any, field(**options)))
        return dataclass_json(make_dataclass(self._name, members, kw_only=True))

    def to_json(self, values: Mapping[str, Any]) -> str:
        """Returns the values, which have the keys of this shape already, as JSON text."""
        try:
            return json.dumps(values)
        except TypeError:
            # The user built the payload of objects that JSON lacks: dataclasses-json converts
            # them. Payloads from the wire have none and need not wait for its import.
            text: str = self.dataclass(**values).to_json()
            return text

    def from_dict(self, found: object) -> dict[str, Any]:
        """Returns the value of each key; raises ``ValueError`` for a missing one.

        Unknown keys are ignored, as dataclasses-json does.
        """
        if not isinstance(found, Mapping):
            kind = type(found).__name__
            raise ValueError(f"{self._name} is read from an object, not from {kind}")
        try:
            made = self.dataclass.from_dict(dict(found))
        except KeyError as exc:
            raise ValueError(f"{self._name} without the key {exc}") from None
        return {one.name: getattr(made, one.name) for one in fields(made)}

    def from_json(self, text: str | bytes) -> dict[str, Any]:
        """Returns the same of JSON text; raises ``ValueError`` for text that is no JSON object."""
        return self.from_dict(json.loads(text))


def json_safe(value: Any) -> Any:
    """Returns a copy of decoded JSON; infinities and NaN become the texts that Postgres uses."""
    if isinstance(value, dict):
        return {key: json_safe(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value

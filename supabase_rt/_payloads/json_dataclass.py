"""``to_dict``, ``to_json``, ``from_dict``, ``from_json`` for our own dataclasses.

dataclasses-json does the work. It is imported at the first use, because it imports marshmallow,
which would add a quarter of a second to ``import supabase_rt``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self, get_type_hints

import msgspec

from .._name_hints import advice, no_attribute, snake_case

__all__ = ["JsonDataclass", "UnknownField", "check_names"]


class UnknownField(TypeError, ValueError):
    """An unknown field: a wrong keyword argument, or a wrong key of a dict."""


class JsonDataclass:
    """The base of a dataclass that can be converted to and from JSON."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values: tuples become lists, nested objects become dicts."""
        from dataclasses_json import DataClassJsonMixin

        # The method works on any dataclass; inheriting it would need the import at once.
        convert: Any = DataClassJsonMixin.to_dict
        found: dict[str, Any] = convert(self)
        return found

    def to_json(self) -> str:
        """Returns the fields as JSON text."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Returns the object of a dict such as ``to_dict`` returns; omitted fields have defaults.

        Raises ``ValueError`` for an unknown key (and names the nearest one), for a missing field
        and for a value of a wrong type.
        """
        from dataclasses_json import DataClassJsonMixin

        _check_names(cls, values)
        _check_types(cls, values)
        convert: Any = DataClassJsonMixin.from_dict
        found: Self = convert.__func__(cls, values)
        return found

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Returns the object of JSON text; raises ``ValueError`` as ``from_dict`` does."""
        return cls.from_dict(json.loads(text))


def check_names(cls: Any, values: Iterable[Any]) -> None:
    """Raise ``UnknownField`` with the nearest name for a field that ``cls`` lacks."""
    names = [field.name for field in dataclasses.fields(cls)]
    for name in values:
        if name not in names:
            hint = advice(snake_case(str(name)), names, "it has")
            raise UnknownField(f"{cls.__name__} has no {name!r}; {hint}")


def _check_names(cls: Any, values: Any) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__} is read from an object, not from {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    check_names(cls, values)
    for name, field in fields.items():
        defaults = (field.default, field.default_factory)
        if name not in values and defaults == (dataclasses.MISSING, dataclasses.MISSING):
            raise ValueError(f"{cls.__name__} needs {name!r}")


def _check_types(cls: Any, values: dict[str, Any]) -> None:
    # dataclasses-json accepts any value for a plain type, and makes a tuple of any iterable.
    hints = get_type_hints(cls)
    for name, value in values.items():
        try:
            msgspec.convert(value, hints[name])
        except msgspec.ValidationError as exc:
            problem = str(exc)
        else:
            continue
        raise ValueError(f"{cls.__name__}.{name}: {problem}")

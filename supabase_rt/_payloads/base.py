"""The base class of payloads: a read-only mapping with the keys of supabase-js.

A payload keeps the undecoded JSON of the wire and decodes it when it is read. It is read-only,
because its attributes are properties without a setter; the values are in slots. (A ``__setattr__``
that refuses would slow every constructor down.)
"""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from .._name_hints import no_attribute, snake_case
from .._printable import printable
from .json_shapes import JsonShape, json_safe

__all__ = [
    "LONGEST",
    "TEXT_OR_NONE",
    "Payload",
    "brief",
    "check_types",
    "expect_event",
    "js_keys",
    "json_shape",
    "shown",
]

TEXT_OR_NONE: Final = (str, type(None))


class _Brief(reprlib.Repr):
    """The ``repr`` of a payload, which reads only the parts that it shows: a payload may have
    megabytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60
        self.maxlevel, self.maxdict = 4, 8

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        # reprlib sorts the keys; rows keep the order of their columns.
        if level <= 0 and x:
            return "{...}"
        pairs = islice(x.items(), self.maxdict)
        found = [f"{self.repr1(key, level - 1)}: {self.repr1(x, level - 1)}" for key, x in pairs]
        return f"{{{', '.join(found + ['...'] * (len(x) > self.maxdict))}}}"

    def repr_bytes(self, x: bytes, level: int) -> str:
        return f"{len(x)} bytes"


brief: Callable[[object], str] = _Brief().repr
"""``repr``, cut to fit into one line of text."""

LONGEST: Final = 120
"""The most characters of the ``repr`` of a payload, about two lines of a terminal."""


def shown(kind: str, *parts: str, content: Callable[[], Any] = lambda: None) -> str:
    """Returns ``<kind parts content>``, cut; content that fails to decode shows as unreadable.

    Raises nothing, because a ``repr`` is mostly wanted in the search for another error.
    """
    try:
        found = content()
        parts = (*parts, brief(found) if found or found == 0 else "")
    except Exception as exc:
        parts = (*parts, f"unreadable: {type(exc).__name__}")
    text = printable(" ".join(filter(None, (kind, *parts))), None)
    return f"<{text}>" if len(text) <= LONGEST else f"<{text[: LONGEST - 3]}...>"


def js_keys(*keys: str) -> dict[str, str]:
    """Returns each key of supabase-js with the name of its attribute."""
    return {key: snake_case(key) for key in keys}


def check_types(values: Mapping[str, Any], **expected: Any) -> None:
    """Raise ``ValueError`` for the first value that is not of the type expected."""
    for key, kind in expected.items():
        if not isinstance(values[key], kind):
            raise ValueError(f"{key!r} cannot be of type {type(values[key]).__name__}")


if TYPE_CHECKING:
    _Mapping = Mapping
else:

    class _Mapping:
        """The mixin methods of ``Mapping`` without its metaclass.

        ``Broadcast`` is a msgspec struct, which has another metaclass. So ``Payload`` is registered
        as a ``Mapping``, for ``isinstance`` and ``match``.
        """

        __slots__ = ()
        __hash__ = None
        __reversed__ = None
        __contains__ = Mapping.__contains__
        get = Mapping.get
        keys = Mapping.keys
        items = Mapping.items
        values = Mapping.values

        def __class_getitem__(cls, _: object) -> type:
            return cls


class Payload(_Mapping[str, Any]):
    """Base of the payloads: the mapping, equality by value, and conversion."""

    __slots__ = ()

    _names: ClassVar[dict[str, str]]
    """The name of the attribute of each key, in the order of the keys."""

    _moved: ClassVar[dict[str, str]] = {}
    """The replacement of each key that other clients have."""

    _optional: ClassVar[str] = ""
    """The key that is absent, as in supabase-js, if its value is ``None``."""

    _defaults: ClassVar[dict[str, Any]] = {}
    """The value of each key that ``from_dict`` may lack, and of keys that only JSON has."""

    def __getitem__(self, key: str) -> Any:
        name = self._names.get(key)
        if name is None:
            raise KeyError(self._no_key(key))
        value = getattr(self, name)
        if value is None and key == self._optional:
            raise KeyError(key)
        return value

    def _no_key(self, key: str) -> str:
        if key in self._moved:
            return f"{key!r}: here it is {self._moved[key]}"
        for js_key, name in self._names.items():
            if name == snake_case(str(key)):
                return f"{key!r}: the key is {js_key!r}, the attribute {name!r}"
        return key

    def __iter__(self) -> Iterator[str]:
        for key, name in self._names.items():
            if key != self._optional or getattr(self, name) is not None:
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getattr__(self, name: str) -> Any:
        raise no_attribute(self, name)

    def __eq__(self, other: object) -> bool:
        # Values are also compared in their JSON form: a row of Decimals equals its copy by
        # from_dict, and its dict.
        if isinstance(other, Payload):
            return type(self) is type(other) and self._plain() == other._plain()
        if isinstance(other, Mapping):
            wanted = dict(other)
            return dict(self) == wanted or self._plain() == wanted
        return NotImplemented

    def __ne__(self, other: object) -> bool:
        # Otherwise a broadcast would inherit ``!=`` of the struct, which compares by identity.
        return not self == other

    def _plain(self) -> dict[str, Any]:
        """Returns the keys with values that JSON can carry."""
        return {key: json_safe(value) for key, value in self.items()}

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values under the keys of supabase-js, in new containers.

        Columns are converted as with ``types="js"``. Infinities and NaN become texts. The bytes of
        a binary broadcast become base64, marked by ``"encoding"``.
        """
        # The result equals that of dataclasses-json, whose import takes a quarter of a second. A
        # handler that converts its first payload would block the event loop for that time.
        return self._plain()

    def to_json(self) -> str:
        """Returns the JSON text of ``to_dict()``."""
        return json_shape(type(self)).to_json(self._plain())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Returns the payload of a dict such as ``to_dict()`` returns.

        Raises ``ValueError`` for a missing key or a value of the wrong type.
        """
        return cls._restore(json_shape(cls).from_dict(data))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Returns the payload of a JSON text; raises ``ValueError`` as ``from_dict`` does."""
        return cls._restore(json_shape(cls).from_json(text))

    @classmethod
    def _restore(cls, values: dict[str, Any]) -> Self:
        """Returns the payload of values by key; raises ``ValueError`` for a wrong type."""
        raise AssertionError(f"{cls.__name__} does not restore itself")


Mapping.register(Payload)


@functools.cache
def json_shape(cls: type[Payload]) -> JsonShape:
    """Returns the JSON object of a payload type: the keys are those of its mapping."""
    keys = list(dict.fromkeys([*cls._names, *cls._defaults]))
    only_json = set(keys) - cls._names.keys()
    return JsonShape(cls.__name__, keys, cls._defaults, {cls._optional, *only_json})


def expect_event(values: dict[str, Any], event: str) -> None:
    if values["event"] != event:
        raise ValueError(f"'event' is {values['event']!r}, not {event!r}")

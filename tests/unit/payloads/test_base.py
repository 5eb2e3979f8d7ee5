"""Tests of the base of the payloads, with a payload class of their own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

import pytest

from supabase_rt._payloads.base import Payload, brief, check_types, js_keys


class Note(Payload):
    __slots__ = ("_about", "_text_of")

    _names = js_keys("textOf", "about")
    _optional = "about"

    def __init__(self, text_of: Any, about: Any = None) -> None:
        self._text_of = text_of
        self._about = about

    @property
    def text_of(self) -> Any:
        return self._text_of

    @property
    def about(self) -> Any:
        return self._about

    @classmethod
    def _restore(cls, values: dict[str, Any]) -> Self:
        return cls(values["event"])


def test_each_key_has_an_attribute() -> None:
    assert js_keys("eventType", "new") == {"eventType": "event_type", "new": "new"}


def test_an_optional_key_is_absent_while_it_is_none() -> None:
    assert dict(Note(1)) == {"textOf": 1}
    assert (len(Note(1)), "about" in Note(1)) == (1, False)
    assert dict(Note(1, 0)) == {"textOf": 1, "about": 0}
    assert Note(None) == {"textOf": None}
    with pytest.raises(KeyError, match=r"^'about'$"):
        Note(1)["about"]


def test_the_spelling_of_the_attribute_is_answered_with_the_key() -> None:
    with pytest.raises(KeyError, match="the key is 'textOf', the attribute 'text_of'"):
        Note(1)["text_of"]
    with pytest.raises(KeyError, match=r"^'other'$"):
        Note(1)["other"]
    with pytest.raises(KeyError):
        Note(1)[5]  # type: ignore[index]
    with pytest.raises(AttributeError, match="'text_of'"):
        Note(1).textOf


def test_equality_is_by_value() -> None:
    assert Note(1) == Note(1)
    assert Note(1) != Note(2)
    assert Note(float("inf")) == Note(float("inf")) == {"textOf": "Infinity"}
    assert Note(float("inf")) == {"textOf": float("inf")}
    assert Note(1) == MappingProxyType({"textOf": 1})
    assert Note(1) != 1

    class Other(Note):
        __slots__ = ()

    assert Note(1) != Other(1)


def test_conversion_goes_by_the_shape_of_the_same_name() -> None:
    class PresenceSync(Note):
        __slots__ = ()
        _names = js_keys("event")

        @property
        def event(self) -> Any:
            return self._text_of

    assert PresenceSync("x").to_dict() == {"event": "x"}
    assert PresenceSync("x").to_json() == '{"event": "x"}'
    assert PresenceSync.from_dict({"event": "x"}) == PresenceSync("x")
    assert PresenceSync.from_json('{"event": "x"}') == PresenceSync("x")


def test_the_base_is_registered_as_a_mapping() -> None:
    assert issubclass(Payload, Mapping)
    assert not any(base is Mapping for base in Payload.__mro__)


def test_types_are_checked_by_name() -> None:
    check_types({"a": 1, "b": None}, a=int, b=(str, type(None)))
    with pytest.raises(ValueError, match="'a' cannot be of type int"):
        check_types({"a": 1}, a=str)


def test_a_brief_text_is_cut() -> None:
    assert brief("short") == "'short'"
    assert len(brief("x" * 10_000)) <= 60

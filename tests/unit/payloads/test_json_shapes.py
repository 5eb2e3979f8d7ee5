"""Plain data by way of dataclasses-json."""

from __future__ import annotations

import math
from typing import Any

import pytest

from supabase_rt._payloads.base import json_shape
from supabase_rt._payloads.broadcast import Broadcast
from supabase_rt._payloads.json_shapes import JsonShape, json_safe
from supabase_rt._payloads.postgres_change import BackfilledChange, PostgresChange
from supabase_rt._payloads.presence_events import PresenceJoin, PresenceLeave, PresenceSync
from supabase_rt._payloads.system_message import SystemMessage

PAYLOADS = (
    PostgresChange,
    Broadcast,
    PresenceSync,
    PresenceJoin,
    PresenceLeave,
    SystemMessage,
)

SHAPES: dict[str, dict[str, Any]] = {
    "PostgresChange": {
        "schema": "public",
        "table": "t",
        "commit_timestamp": None,
        "eventType": "INSERT",
        "new": {"a": [1, {"b": None}]},
        "old": {},
        "errors": None,
    },
    "Broadcast": {"type": "broadcast", "event": "x", "payload": [1.5], "meta": {"id": "1"}},
    "PresenceSync": {"event": "sync"},
    "PresenceJoin": {"event": "join", "key": "k", "currentPresences": [], "newPresences": [{}]},
    "PresenceLeave": {"event": "leave", "key": "k", "currentPresences": [], "leftPresences": [{}]},
    "SystemMessage": {"extension": "system", "status": "ok", "message": "m", "channel": "c"},
}
every = pytest.mark.parametrize(("shape", "values"), SHAPES.items())


def shape_of(name: str) -> JsonShape:
    return next(json_shape(kind) for kind in PAYLOADS if kind.__name__ == name)


def to_dict(shape: str, values: dict[str, Any]) -> dict[str, Any]:
    """Payloads return the same values as dataclasses-json, without using it."""
    found: dict[str, Any] = shape_of(shape).dataclass(**values).to_dict()
    return found


def to_json(shape: str, values: dict[str, Any]) -> str:
    return shape_of(shape).to_json(values)


def from_dict(shape: str, found: object) -> dict[str, Any]:
    return shape_of(shape).from_dict(found)


def from_json(shape: str, text: str | bytes) -> dict[str, Any]:
    return shape_of(shape).from_json(text)


@every
def test_values_go_out_as_they_are_in_the_order_of_the_keys(shape: str, values: Any) -> None:
    assert to_dict(shape, values) == values
    assert list(to_dict(shape, values)) == list(values)


@every
def test_values_come_back(shape: str, values: Any) -> None:
    found = from_json(shape, to_json(shape, values))
    assert {key: found[key] for key in values} == values
    assert from_dict(shape, values) == found


@pytest.mark.parametrize(("shape", "key"), [("Broadcast", "meta"), ("SystemMessage", "channel")])
def test_an_optional_key_is_left_out_without_a_value(shape: str, key: str) -> None:
    values = {name: value for name, value in SHAPES[shape].items() if name != key}
    assert to_dict(shape, values) == values
    assert from_dict(shape, values)[key] is None


def test_an_empty_value_of_an_optional_key_is_kept() -> None:
    assert to_dict("Broadcast", {"meta": {}})["meta"] == {}


@pytest.mark.parametrize(
    ("shape", "key"),
    [("PostgresChange", "eventType"), ("PresenceJoin", "key"), ("SystemMessage", "message")],
)
def test_a_missing_key_is_named(shape: str, key: str) -> None:
    values = {name: value for name, value in SHAPES[shape].items() if name != key}
    with pytest.raises(ValueError, match=f"{shape} without the key '{key}'"):
        from_dict(shape, values)


def test_wrong_types_are_not_turned_into_right_ones() -> None:
    found = from_dict("PostgresChange", {"eventType": 5, "table": ["t"], "new": "row"})
    assert (found["eventType"], found["table"], found["new"]) == (5, ["t"], "row")


@pytest.mark.parametrize("bad", [None, 1, "x", [], [("event", "sync")]])
def test_only_an_object_is_read(bad: Any) -> None:
    with pytest.raises(ValueError, match="from an object"):
        from_dict("PresenceSync", bad)


@pytest.mark.parametrize("text", ["", "{", "[]", b"\xff", "null"])
def test_text_that_is_no_object_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        from_json("PresenceSync", text)


def test_numbers_that_json_lacks_become_texts() -> None:
    values = {"a": [math.inf, (-math.inf,), {"b": math.nan}], "c": 1.5, "d": None, "e": "x"}
    assert json_safe(values) == {
        "a": ["Infinity", ["-Infinity"], {"b": "NaN"}],
        "c": 1.5,
        "d": None,
        "e": "x",
    }


def test_a_backfilled_change_travels_as_json_like_any_other() -> None:
    """Its shape is looked up by the name of its class, which was missing in the table."""
    change = BackfilledChange.from_dict({"eventType": "INSERT", "new": {"id": 1}})
    again = BackfilledChange.from_json(change.to_json())
    assert (type(again), again.new, again.backfilled) == (BackfilledChange, {"id": 1}, True)
    assert again == change


def test_each_object_has_a_default_of_its_own() -> None:
    first, second = (from_dict("PostgresChange", {"eventType": "INSERT"}) for _ in range(2))
    assert first["new"] == {}
    assert first["new"] is not second["new"]

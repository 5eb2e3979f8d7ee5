"""Plain data by way of dataclasses-json."""

from __future__ import annotations

import math
from typing import Any

import pytest

from supabase_rt._payloads import json_shapes
from supabase_rt._payloads.json_shapes import from_dict, from_json, json_safe, to_json

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


def to_dict(shape: str, values: dict[str, Any]) -> dict[str, Any]:
    """What dataclasses-json makes of the values; payloads make the same without it."""
    found: dict[str, Any] = json_shapes._shapes()[shape](**values).to_dict()
    return found


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

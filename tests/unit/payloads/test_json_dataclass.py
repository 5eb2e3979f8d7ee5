from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from supabase_rt._payloads.json_dataclass import JsonDataclass


@dataclass
class Option(JsonDataclass):
    name: str
    seconds: float = 1.0
    flag: bool = False
    limit: int | None = None
    steps: tuple[float, ...] = ()
    tags: list[str] = field(default_factory=list)


def test_fields_become_plain_values() -> None:
    assert Option("a", steps=(1.0, 2.0)).to_dict() == {
        "name": "a",
        "seconds": 1.0,
        "flag": False,
        "limit": None,
        "steps": [1.0, 2.0],
        "tags": [],
    }


def test_json_is_the_same_as_text() -> None:
    assert Option("ä").to_json() == (
        '{"name": "\\u00e4", "seconds": 1.0, "flag": false, "limit": null, "steps": [], "tags": []}'
    )


def test_what_json_cannot_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Option("a", seconds=float("nan")).to_json()


def test_an_object_comes_back_equal() -> None:
    option = Option("a", 2.5, True, 3, (1.0,), ["x"])
    assert Option.from_dict(option.to_dict()) == option
    assert Option.from_json(option.to_json()) == option
    assert Option.from_json(option.to_json().encode()) == option


def test_fields_left_out_have_their_defaults() -> None:
    assert Option.from_dict({"name": "a"}) == Option("a")


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ValueError, match="Option needs 'name'"):
        Option.from_dict({})


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="Option has no 'second'; did you mean 'seconds'"):
        Option.from_dict({"name": "a", "second": 1.0})


def test_an_unknown_key_near_nothing_lists_the_fields() -> None:
    with pytest.raises(ValueError, match="it has name, seconds, flag, limit, steps, tags"):
        Option.from_dict({"name": "a", "zzz": 1})


@pytest.mark.parametrize("values", [None, [], "name"])
def test_only_an_object_is_read(values: Any) -> None:
    with pytest.raises(ValueError, match="Option is read from an object"):
        Option.from_dict(values)


def test_text_that_is_not_json_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        Option.from_json("?")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", 1),
        ("name", None),
        ("seconds", "1"),
        ("seconds", True),
        ("seconds", None),
        ("flag", 1),
        ("flag", "true"),
        ("limit", 1.5),
        ("limit", "1"),
        ("steps", "12"),
        ("steps", ["1"]),
        ("tags", {"a": 1}),
    ],
)
def test_a_value_of_another_type_is_named_and_never_coerced(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"Option\.{name}: Expected"):
        Option.from_dict({"name": "a", name: value})


def test_importing_the_package_loads_no_dataclasses_json() -> None:
    code = (
        "import sys, supabase_rt._protocol.reconnect_policy\n"
        "print([name for name in ('dataclasses_json', 'marshmallow') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

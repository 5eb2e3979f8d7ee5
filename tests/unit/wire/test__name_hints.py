"""The hint for names that users know from supabase-js."""

from __future__ import annotations

import pytest

from supabase_rt._name_hints import no_attribute, snake_case


class Owner:
    event_type = 1
    in_ = 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("eventType", "event_type"),
        ("removeAllChannels", "remove_all_channels"),
        ("commit_timestamp", "commit_timestamp"),
        ("new", "new"),
        ("http2Send", "http2_send"),
    ],
)
def test_camel_case_becomes_snake_case(name: str, expected: str) -> None:
    assert snake_case(name) == expected


def test_a_name_of_supabase_js_is_answered_with_the_one_of_python() -> None:
    expected = "'Owner' object has no attribute 'eventType'; in Python it is 'event_type'"
    assert str(no_attribute(Owner(), "eventType")) == expected


def test_a_python_keyword_is_answered_with_the_underscore() -> None:
    expected = "'Owner' object has no attribute 'in'; in Python it is 'in_'"
    assert str(no_attribute(Owner(), "in")) == expected


@pytest.mark.parametrize("name", ["nothing", "noSuchName", "event_typ"])
def test_any_other_name_is_answered_as_python_does(name: str) -> None:
    assert str(no_attribute(Owner(), name)) == f"'Owner' object has no attribute {name!r}"

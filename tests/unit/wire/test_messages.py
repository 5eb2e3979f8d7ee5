from __future__ import annotations

import datetime
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._wire.envelope import PHOENIX, Message, UserBroadcast, sub_topic
from supabase_rt._wire.json_codec import dumps, loads, plain
from supabase_rt.errors import DecodeError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_heartbeats_have_the_topic_of_phoenix() -> None:
    assert PHOENIX == "phoenix"


def test_a_message_has_the_fields_of_the_wire_in_their_order() -> None:
    assert Message.__struct_fields__ == ("join_ref", "ref", "topic", "event", "payload")
    assert UserBroadcast.__struct_fields__ == ("event", "is_json", "metadata", "body")


@pytest.mark.parametrize(
    ("topic", "found"), [("realtime:a:b", "a:b"), ("Realtime:a", "a"), ("phoenix", "phoenix")]
)
def test_the_prefix_of_a_topic_is_taken_off(topic: str, found: str) -> None:
    assert sub_topic(topic) == found


# -- decoding ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['{"a":[1,null,true,"ä"]}', '{"a":[1,null,true,"ä"]}'.encode()])
def test_text_and_bytes_are_decoded(text: str | bytes) -> None:
    assert loads(text) == {"a": [1, None, True, "ä"]}


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**200), 10**400])
def test_integers_of_any_size_are_exact(number: int) -> None:
    assert loads(str(number)) == number


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e400", math.inf), ("-1e400", -math.inf), ("Infinity", math.inf), ('"\\ud800"', "\ud800")],
)
def test_what_only_the_standard_library_reads_is_read_by_it(text: str, value: Any) -> None:
    assert loads(text) == value
    assert math.isnan(loads("NaN"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1,]",
        "01",
        '"\\q"',
        '"\x01"',
        "nul",
        "1 2",
        b"\xff",
        b'"\xff"',
        "1" * 5000,
        "[" * 10**5,
    ],
)
def test_what_nobody_reads_is_a_decode_error(text: Any) -> None:
    with pytest.raises(DecodeError, match="not valid JSON"):
        loads(text)


def test_a_decode_error_shows_nothing_of_the_text() -> None:
    with pytest.raises(DecodeError) as caught:
        loads('{"access_token": "secret"')
    error = caught.value
    assert "secret" not in str(error)
    assert error.__cause__ is error.__context__ is None


@given(st.binary() | st.text())
def test_no_text_gives_anything_but_a_value_or_a_decode_error(text: Any) -> None:
    try:
        loads(text)
    except DecodeError:
        pass


# -- payloads ----------------------------------------------------------------------------


def test_an_undecoded_payload_is_decoded() -> None:
    assert plain(msgspec.Raw(b'{"a":1}')) == {"a": 1}


def test_an_undecoded_payload_that_cannot_be_read_is_a_decode_error() -> None:
    with pytest.raises(DecodeError):
        plain(msgspec.Raw(b"{"))


@pytest.mark.parametrize("payload", [{}, [], None, b"bytes", "text"])
def test_a_plain_payload_stays(payload: Any) -> None:
    assert plain(payload) is payload


# -- encoding ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True], "ä": "ö"}, '{"a":[1,2.5,null,true],"ä":"ö"}'),
        ({1: 2}, '{"1":2}'),
        (2**70, "1180591620717411303424"),
        ({"n": [2**70, "ä"]}, '{"n":[1180591620717411303424,"ä"]}'),
        ("\ud800", '"\\ud800"'),
        (math.nan, "null"),
        (math.inf, "null"),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
    ],
)
def test_values_become_compact_utf8(value: Any, text: str) -> None:
    assert dumps(value) == text.encode()


@pytest.mark.parametrize("value", [object(), {None: 1}, [1j], print])
def test_what_json_cannot_carry_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        dumps(value)


def test_a_value_that_contains_itself_is_a_value_error() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueError, match="contains itself"):
        dumps(value)


def test_a_value_too_deep_for_either_encoder_is_a_value_error() -> None:
    value: list[Any] = ["\ud800"]
    for _ in range(10**5):
        value = [value]
    with pytest.raises(ValueError, match="nested too deeply"):
        dumps(value)


def test_not_a_number_beside_what_the_standard_library_must_write_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="JSON"):
        dumps(["\ud800", math.nan])


@given(JSON)
def test_decoding_undoes_encoding(value: Any) -> None:
    assert loads(dumps(value)) == value

"""Cells as Python objects."""

from __future__ import annotations

import datetime
import json
import math
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._payloads.pg_values import Cell, decode_raw, python_cell
from supabase_rt.errors import DecodeError

UTC = datetime.UTC
CET = timezone(timedelta(hours=1))
SOME_ID = "11111111-1111-4111-8111-111111111111"

CASES: list[tuple[str, Any, Any]] = [
    ("bool", True, True),
    ("bool", "t", True),
    ("bool", "f", False),
    ("bool", "true", True),
    ("bool", "false", False),
    ("bool", "maybe", "maybe"),
    ("int4", 7, 7),
    ("int8", 9007199254740993, 9007199254740993),
    ("int8", "9007199254740993", 9007199254740993),
    ("int2", "-3", -3),
    ("oid", "12", 12),
    ("int4", "12abc", "12abc"),
    ("int4", "1_000", "1_000"),
    ("int4", "9" * 5000, "9" * 5000),
    ("float8", 2.25, 2.25),
    ("float8", 2, 2.0),
    ("float8", 10**400, 10**400),
    ("float4", "1.5", 1.5),
    ("float8", "1e+20", 1e20),
    ("float8", "Infinity", math.inf),
    ("float8", "-Infinity", -math.inf),
    ("float8", "1_0.5", "1_0.5"),
    ("float8", True, True),
    ("numeric", 7, Decimal(7)),
    ("numeric", "1.10", Decimal("1.10")),
    ("numeric", "Infinity", Decimal("Infinity")),
    ("numeric", "x", "x"),
    ("numeric", "1e99999999999999999999", "1e99999999999999999999"),
    ("numeric", "sNaN", "sNaN"),
    ("numeric", True, True),
    ("timestamp", "2026-01-02T03:04:05.678", datetime.datetime(2026, 1, 2, 3, 4, 5, 678000)),
    ("timestamp", "2026-01-02 03:04:05", datetime.datetime(2026, 1, 2, 3, 4, 5)),
    (
        "timestamptz",
        "2026-01-02T01:04:05.678+00:00",
        datetime.datetime(2026, 1, 2, 1, 4, 5, 678000, UTC),
    ),
    ("timestamptz", "2026-01-02 01:04:05+01", datetime.datetime(2026, 1, 2, 1, 4, 5, 0, CET)),
    (
        "timestamptz",
        "1890-01-02T01:04:05-00:19:32",
        datetime.datetime(1890, 1, 2, 1, 4, 5, 0, timezone(-timedelta(minutes=19, seconds=32))),
    ),
    ("timestamp", "2026-01-02T03:04:05.1234567", datetime.datetime(2026, 1, 2, 3, 4, 5, 123457)),
    ("timestamptz", "infinity", "infinity"),
    ("timestamptz", "-infinity", "-infinity"),
    ("timestamp", "0044-03-15T00:00:00 BC", "0044-03-15T00:00:00 BC"),
    ("timestamp", "10000-01-01T00:00:00", "10000-01-01T00:00:00"),
    ("timestamp", "20260102T030405", "20260102T030405"),
    ("date", "2026-01-02", datetime.date(2026, 1, 2)),
    ("date", "infinity", "infinity"),
    ("date", "0044-03-15 BC", "0044-03-15 BC"),
    ("date", "10000-01-01", "10000-01-01"),
    ("date", "2026-W01-1", "2026-W01-1"),
    ("time", "03:04:05", datetime.time(3, 4, 5)),
    ("time", "03:04:05.25", datetime.time(3, 4, 5, 250000)),
    ("time", "24:00:00", "24:00:00"),
    ("time", "noon", "noon"),
    ("timetz", "03:04:05+01", datetime.time(3, 4, 5, tzinfo=CET)),
    ("uuid", SOME_ID, UUID(SOME_ID)),
    ("uuid", "ABCDEF00-1111-4111-8111-111111111111", UUID(int=0xABCDEF00111141118111111111111111)),
    ("uuid", SOME_ID.replace("-", ""), UUID(SOME_ID)),
    ("uuid", "{" + SOME_ID + "}", "{" + SOME_ID + "}"),
    ("bytea", "deadbeef", b"\xde\xad\xbe\xef"),
    ("bytea", "\\xdeadbeef", b"\xde\xad\xbe\xef"),
    ("bytea", "", b""),
    ("bytea", "de ad", "de ad"),
    ("bytea", "abc", "abc"),
    ("bytea", "é", "é"),
    ("json", {"a": [1, 1.5, None]}, {"a": [1, 1.5, None]}),
    ("jsonb", '{"a": 1.5}', {"a": 1.5}),
    ("json", "[1, 2]", [1, 2]),
    ("jsonb", "hello", "hello"),
    ("jsonb", "123", "123"),
    ("jsonb", "{oops", "{oops"),
    ("_int4", [1, 2, None], [1, 2, None]),
    ("_int4", "{1,2,NULL}", [1, 2, None]),
    ("_int8", [[1], [2]], [[1], [2]]),
    ("_text", ["a", "b,c"], ["a", "b,c"]),
    ("_text", '{a,"b,c",NULL}', ["a", "b,c", None]),
    ("_text", "not an array", "not an array"),
    ("_text", 5, 5),
    ("_uuid", [SOME_ID], [UUID(SOME_ID)]),
    ("_date", [["2026-01-02"], [None]], [[datetime.date(2026, 1, 2)], [None]]),
    ("_float8", [1, "Infinity"], [1.0, math.inf]),
    ("_numeric", "{1.10,{2}}", [Decimal("1.10"), [Decimal(2)]]),
    ("_jsonb", [["1"], {"a": 1}, "{}"], [["1"], {"a": 1}, "{}"]),
    ("_jsonb", '{"{\\"a\\": 1}",NULL}', [{"a": 1}, None]),
    ("_box", "{(2,2),(1,1);(4,4),(3,3)}", ["(2,2),(1,1)", "(4,4),(3,3)"]),
    ("_int4range", '{"[1,5)","[7,9)"}', ["[1,5)", "[7,9)"]),
]


def cell(type_name: str) -> Cell:
    found = python_cell(type_name)
    assert found is not None
    return found


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


@pytest.mark.parametrize(("type_name", "value", "expected"), CASES)
def test_a_decoded_value_is_converted(type_name: str, value: Any, expected: Any) -> None:
    assert same(cell(type_name).plain(value), expected)


@pytest.mark.parametrize(
    ("type_name", "value", "expected"), [case for case in CASES if case[1] != 10**400]
)
def test_the_text_of_a_value_is_converted_alike(type_name: str, value: Any, expected: Any) -> None:
    assert same(cell(type_name).raw(msgspec.Raw(json.dumps(value).encode())), expected)


@pytest.mark.parametrize("type_name", [case[0] for case in CASES])
def test_null_is_none_in_every_type(type_name: str) -> None:
    assert cell(type_name).plain(None) is None
    assert cell(type_name).raw(msgspec.Raw(b"null")) is None


@pytest.mark.parametrize("type_name", ["text", "varchar", "int4range", "inet", "money", "mood", ""])
def test_types_without_a_python_object_have_no_cell(type_name: str) -> None:
    assert python_cell(type_name) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"123456789.123456789", "123456789.123456789"),
        (b"1.10", "1.10"),
        (b"-0.000000000000000000000000001", "-1E-27"),
        (b"1e400", "1E+400"),
        (b"9" * 5000, "9" * 5000),
        # A number beyond the limits of Decimal stays a text.
        (b"1e99999999999999999999", "1e99999999999999999999"),
    ],
)
def test_numeric_is_read_from_the_text_of_the_number(text: bytes, expected: str) -> None:
    assert str(cell("numeric").raw(msgspec.Raw(text))) == expected


def test_an_array_of_numeric_is_read_from_the_texts_of_its_numbers() -> None:
    found = cell("_numeric").raw(msgspec.Raw(b'[1.10, [123456789.123456789, null], "NaN", true]'))
    assert repr(found[:2]) == "[Decimal('1.10'), [Decimal('123456789.123456789'), None]]"
    assert found[2].is_nan()
    assert found[3] is True


def test_a_numeric_that_was_a_float_already_keeps_its_digits() -> None:
    assert cell("numeric").plain(1.1) == Decimal("1.1")


def test_not_a_number_is_kept_as_such() -> None:
    assert cell("numeric").raw(msgspec.Raw(b'"NaN"')).is_nan()
    assert math.isnan(cell("float8").plain("NaN"))


def test_nesting_that_no_decoder_reads_is_a_decode_error() -> None:
    cell = python_cell("_numeric")
    assert cell is not None
    with pytest.raises(DecodeError):
        cell.raw(msgspec.Raw(b"[" * 100_000 + b"]" * 100_000))


def test_nesting_beyond_the_dimensions_of_postgres_is_left_alone() -> None:
    deep: Any = "2026-01-02"
    for _ in range(50):
        deep = [deep]
    found = cell("_date").plain(deep)
    assert found == deep
    text = json.dumps(deep).encode()
    assert cell("_numeric").raw(msgspec.Raw(text)) == deep


def test_a_number_beyond_float_is_read_as_json_reads_it() -> None:
    assert decode_raw(msgspec.Raw(b"1e400")) == math.inf


def test_a_value_that_nothing_reads_is_a_decode_error() -> None:
    with pytest.raises(DecodeError):
        decode_raw(msgspec.Raw(b'"\xff"'))
    with pytest.raises(DecodeError):
        cell("numeric").raw(msgspec.Raw(b'"\xff"'))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.sampled_from([case[0] for case in CASES]), values)
def test_no_value_raises(type_name: str, value: Any) -> None:
    cell(type_name).plain(value)
    cell(type_name).raw(msgspec.Raw(msgspec.json.encode(value)))


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_every_decimal_survives(value: Decimal) -> None:
    text = f"{value:f}"
    found = cell("numeric").raw(msgspec.Raw(text.encode()))
    assert found == value
    assert f"{found:f}" == text


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_timestamp_survives(value: datetime.datetime) -> None:
    assert cell("timestamptz").plain(value.isoformat()) == value
    assert cell("timestamptz").plain(value.isoformat(" ")) == value


@given(st.binary())
def test_every_bytea_survives(value: bytes) -> None:
    assert cell("bytea").plain(value.hex()) == value
    assert cell("bytea").plain("\\x" + value.hex()) == value

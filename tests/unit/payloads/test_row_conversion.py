"""Rows converted by the types of their columns."""

from __future__ import annotations

import datetime
import json
import math
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._payloads.pg_values import decode_raw, python_cell
from supabase_rt._payloads.row_conversion import (
    MODES,
    check_mode,
    convert_cell,
    convert_change_data,
    convert_column,
    convert_row,
    to_array,
    to_boolean,
    to_json,
    to_number,
    to_timestamp_string,
)
from supabase_rt.errors import DecodeError

SOME_ID = "11111111-1111-4111-8111-111111111111"

# As a real server sent them.
COLUMNS = (
    b'[{"name": "id", "type": "int8"}, {"name": "c_bool", "type": "bool"}, '
    b'{"name": "c_int8", "type": "int8"}, {"name": "c_float4", "type": "float4"}, '
    b'{"name": "c_numeric", "type": "numeric"}, {"name": "c_text", "type": "text"}, '
    b'{"name": "c_jsonb", "type": "jsonb"}, {"name": "c_uuid", "type": "uuid"}, '
    b'{"name": "c_bytea", "type": "bytea"}, {"name": "c_ts", "type": "timestamp"}, '
    b'{"name": "c_tstz", "type": "timestamptz"}, {"name": "c_int_arr", "type": "_int4"}, '
    b'{"name": "c_text_arr", "type": "_text"}, {"name": "c_int4range", "type": "int4range"}]'
)
RECORD = (
    b'{"id": 5, "c_ts": "2026-01-02T03:04:05.678", "c_bool": true, "c_int8": 9007199254740993, '
    b'"c_text": "t", "c_tstz": "2026-01-02T01:04:05.678+00:00", '
    b'"c_uuid": "11111111-1111-4111-8111-111111111111", "c_bytea": "deadbeef", '
    b'"c_jsonb": {"b": [true, null]}, "c_float4": 1.5, "c_int_arr": [1, 2, null], '
    b'"c_numeric": 123456789.123456789, "c_text_arr": ["a", "b,c"], "c_int4range": "[1,5)"}'
)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(value if isinstance(value, bytes) else json.dumps(value).encode())


def columns(**types: Any) -> list[dict[str, Any]]:
    return [{"name": name, "type": type_name} for name, type_name in types.items()]


# -- the helpers, with the cases of supabase-js' own tests ------------------------------------


@pytest.mark.conformance("TF1")
def test_change_data_is_converted_by_column() -> None:
    types = columns(first_name="text", age="int4")
    assert convert_change_data(types, {"first_name": "Paul", "age": "33"}) == {
        "first_name": "Paul",
        "age": 33,
    }
    assert convert_change_data(types, {"first_name": "Paul", "age": 33})["age"] == 33
    assert convert_change_data(types, {"first_name": "Paul", "age": None})["age"] is None


@pytest.mark.conformance("TF1")
def test_no_record_is_an_empty_row() -> None:
    assert convert_change_data(columns(age="int4"), None) == {}


def test_change_data_leaves_skipped_types_and_unknown_columns_alone() -> None:
    row = {"age": "33", "name": "Paul", "id": "7"}
    found = convert_change_data(columns(age="int4", id="int8", gone="int4"), row, ["int4"])
    assert found == {"age": "33", "name": "Paul", "id": 7}
    assert row["id"] == "7"


@pytest.mark.conformance("TF2")
def test_one_column_is_converted() -> None:
    types = columns(age="int4", name="text")
    assert convert_column("age", types, {"age": "33"}) == 33
    assert convert_column("age", types, {"age": "33"}, ["int4"]) == "33"
    assert convert_column("name", types, {"name": "33"}) == "33"
    assert convert_column("other", types, {"other": "33"}) == "33"
    assert convert_column("age", types, {}) is None


@pytest.mark.conformance("TF3")
@pytest.mark.parametrize(
    ("type_name", "value", "expected"),
    [
        ("bool", "t", True),
        ("bool", "f", False),
        ("bool", "yes", "yes"),
        ("int2", "1", 1),
        ("int8", "10", 10),
        ("int8", "9007199254740993", 9007199254740993),
        ("float4", "1.1", 1.1),
        ("numeric", "12345.12345", 12345.12345),
        ("numeric", "NaN", "NaN"),
        ("oid", "7", 7),
        ("int4range", "[1,10)", "[1,10)"),
        ("json", "[1,2]", [1, 2]),
        ("jsonb", "[[1,2],[3]]", [[1, 2], [3]]),
        ("json", '"[1,2,3]"', "[1,2,3]"),
        ("json", "{oops", "{oops"),
        ("_int4", "{1,2,3,4}", [1, 2, 3, 4]),
        ("_varchar", "{}", []),
        ("timestamp", "2019-09-10 00:00:00", "2019-09-10T00:00:00"),
        ("timestamptz", "2019-09-10 00:00:00+00", "2019-09-10 00:00:00+00"),
        ("no_such_type", "x", "x"),
        ("int8", None, None),
    ],
)
def test_a_cell_is_converted_by_its_type(type_name: str, value: Any, expected: Any) -> None:
    found = convert_cell(type_name, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.conformance("TF4", "TF7")
@pytest.mark.parametrize(
    ("value", "type_name", "expected"),
    [
        ("{}", "int4", []),
        ("{1}", "int4", [1]),
        ("{1,2,3}", "int4", [1, 2, 3]),
        ('{"[2021-01-01,2021-12-31)","(2021-01-01,2021-12-32]"}', "daterange", None),
        ("{a,b,c}", "text", ["a", "b", "c"]),
        ('{"a","b,c"}', "text", ["a", "b,c"]),
        ("{1,NULL}", "int4", [1, "NULL"]),
        ("{NaN}", "float8", ["NaN"]),
        ("{t,f}", "bool", [True, False]),
        ("{{1,2},{3,4}}", "int4", ["{1", 2, "{3", 4]),
        ("{1e400}", "float8", [math.inf]),
        ([1, 2], "int4", [1, 2]),
        ("1,2", "int4", "1,2"),
        ("{", "int4", "{"),
        ("{1", "int4", "{1"),
        ("", "int4", ""),
        (None, "int4", None),
        (5, "int4", 5),
        ("{{1}}", "_int4", ["{1}"]),
    ],
)
def test_arrays_are_read_as_supabase_js_reads_them(
    value: Any, type_name: str, expected: Any
) -> None:
    if expected is None and value is not None:
        expected = ["[2021-01-01,2021-12-31)", "(2021-01-01,2021-12-32]"]
    assert to_array(value, type_name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12abc", 12),
        ("-5", -5),
        ("+5", 5),
        (" \t7", 7),
        ("\ufeff7", 7),
        ("1_000", 1),
        ("1.10", 1.1),
        ("5.", 5.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1e", 1),
        ("-Infinity", -math.inf),
        ("9" * 400, int("9" * 400)),
        ("1e999", math.inf),
    ],
)
def test_a_number_is_read_from_the_start_of_a_text(text: str, expected: float) -> None:
    found = to_number(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("value", ["", "abc", ".", "inf", "NaN", "٣", "9" * 5000, None, [1], 1.5])
def test_what_is_no_number_is_left_alone(value: Any) -> None:
    assert to_number(value) is value


@pytest.mark.conformance("TF6")
@pytest.mark.parametrize("value", [True, None, 1, [], {"a": 1}])
def test_values_that_are_no_texts_are_left_alone(value: Any) -> None:
    assert to_json(value) is value
    assert to_boolean(value) is value
    assert to_timestamp_string(value) is value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a":1}', {"a": 1}),
        ("1e400", math.inf),
        ('"\\ud800"', "\ud800"),
        ('"\ud800"', "\ud800"),
        ("NaN", "NaN"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_json_texts_are_read_as_javascript_reads_them(text: str, expected: Any) -> None:
    assert to_json(text) == expected


@pytest.mark.conformance("TF5")
def test_only_the_first_space_of_a_timestamp_is_replaced() -> None:
    assert to_timestamp_string("2019-09-10 00:00:00 BC") == "2019-09-10T00:00:00 BC"


# -- rows -------------------------------------------------------------------------------------


def test_a_row_in_js_mode_keeps_what_json_gave_but_integers_are_exact() -> None:
    row = convert_row(raw(COLUMNS), raw(RECORD), "js")
    assert row == json.loads(RECORD)
    assert row["c_int8"] == 9007199254740993
    assert type(row["c_numeric"]) is float


def test_a_row_in_js_mode_has_its_texts_converted() -> None:
    types = columns(n="int8", b="bool", j="jsonb", a="_int4", t="text", ts="timestamp")
    texts = {"n": "7", "b": "t", "j": "[1]", "a": "{1,2}", "t": "7", "ts": "2026-01-02 03:04"}
    expected = {"n": 7, "b": True, "j": [1], "a": [1, 2], "t": "7", "ts": "2026-01-02T03:04"}
    assert convert_row(raw(types), raw(texts), "js") == expected
    assert convert_row(types, texts, "js") == expected
    assert texts["n"] == "7"


def test_a_row_in_python_mode_has_python_objects() -> None:
    row = convert_row(raw(COLUMNS), raw(RECORD), "python")
    assert list(row) == list(json.loads(RECORD))
    assert str(row["c_numeric"]) == "123456789.123456789"
    assert row["c_uuid"] == UUID("11111111-1111-4111-8111-111111111111")
    assert row["c_bytea"] == b"\xde\xad\xbe\xef"
    assert row["c_ts"].isoformat() == "2026-01-02T03:04:05.678000"
    assert row["c_tstz"].isoformat() == "2026-01-02T01:04:05.678000+00:00"
    assert row["c_int_arr"] == [1, 2, None]
    assert row["c_text_arr"] == ["a", "b,c"]
    assert row["c_jsonb"] == {"b": [True, None]}
    assert row["c_int4range"] == "[1,5)"
    assert row["c_float4"] == 1.5


def test_a_decoded_row_in_python_mode_is_converted_too() -> None:
    row = convert_row(json.loads(COLUMNS), json.loads(RECORD), "python")
    assert type(row["c_numeric"]) is Decimal
    assert row["c_bytea"] == b"\xde\xad\xbe\xef"
    assert row["c_text"] == "t"


def test_a_row_that_only_json_reads_is_converted_in_every_mode() -> None:
    record = raw(b'{"n": 1, "s": "\\ud800"}')
    for mode, number in (("js", 1), ("python", Decimal(1)), ("raw", 1)):
        row = convert_row(raw(columns(n="numeric")), record, mode)
        assert row == {"n": number, "s": "\ud800"}


def test_a_row_in_raw_mode_is_what_json_gave() -> None:
    record = {"n": "7", "b": "t"}
    assert convert_row(raw(columns(n="int8", b="bool")), raw(record), "raw") == record
    assert convert_row(None, record, "raw") == record


@pytest.mark.parametrize("mode", MODES)
def test_no_record_gives_an_empty_row_and_no_columns_no_conversion(mode: str) -> None:
    assert convert_row(raw(COLUMNS), None, mode) == {}
    assert convert_row(raw(COLUMNS), raw(b"null"), mode) == {}
    nothing: list[Any] = [None, raw(b"null"), raw(b"[]"), []]
    for none in nothing:
        assert convert_row(none, raw(b'{"n": "7"}'), mode) == {"n": "7"}


@pytest.mark.parametrize("mode", MODES)
def test_columns_missing_in_the_record_stay_missing(mode: str) -> None:
    # A record over the size limit of the server comes without its long values.
    found = convert_row(raw(columns(id="int8", body="jsonb")), raw(b'{"id": 4442}'), mode)
    assert found == {"id": 4442}


def test_of_columns_with_the_same_name_the_first_counts() -> None:
    types = [*columns(n="int8"), *columns(n="bool")]
    assert convert_row(raw(types), raw({"n": "7"}), "js") == {"n": 7}


def test_further_keys_of_a_column_and_missing_types_are_passed_over() -> None:
    types = [{"name": "n", "type": "int8", "flags": ["key"]}, {"name": "m"}]
    assert convert_row(raw(types), raw({"n": "7", "m": "7"}), "js") == {"n": 7, "m": "7"}


def test_columns_that_only_json_reads_are_understood() -> None:
    types = b'[{"name": "\\ud800", "type": "int8"}]'
    assert convert_row(raw(types), {"\ud800": "7"}, "js") == {"\ud800": 7}


@pytest.mark.parametrize("mode", ["js", "python"])
@pytest.mark.parametrize(
    "bad", [{}, 1, "columns", [1], [{"type": "int8"}], [{"name": 1}], [{"name": "a", "type": 2}]]
)
def test_malformed_columns_are_a_decode_error(mode: str, bad: Any) -> None:
    with pytest.raises(DecodeError, match="columns"):
        convert_row(raw(bad), raw(b"{}"), mode)
    with pytest.raises(DecodeError, match="columns"):
        convert_row(bad, {}, mode)


@pytest.mark.parametrize("mode", ["js", "python"])
def test_a_column_named_with_half_a_character_is_a_decode_error(mode: str) -> None:
    """Found by fuzzing: it was a ``UnicodeEncodeError``."""
    columns = msgspec.Raw(b'[{"name":"a","type":"int4","\\ud800":1}]')
    with pytest.raises(DecodeError, match="malformed columns"):
        convert_row(columns, msgspec.Raw(b'{"a":"1"}'), mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [[], 1, "row", True])
def test_a_malformed_record_is_a_decode_error(mode: str, bad: Any) -> None:
    with pytest.raises(DecodeError, match="row"):
        convert_row(None, raw(bad), mode)
    with pytest.raises(DecodeError, match="row"):
        convert_row(None, bad, mode)


@pytest.mark.parametrize("mode", MODES)
def test_text_that_is_no_json_is_a_decode_error(mode: str) -> None:
    with pytest.raises(DecodeError):
        convert_row(raw(b"[]"), raw(b"{"), mode)
    if mode != "raw":
        with pytest.raises(DecodeError):
            convert_row(raw(b"["), raw(b"{}"), mode)


def test_the_dict_is_the_callers_own() -> None:
    first = convert_row(raw(COLUMNS), raw(RECORD), "js")
    first["c_jsonb"]["b"].append(1)
    assert convert_row(raw(COLUMNS), raw(RECORD), "js")["c_jsonb"] == {"b": [True, None]}


@pytest.mark.parametrize("bad", ["JS", "", None, 1, []])
def test_an_unknown_mode_is_refused_with_the_names_of_the_three(bad: Any) -> None:
    for refuse in (check_mode, lambda mode: convert_row(None, None, mode)):
        with pytest.raises(ValueError, match='"js", "python" or "raw"'):
            refuse(bad)


@pytest.mark.parametrize("mode", MODES)
def test_the_three_modes_are_accepted(mode: str) -> None:
    check_mode(mode)


TYPES = ["bool", "int4", "numeric", "json", "timestamp", "uuid", "text", "_int4", "__int4"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
names = st.sampled_from("abc")


@given(
    st.dictionaries(names, st.sampled_from(TYPES)),
    st.dictionaries(names, json_values),
    st.sampled_from(MODES),
)
def test_rows_of_json_are_converted_alike_decoded_or_not(
    types: dict[str, str], record: dict[str, Any], mode: str
) -> None:
    text = json.dumps(record).encode()
    plain = convert_row(columns(**types), json.loads(text), mode)
    assert convert_row(raw(columns(**types)), raw(text), mode) == plain
    assert plain.keys() == record.keys()


texts_of_postgres = st.one_of(
    st.datetimes().map(datetime.datetime.isoformat),
    st.datetimes(timezones=st.timezones()).map(datetime.datetime.isoformat),
    st.dates().map(str),
    st.uuids().map(str) | st.uuids().map(lambda found: str(found).upper()),
    st.decimals(allow_nan=False).map(str),
    st.sampled_from(["infinity", "-infinity", "NaN", "0044-03-15T00:00:00+00:00 BC", "t", "{1,2}"]),
    st.sampled_from(
        ["2026-01-02 03:04:05+01", "10000-01-01", "294276-12-31T00:00:00", "12:00:00+00"]
    ),
)
cell_texts = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False).map(lambda found: f"{found:f}"),
    texts_of_postgres.map(json.dumps),
    # An infinity that is not a text is not JSON either.
    json_values.map(json.dumps).filter(lambda text: "Infinity" not in text),
)


@given(
    st.lists(
        st.tuples(st.sampled_from(["numeric", "timestamptz", "date", "uuid", *TYPES]), cell_texts),
        min_size=1,
    ),
    st.sampled_from(["column", "größe", 'a "b"', "\ud800"]),
)
def test_a_row_of_python_objects_is_that_of_its_cells(
    cells: list[tuple[str, str]], name: str
) -> None:
    """Rows that are converted at once equal rows that are converted cell by cell."""
    types = {f"{name}{number}": kind for number, (kind, _) in enumerate(cells)}
    texts = dict(zip(types, (text for _, text in cells), strict=True))
    record = "{" + ",".join(f"{json.dumps(key)}:{text}" for key, text in texts.items()) + "}"
    expected = {}
    for key, text in texts.items():
        cell, undecoded = python_cell(types[key]), msgspec.Raw(text.encode())
        expected[key] = decode_raw(undecoded) if cell is None else cell.raw(undecoded)
    found = convert_row(raw(columns(**types)), raw(record.encode()), "python")
    if name == "\ud800":
        # Only the standard library can read it, and its floats lose digits.
        assert found.keys() == expected.keys()
    else:
        assert repr(found) == repr(expected)


@pytest.mark.parametrize(
    "moment", ["infinity", "0044-03-15T00:00:00+00:00 BC", "2026-01-02 03:04+01"]
)
def test_a_moment_that_is_not_as_most_are_leaves_the_other_cells_alone(moment: str) -> None:
    types = columns(at="timestamptz", n="numeric", id="uuid", new="int4")
    text = f'{{"other": 1, "n": 1.10, "at": "{moment}", "id": "{SOME_ID}"}}'
    row = convert_row(raw(types), raw(text.encode()), "python")
    assert list(row) == ["other", "n", "at", "id"]
    assert (str(row["n"]), row["id"]) == ("1.10", UUID(SOME_ID))
    assert row["at"] == moment or row["at"].isoformat() == "2026-01-02T03:04:00+01:00"


@given(json_values, json_values, st.sampled_from(MODES))
def test_nothing_but_a_decode_error_comes_out_of_garbage(
    types: Any, record: Any, mode: str
) -> None:
    for wrap in (raw, lambda value: value):
        try:
            assert isinstance(convert_row(wrap(types), wrap(record), mode), dict)
        except DecodeError:
            pass


@given(st.integers())
def test_integers_of_any_size_are_exact(number: int) -> None:
    types = raw(columns(n="int8", s="int8"))
    for mode in ("js", "python"):
        row = convert_row(types, raw({"n": number, "s": str(number)}), mode)
        assert row == {"n": number, "s": number}

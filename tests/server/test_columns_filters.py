"""Column values and filter conditions, one by one."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

import pytest

from supabase_rt._wire.json_codec import dumps
from supabase_rt.server._tables.change_feed import ServerBinding
from supabase_rt.server._tables.column_types import cast, default_value, exact, infer, wire
from supabase_rt.server._tables.filter_matching import Condition, FilterError, check, parse, passes
from supabase_rt.server._tables.patterns import like

UUID = "11111111-1111-4111-8111-111111111111"
EAST = dt.timezone(dt.timedelta(hours=2))


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "text", "null"),
        ("t", "text", '"t"'),
        (True, "bool", "true"),
        (9007199254740993, "int8", "9007199254740993"),
        (2**70, "numeric", "1180591620717411303424"),
        (1.5, "float8", "1.5"),
        (float("nan"), "float8", '"NaN"'),
        (float("-inf"), "float8", '"-Infinity"'),
        (decimal.Decimal("123456789.123456789123"), "numeric", "123456789.123456789123"),
        (decimal.Decimal("1E+3"), "numeric", "1000"),
        (decimal.Decimal("NaN"), "numeric", '"NaN"'),
        (uuid.UUID(UUID), "uuid", f'"{UUID}"'),
        (b"\xde\xad", "bytea", '"dead"'),
        (dt.date(2026, 1, 2), "date", '"2026-01-02"'),
        (dt.time(3, 4, 5), "time", '"03:04:05"'),
        (dt.datetime(2026, 1, 2, 3, 4, 5, 678000), "timestamp", '"2026-01-02T03:04:05.678000"'),
        (
            dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=EAST),
            "timestamptz",
            '"2026-01-02T01:04:05+00:00"',
        ),
        ({"a": [1, decimal.Decimal("0.10")]}, "jsonb", '{"a":[1,0.10]}'),
        ([None, 1], "_int8", "[null,1]"),
        ((), "_text", "[]"),
    ],
)
def test_values(value: Any, kind: str, text: str) -> None:
    assert infer(value) == kind
    assert dumps(exact(wire(value))).decode() == text


def test_keys_that_an_insert_leaves_out() -> None:
    assert default_value("int8", 4) == 5
    assert isinstance(default_value("uuid", 0), uuid.UUID)
    assert default_value("text", 0) is None


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        ("int4", "5", 5),
        ("numeric", "1.50", decimal.Decimal("1.5")),
        ("float8", 1.5, decimal.Decimal("1.5")),
        ("bool", "T", True),
        ("bool", "of", False),
        ("bool", True, True),
        ("date", "2026-01-02", dt.date(2026, 1, 2)),
        ("timestamp", "2026-01-02T00:00:00", dt.datetime(2026, 1, 2, tzinfo=dt.UTC)),
        ("uuid", UUID.upper(), UUID),
        ("jsonb", {"a": 1}, '{"a": 1}'),
        ("jsonb", 5, "5"),
    ],
)
def test_casts(kind: str, value: Any, found: Any) -> None:
    assert cast(kind, value) == found


@pytest.mark.parametrize(
    ("kind", "value"),
    [("int8", "x"), ("numeric", "x"), ("bool", "o"), ("uuid", "x"), ("date", "x")],
)
def test_casts_that_fail(kind: str, value: str) -> None:
    with pytest.raises(ValueError):
        cast(kind, value)


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("", []),
        ("  ", []),
        ("a=eq.1", [("a", "eq", "1")]),
        ("a=eq.b=c.d", [("a", "eq", "b=c.d")]),
        (" a=eq.1 , b=gt.2", [("a", "eq", "1"), ("b", "gt", "2")]),
        ('a=eq."x,\\"y",b=lt.1', [("a", "eq", 'x,"y'), ("b", "lt", "1")]),
        ('a=eq."open', [("a", "eq", '"open')]),
        ('a=eq."x"y', [("a", "eq", '"x"y')]),
        ('a=eq.x"y,b=eq.z', [("a", "eq", 'x"y'), ("b", "eq", "z")]),
        ("a=eq.(1,2),b=eq.3", [("a", "eq", "(1,2)"), ("b", "eq", "3")]),
    ],
)
def test_parsing(text: str, conditions: list[tuple[str, str, str]]) -> None:
    assert list(parse(text)) == [Condition(*each) for each in conditions]


def test_parsing_of_lists() -> None:
    (found,) = parse('a=not.in.(1, "x,y",)')
    assert found.values == ("1", "x,y", "")
    assert found.negated
    assert found.shown() == '{"a", "in", "{1, \\"x,y\\",}", true}'
    assert parse("a=in.()")[0].values == ()
    assert parse('a=in.("x,y",(z)')[0].values == ("x,y", "(z")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a=eq.1,", "filter must not contain empty segments (check for extra commas)"),
        ("a=in.1,2", "`in` filter value must be wrapped by parentheses"),
        ("a=EQ.1", '["a", "EQ.1"]'),
        ("a", '["a"]'),
    ],
)
def test_filters_that_cannot_be_parsed(text: str, problem: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text)
    assert str(caught.value) == f"Error parsing `filter` params: {problem}"


COLUMNS = {"n": "int4", "t": "text", "b": "bool", "p": "float8"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x=eq.1", "invalid column for filter x"),
        ("n=in.(" + ",".join("1" * 101) + ")", "too many values for `in` filter. Maximum 100"),
        ("n=is.5", "invalid value for is filter: must be null, true, false, or unknown"),
        ("n=is.true", "is true filter requires a boolean column, got int4"),
        ("n=like.1", "operator like requires a text-compatible column type, got int4"),
        ("t=match.(", "invalid regular expression for match filter"),
        (
            "n=eq.x",
            'ERROR 22P02 (invalid_text_representation) invalid input syntax for type int4: "x"',
        ),
        ("n=in.(1,x)", 'invalid input syntax for type int4: "x"'),
    ],
)
def test_filters_that_do_not_fit_the_table(text: str, problem: str) -> None:
    with pytest.raises(FilterError) as caught:
        check(parse(text)[0], COLUMNS)
    assert problem in str(caught.value)


@pytest.mark.parametrize("text", ["n=eq.1", "n=in.(1,2)", "t=match.^a", "b=is.true", "n=is.null"])
def test_filters_that_fit_the_table(text: str) -> None:
    check(parse(text)[0], COLUMNS)


@pytest.mark.parametrize(
    ("text", "row", "matches"),
    [
        ("b=is.true", {"b": True}, True),
        ("b=is.true", {"b": None}, False),
        ("b=is.unknown", {"b": None}, True),
        ("b=not.is.true", {"b": None}, True),
        ("n=isdistinct.5", {"n": None}, True),
        ("n=not.isdistinct.5", {"n": 5}, True),
        ("n=not.eq.5", {"n": None}, False),
        ("n=eq.5", {}, False),
        ("n=is.null", {}, False),
        ("n=eq.x", {"n": 5}, False),
        ("n=is.5", {"n": 5}, False),
        ("t=match.(", {"t": "("}, False),
        ("t=like.a\\%_", {"t": "a%b"}, True),
        ("t=like.a\\%_", {"t": "axb"}, False),
        ("t=not.imatch.^B", {"t": "abc"}, True),
        ("new=eq.x", {"new": "x"}, True),
        ("p=gt.nan", {"p": 5.0}, False),
        ("p=gt.5", {"p": "NaN"}, True),
        ("p=eq.NaN", {"p": "NaN"}, True),
        ("t=match.x{99999999999}", {"t": "x"}, False),
        ("t=like.%b%_a%", {"t": "abba"}, True),
        ("t=like.%ab%b", {"t": "ab"}, False),
        ("t=like.%ab%b", {"t": "abab"}, True),
        ("t=like." + "%a" * 30 + "b", {"t": "a" * 60}, False),
    ],
)
def test_evaluation(text: str, row: dict[str, Any], matches: bool) -> None:
    assert passes(parse(text), row, COLUMNS) is matches


def test_a_table_name_of_wildcards_holds_nobody_up() -> None:
    binding = ServerBinding.read({"schema": "public", "table": "%" * 40 + "%a" * 20 + "!"})
    assert not binding.names("public", "a" * 60)


def test_patterns() -> None:
    assert like("a_%.\\") == "a..*\\.\\\\"
    assert like("a\\_", escapes=False) == "a\\\\."

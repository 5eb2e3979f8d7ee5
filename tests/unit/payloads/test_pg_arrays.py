"""Postgres array literals."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._payloads import pg_arrays
from supabase_rt._payloads.pg_arrays import MAX_DIMENSIONS, parse_array


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", []),
        ("{1,2,3}", ["1", "2", "3"]),
        ("{1,NULL,null}", ["1", None, None]),
        ('{"NULL",""}', ["NULL", ""]),
        ('{a,"b,c"}', ["a", "b,c"]),
        ('{"a\\"b","c\\\\d","{e}"}', ['a"b', "c\\d", "{e}"]),
        ("{hello world , x}", ["hello world", "x"]),
        (" { 1 , 2 } ", ["1", "2"]),
        ("{{1,2},{3,4}}", [["1", "2"], ["3", "4"]]),
        ("{{},{}}", [[], []]),
        ("[0:1]={1,2}", ["1", "2"]),
        ("[-1:0][2:3]={{1,2},{3,4}}", [["1", "2"], ["3", "4"]]),
        ('{"[2026-01-01,2026-02-01)"}', ["[2026-01-01,2026-02-01)"]),
        ('{"two\nlines"}', ["two\nlines"]),
        ("{NULLABLE}", ["NULLABLE"]),
    ],
)
def test_literals_are_read_as_postgres_reads_them(text: str, expected: list[Any]) -> None:
    assert parse_array(text) == expected


def test_boxes_are_separated_by_semicolons() -> None:
    assert parse_array("{(2,2),(1,1);(4,4),(3,3)}", ";") == ["(2,2),(1,1)", "(4,4),(3,3)"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "1,2",
        "{",
        "}",
        "{1",
        "{1}}",
        "{1} x",
        "{1,}",
        "{,1}",
        "{1,,2}",
        "{{1},}",
        '{"a" "b"}',
        '{"a"b}',
        '{a"b"}',
        '{"a',
        "{a{b}}",
        "{1}{2}",
        ",{1}",
        '"{1}"',
        "{a\\,b}",
        "[1:2={1,2}",
        "{" * (MAX_DIMENSIONS + 1) + "}" * (MAX_DIMENSIONS + 1),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_array(text)


def test_as_many_dimensions_as_postgres_has_are_read() -> None:
    text = "{" * MAX_DIMENSIONS + "1" + "}" * MAX_DIMENSIONS
    assert str(parse_array(text)) == "[" * MAX_DIMENSIONS + "'1'" + "]" * MAX_DIMENSIONS


def literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "{" + ",".join(map(literal, value)) + "}"


elements = st.none() | st.text()
arrays = st.lists(elements, max_size=8) | st.lists(
    st.lists(st.lists(elements, max_size=3), max_size=3), max_size=3
)


@given(arrays)
def test_what_is_written_is_read_again(array: list[Any]) -> None:
    assert parse_array(literal(array)) == array


@given(st.text(alphabet='{}",;\\ aN1[]:=\n'), st.sampled_from(",;"))
def test_no_text_raises_anything_but_value_error(text: str, delimiter: str) -> None:
    try:
        assert isinstance(parse_array(text, delimiter), list)
    except ValueError:
        pass


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ValueError:
        return ValueError


@given(
    st.text(st.sampled_from("{},; \n\u2003aNUL\u0131nul[]:=1-"), max_size=12)
    | st.lists(st.sampled_from(["{", "}", ",", ";", "NULL", "null", " ", "x", "[0:1]="])).map(
        "".join
    )
    | st.lists(st.sampled_from(["1", " 2 ", "NULL", "nUlL", "a b", ""])).map(
        lambda values: "{" + ",".join(values) + "}"
    ),
    st.sampled_from(",;"),
)
def test_the_fast_path_reads_what_the_tokens_say(text: str, delimiter: str) -> None:
    fast = outcome(lambda: parse_array(text, delimiter))
    assert fast == outcome(lambda: pg_arrays._parse_tokens(text, delimiter))


def seconds(read: Callable[[], Any]) -> float:
    """The best of three runs, for others use the machine as well."""
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        read()
        times.append(time.perf_counter() - begun)
    return min(times)


def test_a_large_literal_without_quotes_costs_a_small_part_of_its_tokens() -> None:
    text = "{" + "1," * 100_000 + "1}"
    by_tokens = seconds(lambda: pg_arrays._parse_tokens(text, ","))
    assert seconds(lambda: parse_array(text)) < by_tokens / 3

"""Filters of postgres_changes."""

from __future__ import annotations

import datetime
import enum
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._protocol.changes_filter import PostgresChangesFilter, postgres_changes_filter


class Color(enum.Enum):
    RED = "red"
    ONE = 1


class Mood(enum.StrEnum):
    GOOD = "good"


class Rank(enum.IntEnum):
    FIRST = 1


def eq(value: object) -> str:
    """Returns the text after ``c=eq.``"""
    return postgres_changes_filter().eq("c", value).build().removeprefix("c=eq.")


def in_(*values: object) -> str:
    return postgres_changes_filter().in_("c", values).build().removeprefix("c=in.")


@pytest.mark.conformance("FB1")
def test_every_call_makes_a_new_builder() -> None:
    assert postgres_changes_filter() is not postgres_changes_filter()
    assert isinstance(postgres_changes_filter(), PostgresChangesFilter)


@pytest.mark.conformance("FB2")
def test_an_empty_filter_is_an_empty_text() -> None:
    assert postgres_changes_filter().build() == ""
    assert str(postgres_changes_filter()) == ""


@pytest.mark.conformance("FB3-FB13", "realtime.subscriptions.postgres_changes_filter")
@pytest.mark.parametrize(
    ("method", "operator"),
    [
        ("eq", "eq"),
        ("neq", "neq"),
        ("gt", "gt"),
        ("gte", "gte"),
        ("lt", "lt"),
        ("lte", "lte"),
        ("like", "like"),
        ("ilike", "ilike"),
        ("match", "match"),
        ("imatch", "imatch"),
        ("is_distinct", "isdistinct"),
    ],
)
def test_each_method_writes_its_operator(method: str, operator: str) -> None:
    builder = postgres_changes_filter()
    assert getattr(builder, method)("name", "x") is builder
    assert builder.build() == f"name={operator}.x"


@pytest.mark.conformance("FB14-FB22")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (42, "42"),
        (0, "0"),
        (-100, "-100"),
        (9.99, "9.99"),
        (True, "true"),
        (False, "false"),
        ("", ""),
        ("Realtime", "Realtime"),
    ],
)
def test_values_are_written_as_javascript_writes_them(value: object, expected: str) -> None:
    assert eq(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, "1"),
        (-0.0, "0"),
        (1e16, "10000000000000000"),
        (1.5e20, "150000000000000000000"),
        (1e21, "1e+21"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (-1.25e-10, "-1.25e-10"),
        (1.5e300, "1.5e+300"),
        (0.1, "0.1"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (2**70, "1180591620717411303424"),
    ],
)
def test_numbers_are_written_as_javascript_writes_them(value: float, expected: str) -> None:
    assert eq(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("10.50"), "10.50"),
        (Decimal("1E+3"), "1000"),
        (Decimal("NaN"), "NaN"),
        (Decimal("1E+5000"), "1E+5000"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.time(3, 4, 5), "03:04:05"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        (
            datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, datetime.UTC),
            "2026-01-02T03:04:05.678000+00:00",
        ),
        (
            uuid.UUID("11111111-1111-4111-8111-111111111111"),
            "11111111-1111-4111-8111-111111111111",
        ),
        (b"\xde\xad", "dead"),
        (Color.RED, "red"),
        (Color.ONE, "1"),
        (Mood.GOOD, "good"),
        (Rank.FIRST, "1"),
    ],
)
def test_values_of_python_are_written_as_postgres_reads_them(value: object, expected: str) -> None:
    assert eq(value) == expected


@pytest.mark.conformance("FB23-FB25", "FB32-FB37")
@pytest.mark.parametrize(
    "value",
    [
        "two words",
        "it's",
        "日本語 ñ",
        "100%",
        "a_b",
        "a=b",
        "a.b",
        "12:30",
        "a&b",
        "[1",
        "a*",
        "2026-01-02T03:04:05+00:00",
    ],
)
def test_values_without_structure_are_not_quoted(value: str) -> None:
    assert eq(value) == value


@pytest.mark.conformance("FB26-FB31")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a,b", '"a,b"'),
        ("a{1,2}", '"a{1,2}"'),
        ("(a)", '"(a)"'),
        (")", '")"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("a\\b", '"a\\\\b"'),
        (" a", '" a"'),
        ("a ", '"a "'),
        ("\ta", '"\ta"'),
        ("a\u00a0", '"a\u00a0"'),
        ("\ufeffa", '"\ufeffa"'),
        (" ", '" "'),
    ],
)
def test_values_that_look_like_structure_are_quoted(value: str, expected: str) -> None:
    assert eq(value) == expected


@pytest.mark.conformance("FB38")
def test_wildcards_of_patterns_are_kept() -> None:
    assert postgres_changes_filter().like("title", "%foo_").build() == "title=like.%foo_"


@pytest.mark.conformance("FB41-FB47")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        ("null", "null"),
        ("true", "true"),
        ("false", "false"),
        ("unknown", "unknown"),
    ],
)
def test_is_takes_its_words(value: bool | str | None, expected: str) -> None:
    assert postgres_changes_filter().is_("c", value).build() == f"c=is.{expected}"


@pytest.mark.parametrize("value", ["NULL", "", 1, 0, "yes"])
def test_is_refuses_anything_else(value: Any) -> None:
    with pytest.raises(ValueError, match="null, true, false, unknown"):
        postgres_changes_filter().is_("c", value)


@pytest.mark.conformance("FB48-FB55")
def test_in_writes_a_list() -> None:
    assert in_("a", "b") == "(a,b)"
    assert in_("a") == "(a)"
    assert in_(1, 2.0) == "(1,2)"
    assert in_(b"\x01", b"\xff") == "(01,ff)"
    assert in_(True, False) == "(true,false)"


@pytest.mark.conformance("FB40", "FB48-FB55")
def test_in_quotes_only_the_elements_that_need_it() -> None:
    assert in_("a%b", "c_d", "e\\f") == '(a%b,c_d,"e\\\\f")'
    assert in_("a,b", "c") == '("a,b",c)'


def test_in_quotes_what_an_array_of_postgres_takes_for_something_else() -> None:
    """Found by fuzzing: Found by fuzzing: ``in.()`` means no value, ``in.(,a)`` is an error, and
    NULL is not a text.
    """
    assert in_("") == '("")'
    assert in_("", "a") == '("",a)'
    assert in_("null", "Null", "nullable") == '("null","Null",nullable)'
    assert in_("{a}", "b") == '("{a}",b)'


@pytest.mark.conformance("FB48-FB55")
def test_in_writes_each_value_once_in_the_order_given() -> None:
    assert in_("b", "a", "b") == "(b,a)"
    assert in_(1, 1.0, 2) == "(1,2)"


@pytest.mark.conformance("FB48-FB55")
def test_in_keeps_values_of_different_types_apart() -> None:
    assert in_(1, "1", True, "true") == "(1,1,true,true)"
    assert in_(Mood.GOOD, "good", Rank.FIRST, 1) == "(good,1)"


def test_in_takes_any_iterable() -> None:
    assert postgres_changes_filter().in_("c", iter([1, 2])).build() == "c=in.(1,2)"
    assert postgres_changes_filter().in_("c", {1}).build() == "c=in.(1)"


@pytest.mark.conformance("FB48-FB55")
def test_in_refuses_an_empty_list() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        in_()


@pytest.mark.parametrize("values", ["abc", b"abc", {"a": 1}, 5, None])
def test_in_refuses_what_is_no_list(values: Any) -> None:
    with pytest.raises(TypeError, match="list of values"):
        postgres_changes_filter().in_("c", values)


@pytest.mark.conformance("FB56-FB64")
@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("eq", 1, "not.eq.1"),
        ("gt", 5, "not.gt.5"),
        ("like", "%x%", "not.like.%x%"),
        ("ilike", "%x%", "not.ilike.%x%"),
        ("match", "^x", "not.match.^x"),
        ("is", None, "not.is.null"),
        ("is", True, "not.is.true"),
        ("is", "unknown", "not.is.unknown"),
        ("in", ["draft", "archived"], "not.in.(draft,archived)"),
        ("in", (1, 2), "not.in.(1,2)"),
        ("in", "draft", "not.in.(draft)"),
        ("in", 1, "not.in.(1)"),
        ("eq", "a,b", 'not.eq."a,b"'),
    ],
)
def test_not_writes_the_opposite(operator: str, value: Any, expected: str) -> None:
    assert postgres_changes_filter().not_("c", operator, value).build() == f"c={expected}"


class Nothing(enum.Enum):
    NONE = None


IS = "use is_('c', None)"
IS_NOT = "use not_('c', 'is', None)"


@pytest.mark.conformance("FB14-FB22")
@pytest.mark.parametrize("none", [None, Nothing.NONE])
@pytest.mark.parametrize(
    ("method", "remedy"),
    [
        ("eq", IS),
        ("neq", IS_NOT),
        ("gt", IS),
        ("gte", IS),
        ("lt", IS),
        ("lte", IS),
        ("like", IS),
        ("ilike", IS),
        ("match", IS),
        ("imatch", IS),
        ("is_distinct", IS_NOT),
    ],
)
def test_none_in_a_comparison_is_refused_with_the_call_that_tests_for_null(
    method: str, remedy: str, none: Any
) -> None:
    builder = postgres_changes_filter()
    with pytest.raises(ValueError, match=re.escape(remedy)):
        getattr(builder, method)("c", none)
    assert builder.build() == ""


@pytest.mark.parametrize(
    ("operator", "value", "remedy"),
    [
        ("eq", None, IS_NOT),
        ("lt", None, IS_NOT),
        ("like", None, IS_NOT),
        ("neq", None, IS),
        ("isdistinct", None, IS),
        ("in", None, IS_NOT),
        ("in", [1, None], IS_NOT),
    ],
)
def test_none_in_a_negation_is_refused_with_the_call_that_tests_for_null(
    operator: str, value: Any, remedy: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(remedy)):
        postgres_changes_filter().not_("c", operator, value)


@pytest.mark.parametrize("values", [[None], [1, None], iter(["a", None]), [Nothing.NONE]])
def test_none_in_a_list_is_refused_with_the_call_that_tests_for_null(values: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(IS)):
        postgres_changes_filter().in_("c", values)


@pytest.mark.parametrize(
    ("operator", "near"),
    [
        ("in_", "'in'"),
        ("is_", "'is'"),
        ("isDistinct", "'isdistinct'"),
        ("is_distinct", "'isdistinct'"),
        ("EQ", "'eq'"),
        ("contains", "there are eq, neq"),
        (None, "unknown operator None"),
    ],
)
def test_an_unknown_operator_is_refused_at_the_call(operator: Any, near: str) -> None:
    with pytest.raises(ValueError, match=re.escape(near)):
        postgres_changes_filter().not_("c", operator, 1)


@pytest.mark.parametrize("column", ["", " a", "a ", "a,b", "a=b", "f(x)", 'a"b', None, 5])
def test_a_column_that_a_filter_cannot_name_is_refused_at_the_call(column: Any) -> None:
    builder = postgres_changes_filter()
    with pytest.raises(ValueError, match="column"):
        builder.eq(column, 1)
    assert builder.build() == ""


@pytest.mark.parametrize("column", ["id", "two words", "ünï", "a.b", "camelCase", "a-b"])
def test_other_columns_are_written_as_they_are(column: str) -> None:
    assert postgres_changes_filter().eq(column, 1).build() == f"{column}=eq.1"


@pytest.mark.parametrize("value", [[1], {"a": 1}, object(), datetime.timedelta(1), 1j])
def test_a_value_of_another_type_is_refused_at_the_call(value: object) -> None:
    with pytest.raises(TypeError, match="cannot compare"):
        eq(value)


@pytest.mark.conformance("FB65-FB68")
def test_conditions_are_joined_by_commas() -> None:
    found = (
        postgres_changes_filter()
        .eq("room", "a,b")
        .gte("n", 1)
        .lt("n", 5)
        .in_("status", ["x", "y"])
        .is_("deleted_at", None)
        .build()
    )
    assert found == 'room=eq."a,b",n=gte.1,n=lt.5,status=in.(x,y),deleted_at=is.null'


@pytest.mark.conformance("FB69-FB72")
def test_build_may_be_called_again_and_sees_what_was_added() -> None:
    builder = postgres_changes_filter().eq("a", 1)
    assert builder.build() == builder.build() == str(builder) == f"{builder}" == "a=eq.1"
    builder.eq("b", 2)
    assert builder.build() == "a=eq.1,b=eq.2"
    assert repr(builder) == "<PostgresChangesFilter 'a=eq.1,b=eq.2'>"


@pytest.mark.parametrize(
    ("name", "hint"), [("isDistinct", "'is_distinct'"), ("in", "'in_'"), ("not", "'not_'")]
)
def test_a_method_of_supabase_js_is_answered_with_the_one_of_python(name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=hint):
        getattr(postgres_changes_filter(), name)


def split(text: str) -> list[str]:
    """The conditions as the server splits them: docs/protocol.md#filters."""
    parts, start, depth, quoted, i = [], 0, 0, False, 0
    while i < len(text):
        char = text[i]
        if quoted:
            if char == "\\":
                i += 1
            elif char == '"':
                quoted = False
        elif char == '"' and (i == 0 or text[i - 1] in ".(,"):
            quoted = True
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char == "," and not depth:
            parts.append(text[start:i])
            start = i + 1
        i += 1
    return [*parts, text[start:]]


def unquoted(text: str) -> str:
    if text[:1] == '"' and text[-1:] == '"' and len(text) > 1:
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


@pytest.mark.conformance("FB39")
@given(st.lists(st.text(), min_size=1))
def test_the_server_reads_every_value_that_was_written(values: list[str]) -> None:
    builder = postgres_changes_filter()
    for value in values:
        builder.eq("c", value)
    found = [unquoted(part.strip().removeprefix("c=eq.")) for part in split(builder.build())]
    assert found == values


@given(st.lists(st.text(), min_size=1, unique=True))
def test_the_server_reads_every_element_that_was_written(values: list[str]) -> None:
    text = postgres_changes_filter().in_("c", values).eq("d", 1).build()
    first, second = split(text)
    assert second == "d=eq.1"
    inner = first.removeprefix("c=in.(").removesuffix(")")
    assert [unquoted(part) for part in split(inner)] == values


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_written_exactly(value: float) -> None:
    assert float(eq(value)) == value


CALLS: list[Callable[[PostgresChangesFilter], object]] = [
    lambda builder: builder.eq("c", object()),
    lambda builder: builder.in_("c", []),
    lambda builder: builder.eq("c", None),
    lambda builder: builder.not_("c", "nope", 1),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_refused_call_leaves_the_filter_as_it_was(
    call: Callable[[PostgresChangesFilter], object],
) -> None:
    builder = postgres_changes_filter().eq("a", 1)
    with pytest.raises((ValueError, TypeError)):
        call(builder)
    assert builder.build() == "a=eq.1"

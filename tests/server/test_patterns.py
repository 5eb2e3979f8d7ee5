"""Patterns of filters, matched without a database: their meaning and their cost."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supabase_rt.server._tables.filter_matching import FilterError, check, parse, passes
from supabase_rt.server._tables.patterns import (
    PatternError,
    like,
    matches,
    matches_like,
    searchable,
)
from supabase_rt.server._tables.table_writer import Publisher

from .kit import World, payload_of

COLUMNS = {"t": "text"}
TEXT = st.text(st.sampled_from("ab%_\\.*é\n"), max_size=12)


def holds(text: str, value: str) -> bool:
    return passes(parse(text), {"t": value}, COLUMNS)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("match.(a+)+$", "a" * 40 + "!"),
        ("imatch.(A+)+$", "a" * 40 + "!"),
        ("match.(a|aa)+$", "a" * 60 + "!"),
        ("match.(.*a){20}$", "a" * 60 + "!"),
        ('match."a{0,500}a{500}b"', "a" * 10_000),
        ("like." + "%a_" * 300 + "!", "a" * 3_000),
        ("like." + "%e" * 60_000, "e" * 59_999),
        ("ilike." + "%E" * 60_000 + "!", "e" * 200_000),
        ("like." + "%a" * 1000 + "%b%", "a" * 1_000_000),
    ],
)
def test_no_pattern_takes_longer_than_a_blink(pattern: str, value: str) -> None:
    started = time.perf_counter()
    assert not holds(f"t={pattern}", value)
    assert time.perf_counter() - started < 0.2


@settings(deadline=None)
@given(TEXT, TEXT, st.booleans(), st.booleans())
def test_like_means_what_its_regular_expression_means(
    pattern: str, text: str, ignore_case: bool, escapes: bool
) -> None:
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    wanted = re.fullmatch(like(pattern, escapes=escapes), text, flags) is not None
    assert matches_like(pattern, text, ignore_case=ignore_case, escapes=escapes) is wanted


def test_a_dot_takes_a_line_break_and_the_end_is_the_very_end() -> None:
    assert matches("a.b", "a\nb")
    assert not matches("a$", "a\n")
    assert matches("É", "é", ignore_case=True)
    assert matches("b", "\ud800b")


@pytest.mark.parametrize(
    "pattern", [r"(a)\1", "(?=a)b", "(", "a" * 1001, "((a{100}){100}){9}", "\ud800"]
)
def test_an_expression_that_cannot_be_searched_for_in_one_pass_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        searchable(pattern)
    with pytest.raises(FilterError, match="invalid regular expression for match filter"):
        check(parse(f"t=match.{pattern}")[0], COLUMNS)


def test_a_pattern_of_wildcards_without_end_is_refused_at_the_join() -> None:
    with pytest.raises(FilterError, match="too complex"):
        check(parse("t=like." + "_%" * 1000)[0], COLUMNS)


@pytest.mark.parametrize("declared", [True, False])
def test_who_subscribes_with_a_back_reference_is_told_and_the_others_go_on(declared: bool) -> None:
    world = World()
    tables = Publisher(world.backend.tables)
    if declared:
        from supabase_rt.server._tables.tables import Table

        tables.declare(
            Table("public", "t", {"id": "int8", "name": "text"}, ("id",), "default", True)
        )
    bad, good = world.client(), world.client()
    frames = bad.join(
        postgres_changes=[{"table": "t", "schema": "public", "filter": r"name=match.(a)\1"}]
    )
    told = payload_of(frames[-1])
    assert told["status"] == "error"
    assert told["extension"] == "postgres_changes"
    assert "invalid regular expression for match filter" in told["message"]
    good.join(postgres_changes=[{"table": "t", "schema": "public", "filter": "name=match.^a+$"}])
    good.heard()
    tables.insert("public", "t", {"id": 1, "name": "aaa"})
    assert good.events() == ["postgres_changes"]
    assert bad.heard() == []


def test_a_pattern_that_is_too_much_for_a_long_text_is_passed_by(
    caplog: pytest.LogCaptureFixture,
) -> None:
    value: Any = "a" * 1_000_000
    started = time.perf_counter()
    assert not holds("t=match.a{900}b", value)
    assert time.perf_counter() - started < 0.2
    assert "too complex" in caplog.text

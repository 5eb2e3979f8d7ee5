"""The filters of postgres_changes, parsed and evaluated (docs/protocol.md#filters)."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .column_types import cast, is_text
from .patterns import PatternError, matches, matches_like, searchable, searchable_like

__all__ = [
    "IS_VALUES",
    "MAX_IN",
    "PATTERNS",
    "RAISED",
    "Condition",
    "FilterError",
    "check",
    "check_alone",
    "evaluate",
    "parse",
    "passes",
    "quoted",
    "segments",
    "unquoted",
]

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
PATTERNS = ("like", "ilike", "match", "imatch")
OPERATORS = (*COMPARISONS, *PATTERNS, "in", "is", "isdistinct")
IS_VALUES: dict[str, bool | None] = {"null": None, "unknown": None, "true": True, "false": False}
MAX_IN = 100
RAISED = "ERROR P0001 (raise_exception) "


class FilterError(Exception):
    """A filter that is refused, with the real server's message."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """One condition: ``column op value``, possibly negated; ``in`` has several values."""

    column: str
    op: str
    value: str
    negated: bool = False
    values: tuple[str, ...] = ()

    def shown(self) -> str:
        """Returns the condition as the server's error messages print it."""
        value = "{" + self.value[1:-1] + "}" if self.op == "in" else self.value
        texts = [quoted(text) for text in (self.column, self.op, value)]
        return "{" + ", ".join([*texts, str(self.negated).lower()]) + "}"


def quoted(text: str) -> str:
    """Returns a string as Elixir prints it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _bad(problem: str) -> FilterError:
    return FilterError(f"Error parsing `filter` params: {problem}")


def segments(text: str, *, array: bool = False) -> Iterator[str]:
    """Split at the commas outside of parentheses and double quotes.

    In an array literal parentheses have no meaning, and a quote may open anywhere.
    """
    start = depth = 0
    quote = escaped = False
    for index, char in enumerate(text):
        if escaped:
            escaped = False
        elif quote:
            escaped = char == "\\"
            quote = char != '"'
        elif char == '"':
            # text[:index].endswith would copy the text for each quote: minutes for a long filter.
            quote = array or text[max(0, index - 1) : index] in (".", "(", ",")
        elif char in "()":
            depth += 0 if array else (1 if char == "(" else -1)
        elif char == "," and depth <= 0:
            yield text[start:index]
            start = index + 1
    yield text[start:]


def unquoted(value: str) -> str:
    """Remove double quotes around a value and its escapes; other values stay as they are."""
    if re.fullmatch(r'"(?:[^"\\]|\\.)*"', value, re.DOTALL):
        return re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
    return value


def parse(text: str) -> tuple[Condition, ...]:
    """Parse a filter into conditions that must all hold; raises ``FilterError``."""
    if not text.strip():
        return ()
    return tuple(_condition(segment.strip()) for segment in segments(text))


def _condition(segment: str) -> Condition:
    if not segment:
        raise _bad("filter must not contain empty segments (check for extra commas)")
    column, equals, rest = segment.partition("=")
    negated = rest.startswith("not.")
    op, dot, value = (rest[4:] if negated else rest).partition(".")
    if not equals or not dot or op not in OPERATORS:
        parts = [column, rest] if equals else [segment]
        raise _bad("[" + ", ".join(map(quoted, parts)) + "]")
    if op == "in":
        if not (value.startswith("(") and value.endswith(")")):
            raise _bad("`in` filter value must be wrapped by parentheses")
        items = [] if value == "()" else list(segments(value[1:-1], array=True))
        values = tuple(unquoted(item.strip()) for item in items)
        return Condition(column, op, value, negated, values)
    return Condition(column, op, unquoted(value), negated)


def check(condition: Condition, columns: Mapping[str, str]) -> None:
    """Check a condition against the columns of a declared table; raises ``FilterError``.

    Its message is the text after "Exception: " in the server's message.
    """
    kind = columns.get(condition.column)
    problem: str | None = None
    if kind is None:
        problem = f"invalid column for filter {condition.column}"
    elif condition.op == "in" and len(condition.values) > MAX_IN:
        problem = "too many values for `in` filter. Maximum 100"
    elif condition.op == "is":
        problem = _check_is(condition.value, kind)
    elif condition.op in PATTERNS:
        problem = _check_pattern(condition, kind)
    if problem:
        raise FilterError(RAISED + problem)
    if kind and condition.op not in ("is", *PATTERNS):
        _check_values(condition, kind)


def check_alone(condition: Condition) -> None:
    """Check a condition without a table; raises ``FilterError`` if every table would refuse it."""
    if condition.op in PATTERNS:
        problem = _check_expression(condition)
        if problem:
            raise FilterError(RAISED + problem)


def _check_is(value: str, kind: str) -> str | None:
    if value not in IS_VALUES:
        return "invalid value for is filter: must be null, true, false, or unknown"
    if value != "null" and kind != "bool":
        return f"is {value} filter requires a boolean column, got {kind}"
    return None


def _check_pattern(condition: Condition, kind: str) -> str | None:
    if not is_text(kind):
        return f"operator {condition.op} requires a text-compatible column type, got {kind}"
    return _check_expression(condition)


def _check_expression(condition: Condition) -> str | None:
    tried = searchable if condition.op in ("match", "imatch") else searchable_like
    try:
        tried(condition.value, ignore_case=condition.op in ("ilike", "imatch"))
    except PatternError as exc:
        return f"invalid regular expression for {condition.op} filter: {exc}"
    return None


def _check_values(condition: Condition, kind: str) -> None:
    for value in condition.values if condition.op == "in" else (condition.value,):
        try:
            cast(kind, value)
        except ValueError:
            problem = value
        else:
            continue
        raise FilterError(
            "ERROR 22P02 (invalid_text_representation) "
            f'invalid input syntax for type {kind}: "{problem}"'
        )


def passes(
    conditions: tuple[Condition, ...], row: Mapping[str, Any], columns: Mapping[str, str]
) -> bool:
    """Returns True if all conditions hold for a row; one on a missing column does not."""
    return all(
        condition.column in row
        and _holds(condition, row[condition.column], columns.get(condition.column, "text"))
        for condition in conditions
    )


def _holds(condition: Condition, value: Any, kind: str) -> bool:
    try:
        found = evaluate(condition, value, kind)
    except (ValueError, TypeError, ArithmeticError):
        # This needs an undeclared table: otherwise the subscription was refused.
        return False
    # A comparison with NULL stays unknown when it is negated.
    return found is not None and found != condition.negated


def evaluate(condition: Condition, value: Any, kind: str) -> bool | None:
    """Evaluate a condition for a value, without its negation; None is SQL's unknown."""
    op, wanted = condition.op, condition.value
    if op == "is":
        return value is IS_VALUES[wanted] if wanted in IS_VALUES else None
    if op == "isdistinct":
        return value is None or bool(cast(kind, value) != cast(kind, wanted))
    if value is None:
        return None
    if op in COMPARISONS:
        return COMPARISONS[op](cast(kind, value), cast(kind, wanted))
    if op == "in":
        return cast(kind, value) in [cast(kind, each) for each in condition.values]
    ignore_case = op in ("ilike", "imatch")
    if op in ("like", "ilike"):
        return matches_like(wanted, str(value), ignore_case=ignore_case)
    return matches(wanted, str(value), ignore_case=ignore_case)

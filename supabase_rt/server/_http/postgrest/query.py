"""PostgREST's query string: ``select``, filters, ``and``/``or``, ``order``, ``limit``.

Columns may be renamed. Casts, JSON paths, embedded tables and full text search are refused.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from ..._tables.filter_matching import Condition, segments, unquoted
from .errors import RestProblem, parse_problem

__all__ = ["Group", "RestQuery", "SortKey", "Tree", "parse_query"]

OPERATORS = (
    "eq",
    "neq",
    "lt",
    "lte",
    "gt",
    "gte",
    "like",
    "ilike",
    "match",
    "imatch",
    "in",
    "is",
    "isdistinct",
)
IS_WORDS = ("null", "not_null", "true", "false", "unknown")
MAX_DEPTH = 50


@dataclasses.dataclass(frozen=True)
class Group:
    """Conditions of which all must hold (``and``), or at least one (``or``)."""

    op: str
    parts: tuple[Tree, ...]
    negated: bool = False


Tree = Condition | Group


@dataclasses.dataclass(frozen=True)
class SortKey:
    """One column to sort by."""

    column: str
    descending: bool = False
    nulls_first: bool = False


@dataclasses.dataclass(frozen=True)
class RestQuery:
    """A parsed query. ``select`` pairs columns with their names in the result; None is all."""

    select: tuple[tuple[str, str], ...] | None = None
    where: tuple[Tree, ...] = ()
    order: tuple[SortKey, ...] = ()
    limit: int | None = None
    offset: int = 0


def parse_query(pairs: Iterable[tuple[str, str]], span: str | None = None) -> RestQuery:
    """Parse a query; ``span`` is the ``Range`` header. Raises ``RestProblem``."""
    found = RestQuery()
    where: list[Tree] = []
    for name, value in pairs:
        if name == "select":
            found = dataclasses.replace(found, select=_select(value))
        elif name == "order":
            found = dataclasses.replace(found, order=_orders(value))
        elif name == "limit":
            found = dataclasses.replace(found, limit=_count(name, value))
        elif name == "offset":
            found = dataclasses.replace(found, offset=_count(name, value))
        elif name in ("and", "or", "not.and", "not.or"):
            where.append(_tree(name + value, 0))
        elif name not in ("apikey", "columns"):
            where.append(_condition(_name(name), value, value))
    found = dataclasses.replace(found, where=tuple(where))
    return found if span is None else _within(found, span)


def _count(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", value):
        raise parse_problem(name, value, f"{name} is a number")
    return int(value)


def _within(query: RestQuery, span: str) -> RestQuery:
    """Apply the ``Range`` header, unless the query has ``limit`` or ``offset``."""
    match = re.fullmatch(r"(?:items=)?([0-9]{1,18})-([0-9]{0,18})", span.strip())
    if match is None or query.limit is not None or query.offset:
        return query
    first, last = int(match[1]), match[2]
    limit = int(last) - first + 1 if last else None
    if limit is not None and limit < 1:
        details = "The lower boundary must be lower than or equal to the upper boundary"
        raise RestProblem(416, "PGRST103", "Requested range not satisfiable", details)
    return dataclasses.replace(query, limit=limit, offset=first)


# -- columns -------------------------------------------------------------------------------


def _name(text: str) -> str:
    text = text.strip()
    return unquoted(text) if text.startswith('"') else text


def _select(text: str) -> tuple[tuple[str, str], ...] | None:
    if text.strip() in ("", "*"):
        return None
    found: list[tuple[str, str]] = []
    for part in segments(text):
        if "(" in part or "::" in part or "->" in part or part.strip() == "*":
            problem = "this server knows columns and alias:column here, or a single *"
            raise parse_problem("select parameter", text, problem)
        alias, colon, column = part.partition(":")
        found.append((_name(column if colon else part), _name(alias)))
    return tuple(found)


def _orders(text: str) -> tuple[SortKey, ...]:
    return tuple(_order(part.strip(), text) for part in segments(text))


def _order(part: str, text: str) -> SortKey:
    match = re.fullmatch(
        r'("(?:[^"\\]|\\.)*"|[^.]+)(?:\.(asc|desc))?(?:\.nulls(first|last))?', part
    )
    if match is None:
        raise parse_problem("order", text, "column[.asc|.desc][.nullsfirst|.nullslast]")
    descending = match[2] == "desc"
    # As in Postgres, null sorts after all values.
    nulls_first = descending if match[3] is None else match[3] == "first"
    return SortKey(_name(match[1]), descending, nulls_first)


# -- conditions ----------------------------------------------------------------------------


def _tree(text: str, depth: int) -> Tree:
    """Parse ``and(...)``, ``or(...)`` or ``column.op.value``."""
    match = re.fullmatch(r"(not\.)?(and|or)\((.*)\)", text.strip(), re.DOTALL)
    if match is None:
        return _leaf(text.strip())
    if depth >= MAX_DEPTH:
        raise parse_problem("logic tree", text[:100], "nested too deeply")
    parts = tuple(_tree(part, depth + 1) for part in segments(match[3]))
    return Group(match[2], parts, negated=match[1] is not None)


def _leaf(text: str) -> Condition:
    match = re.fullmatch(r'("(?:[^"\\]|\\.)*"|[^."]+)\.(.*)', text, re.DOTALL)
    if match is None:
        raise parse_problem("logic tree", text, "column.operator.value")
    return _condition(_name(match[1]), match[2], text, quoted=True)


def _condition(column: str, text: str, shown: str, *, quoted: bool = False) -> Condition:
    """Parse one condition. Within ``and`` and ``or`` a value may be in double quotes."""
    negated = text.startswith("not.")
    op, dot, value = (text[4:] if negated else text).partition(".")
    if not dot or op not in OPERATORS:
        problem = f"operators of this server: {', '.join(OPERATORS)}, each after not. too"
        raise parse_problem("filter", shown, problem)
    if op == "in":
        return Condition(column, op, value, negated, _members(value, shown))
    if quoted:
        value = unquoted(value)
    if op == "is":
        value = value.lower()
        if value not in IS_WORDS:
            raise parse_problem("filter", shown, f"is takes {', '.join(IS_WORDS)}")
        if value == "not_null":
            return Condition(column, op, "null", not negated)
    if op in ("like", "ilike"):
        value = value.replace("*", "%")
    return Condition(column, op, value, negated)


def _members(value: str, shown: str) -> tuple[str, ...]:
    if not (value.startswith("(") and value.endswith(")")):
        raise parse_problem("filter", shown, "in takes (a,b,c)")
    inner = value[1:-1]
    return tuple(unquoted(item.strip()) for item in segments(inner, array=True)) if inner else ()

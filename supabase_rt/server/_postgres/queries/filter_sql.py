"""Filters as SQL, so that the database compares values as the real one does.

See docs/protocol.md#filters.
"""

from __future__ import annotations

import re

import psycopg
from psycopg import sql

from ..._tables.column_types import is_text
from ..._tables.filter_matching import IS_VALUES, MAX_IN, PATTERNS, Condition
from ..connections import is_lost
from .catalog import Field, Shape

__all__ = [
    "OPERATORS",
    "check_binding",
    "condition_sql",
    "escaped",
    "explain",
    "identifier",
]

OPERATORS = {
    "eq": "=",
    "neq": "<>",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "isdistinct": "is distinct from",
    "like": "like",
    "ilike": "ilike",
    "match": "~",
    "imatch": "~*",
}


class InvalidFilter(Exception):
    """A filter that the real server's check refuses with ``raise exception``."""


def escaped(text: str) -> str:
    """Escape SQL text, so that psycopg sees no placeholder in it."""
    return text.replace("%", "%%")


def identifier(*names: str) -> sql.SQL:
    """Quote names as identifiers, so that psycopg sees no placeholder in them."""
    return sql.SQL(escaped(sql.Identifier(*names).as_string()))


def condition_sql(condition: Condition, column: str, cast: str, value: str) -> tuple[str, str]:
    """Returns a condition as SQL, and the text of its parameter.

    ``column`` is an SQL expression of type text, ``cast`` the column's type, and ``value`` the
    placeholder of the parameter.
    """
    op, kind = condition.op, escaped(cast)
    if cast == "bytea":
        # The real server casts the digits that it sends, which lack "\\x".
        column = f"substr({column}, 3)"
    text = condition.value
    if op == "is":
        found = f"(({column})::{kind} is {text if text in IS_VALUES else 'null'})"
        return (f"(not {found})" if condition.negated else found), ""
    if op == "in":
        text = "{" + text[1:-1] + "}"
        found = f"(({column})::{kind} = any({value}::{kind}[]))"
    elif op in PATTERNS:
        found = f"(({column})::text {OPERATORS[op]} {value}::text)"
    else:
        found = f"(({column})::{kind} {OPERATORS[op]} {value}::{kind})"
    return (f"(not {found})" if condition.negated else found), text


async def check_binding(
    conn: psycopg.AsyncConnection,
    shape: Shape,
    role: str,
    conditions: tuple[Condition, ...],
    select: tuple[str, ...] | None,
) -> str | None:
    """Check a binding against a table; returns the real server's error, or None."""
    readable = {field.name: field for field in shape.fields if role in field.readers}
    try:
        for condition in conditions:
            field = readable.get(condition.column)
            if field is None:
                raise InvalidFilter(f"invalid column for filter {condition.column}")
            await _check_condition(conn, condition, field)
        for name in select or ():
            if name not in readable:
                raise InvalidFilter(f"invalid column for select {name}")
    except InvalidFilter as exc:
        return f"ERROR P0001 (raise_exception) {exc}"
    except (psycopg.Error, UnicodeError) as exc:
        if isinstance(exc, psycopg.Error) and is_lost(exc, conn):
            raise
        return explain(exc)
    return None


async def _check_condition(
    conn: psycopg.AsyncConnection, condition: Condition, field: Field
) -> None:
    op = condition.op
    if op == "in" and len(condition.values) > MAX_IN:
        raise InvalidFilter(f"too many values for `in` filter. Maximum {MAX_IN}")
    if op == "is":
        _check_is(condition.value, field.type)
    if op in PATTERNS and not is_text(field.type):
        raise InvalidFilter(
            f"operator {op} requires a text-compatible column type, got {field.type}"
        )
    # Postgres compiles a pattern only if there is a text to match; null would skip the check.
    column = "''" if op in PATTERNS else "null"
    statement, value = condition_sql(condition, column, field.cast, "%(value)s")
    try:
        async with conn.transaction(force_rollback=True):
            await conn.execute(f"select {statement}".encode(), {"value": value})
    except psycopg.errors.InvalidRegularExpression as exc:
        problem = exc.diag.message_primary
    else:
        return
    raise InvalidFilter(f"invalid regular expression for {op} filter: {problem}")


def _check_is(value: str, kind: str) -> None:
    if value not in IS_VALUES:
        raise InvalidFilter("invalid value for is filter: must be null, true, false, or unknown")
    if value != "null" and kind != "bool":
        raise InvalidFilter(f"is {value} filter requires a boolean column, got {kind}")


def explain(error: Exception, *, with_text: bool = True) -> str:
    """Returns an error of the database as the real server prints it.

    Leave the text out for clients that may not see the row it may quote.
    """
    # psycopg itself refuses a text that no database can store, such as one with a NUL.
    code, text = "22021", 'invalid byte sequence for encoding "UTF8"'
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        code, text = error.sqlstate, error.diag.message_primary or " ".join(str(error).split())
    elif not isinstance(error, psycopg.DataError | UnicodeError):
        code, text = "XX000", "the server failed"
    try:
        name = psycopg.errors.lookup(code).__name__
    except KeyError:
        # A policy may raise any code.
        name = "Unknown"
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return f"ERROR {code} ({name}) {text}" if with_text else f"ERROR {code} ({name})"

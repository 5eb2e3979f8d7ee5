"""Tables in this process, read as PostgREST reads a database."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..._tables.column_types import cast, exact
from ..._tables.filter_matching import Condition, evaluate
from ..._tables.patterns import PatternError
from ..._tables.tables import Row, Table
from .errors import RestProblem
from .query import Group, RestQuery, SortKey, Tree

__all__ = ["read_rows"]

MOST_STEPS = 1_000_000


def read_rows(table: Table, query: RestQuery, claims: Mapping[str, Any]) -> list[Row]:
    """Returns the rows that a caller with these claims may see; raises ``RestProblem``."""
    for column in _columns(query):
        if column not in table.columns:
            message = f"column {table.name}.{column} does not exist"
            raise RestProblem(400, "42703", message)
    if len(table.rows) * _steps(query) > MOST_STEPS:
        # This work blocks the event loop, and with it all other clients.
        raise RestProblem(500, "57014", "canceling statement due to statement timeout")
    # The service role bypasses row level security, as in Postgres.
    free = table.visible is None or claims.get("role") == "service_role"
    rows: Iterable[Row] = list(table.rows.values())
    if not free:
        assert table.visible is not None
        rows = [row for row in rows if table.visible(claims, row)]
    try:
        found = [row for row in rows if all(_holds(tree, row, table) for tree in query.where)]
    except (PatternError, RecursionError, OverflowError) as exc:
        raise RestProblem(400, "2201B", f"invalid regular expression: {exc}") from None
    for order in reversed(query.order):
        _sort(found, order, table.columns[order.column])
    end = None if query.limit is None else query.offset + query.limit
    return [_shown(row, query, table) for row in found[query.offset : end]]


def _steps(query: RestQuery) -> int:
    """Returns the work for each row, in units of one selected column."""
    named, shown, ordered = len(list(_columns(query))), len(query.select or ()), len(query.order)
    return shown + 10 * ordered + 5 * (named - shown - ordered)


def _columns(query: RestQuery) -> Iterator[str]:
    """Yields every column that the query names."""
    yield from (column for column, _ in query.select or ())
    yield from (order.column for order in query.order)
    trees: list[Tree] = list(query.where)
    while trees:
        tree = trees.pop()
        if isinstance(tree, Group):
            trees.extend(tree.parts)
        else:
            yield tree.column


def _holds(tree: Tree, row: Row, table: Table) -> bool | None:
    """Evaluate a condition for a row; None is SQL's unknown."""
    if isinstance(tree, Group):
        parts = [_holds(part, row, table) for part in tree.parts]
        decisive = tree.op == "or"
        found = decisive if decisive in parts else (None if None in parts else not decisive)
    else:
        found = _compared(tree, row.get(tree.column), table.columns[tree.column])
    return not found if found is not None and tree.negated else found


def _compared(condition: Condition, value: Any, kind: str) -> bool | None:
    try:
        return evaluate(condition, value, kind)
    except PatternError:
        raise
    except (ValueError, TypeError):
        message = f'invalid input syntax for type {kind}: "{condition.value}"'
        raise RestProblem(400, "22P02", message) from None


def _sort(rows: list[Row], order: SortKey, kind: str) -> None:
    def compared(one: Row, other: Row) -> int:
        a, b = one.get(order.column), other.get(order.column)
        if a is None or b is None:
            return 0 if a is b else (-1 if (a is None) == order.nulls_first else 1)
        left, right = cast(kind, a), cast(kind, b)
        found = int(left > right) - int(left < right)
        return -found if order.descending else found

    rows.sort(key=functools.cmp_to_key(compared))


def _shown(row: Row, query: RestQuery, table: Table) -> Row:
    select = query.select or tuple((column, column) for column in table.columns)
    return {name: exact(row.get(column)) for column, name in select}

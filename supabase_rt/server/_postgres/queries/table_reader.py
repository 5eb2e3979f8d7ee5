"""Reading tables in the role of a token, for PostgREST's queries."""

from __future__ import annotations

import psycopg
from psycopg import sql

from ..._http.postgrest.errors import RestProblem, too_large
from ..._http.postgrest.query import Group, RestQuery, SortKey, Tree
from ..._machine.memory_bounds import MOST_ANSWER
from ..._tables.filter_matching import IS_VALUES, Condition
from ...tokens import Token
from ..pool import Pool, rolled_back
from .claims import act_as
from .filter_sql import OPERATORS, identifier

__all__ = ["TableReader"]

EXISTS = (
    "select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace"
    " where n.nspname = %s and c.relname = %s and c.relkind in ('r', 'v', 'm', 'f', 'p')"
)


STATUSES = {"08": 503, "53": 503, "54": 413, "57": 500, "XX": 500}
"""HTTP status by class of error; all other errors are the caller's mistake."""


class TableReader:
    """Reads tables, on connections of its own."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(
        self, token: Token, schema: str, table: str, query: RestQuery
    ) -> tuple[bytes, int]:
        """Returns the rows as JSON, and their number.

        Raises ``RestProblem``, or ``DatabaseProblem`` if the database is away.
        """
        statement, values = _statement(schema, table, query)
        problem: RestProblem

        async def ask(conn: psycopg.AsyncConnection) -> tuple[bytes, int]:
            async with rolled_back(conn):
                if await (await conn.execute(EXISTS, (schema, table))).fetchone() is None:
                    message = f"Could not find the table '{schema}.{table}' in the schema cache"
                    raise RestProblem(404, "PGRST205", message)
                await conn.execute("set local transaction_read_only = on")
                await act_as(conn, token.claims)
                row = await (await conn.execute(statement, values)).fetchone()
                assert row is not None
                text, count = row
                if text is None:
                    raise too_large()
                return str(text).encode(), int(count)

        try:
            return await self._pool.run(ask, token.text)
        except (psycopg.Error, UnicodeError) as exc:
            problem = _explained(exc, token)
        try:
            raise problem
        finally:
            # Otherwise this frame and the exception hold each other.
            del problem


def _explained(error: psycopg.Error | UnicodeError, token: Token) -> RestProblem:
    """Returns an error of the database with the status that PostgREST gives it."""
    # psycopg itself refuses a text that no column can store, such as one with a NUL.
    if not isinstance(error, psycopg.Error):
        return RestProblem(400, "22021", 'invalid byte sequence for encoding "UTF8"')
    code = error.sqlstate or ("22021" if isinstance(error, psycopg.DataError) else "XX000")
    diag = error.diag
    message = diag.message_primary or " ".join(str(error).split()) or "the database refused"
    return RestProblem(_status(code, token), code, message, diag.message_detail, diag.message_hint)


def _status(code: str, token: Token) -> int:
    if code == "42501":
        return 401 if token.role == "anon" else 403
    if code in ("42883", "42P01"):
        return 404
    return STATUSES.get(code[:2], 400)


def _statement(schema: str, table: str, query: RestQuery) -> tuple[sql.Composed, list[object]]:
    """Returns the statement and its parameters; no value of the caller is in the text."""
    values: list[object] = []
    columns: sql.Composable = sql.SQL("t.*")
    if query.select is not None:
        columns = sql.SQL(", ").join(
            sql.SQL("{} as {}").format(_column(column), identifier(name))
            for column, name in query.select
        )
    parts: list[sql.Composable] = [
        sql.SQL("select {} from {} t").format(columns, identifier(schema, table))
    ]
    if query.where:
        trees = [_condition(tree, values) for tree in query.where]
        parts.append(sql.SQL("where ") + sql.SQL(" and ").join(trees))
    if query.order:
        orders = sql.SQL(", ").join(_order(order) for order in query.order)
        parts.append(sql.SQL("order by ") + orders)
    if query.limit is not None:
        parts.append(sql.SQL("limit %s"))
        values.append(query.limit)
    if query.offset:
        parts.append(sql.SQL("offset %s"))
        values.append(query.offset)
    inner = sql.SQL(" ").join(parts)
    # Large values stay in the database: here they would be in memory several times.
    whole = sql.SQL(
        "select case when octet_length(a.rows) <= {} then a.rows end, a.count from"
        " (select coalesce(json_agg(r), '[]')::text as rows, count(*) as count from ({}) r) a"
    )
    return whole.format(sql.Literal(MOST_ANSWER), inner), values


def _column(name: str) -> sql.SQL:
    return identifier("t", name)


def _order(order: SortKey) -> sql.Composed:
    return sql.SQL("{} {} nulls {}").format(
        _column(order.column),
        sql.SQL("desc" if order.descending else "asc"),
        sql.SQL("first" if order.nulls_first else "last"),
    )


def _condition(tree: Tree, values: list[object]) -> sql.Composed:
    """Returns a condition as SQL; appends its value, typed by the column, to ``values``."""
    if isinstance(tree, Group):
        parts = [_condition(part, values) for part in tree.parts]
        found = sql.SQL("({})").format(sql.SQL(f" {tree.op} ").join(parts))
    else:
        found = _compared(tree, values)
    return sql.SQL("(not {})").format(found) if tree.negated else found


def _compared(condition: Condition, values: list[object]) -> sql.Composed:
    column, op = _column(condition.column), condition.op
    if op == "is":
        word = condition.value if condition.value in IS_VALUES else "null"
        return sql.SQL("({} is {})").format(column, sql.SQL(word))
    if op == "in":
        values.append(_array(condition.values))
        return sql.SQL("({} = any (%s))").format(column)
    values.append(condition.value)
    return sql.SQL("({} {} %s)").format(column, sql.SQL(OPERATORS[op]))


def _array(values: tuple[str, ...]) -> str:
    """Returns an array literal; the database infers its element type."""
    items = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{item}"' for item in items) + "}"

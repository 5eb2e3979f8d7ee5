"""The status page's tables with a database: the tables of the publication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from ..._http.status_page.page import RowRefused
from ..._tables.hidden_schemas import HIDDEN, is_hidden
from ..errors import DatabaseProblem
from ..pool import Pool
from ..roles import Login
from .claims import act_for_server
from .filter_sql import identifier

__all__ = ["DatabaseRows"]

PUBLISHED = """
select schemaname || '.' || tablename from pg_catalog.pg_publication_tables
where pubname = %s and schemaname <> all(%s::text[]) order by 1
"""
# Only the given columns are named, so that the others get their defaults.
INSERT = sql.SQL("""
insert into {table} as made ({columns})
select {columns} from jsonb_populate_record(null::{table}, %s)
returning to_jsonb(made)
""")
INSERT_NOTHING = sql.SQL("insert into {table} as made default values returning to_jsonb(made)")


# A view writes to its tables with the rights of its owner, who may be a superuser.
OTHER_THAN_TABLE = """
select from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %s and c.relname = %s and c.relkind not in ('r', 'p')
"""


class DatabaseRows:
    """``EditableRows`` of a real database; it writes as the service, never as a superuser.

    ``pool`` must keep no idle connection, because a trigger may leave its settings in one.
    """

    def __init__(self, pool: Pool, login: Login, publication: str) -> None:
        self._pool = pool
        self._login = login
        self._publication = publication

    async def tables(self) -> Sequence[str]:
        """Returns the tables of the publication; none while the database is away."""
        try:
            async with self._pool.use() as conn:
                found = await conn.execute(PUBLISHED, (self._publication, list(HIDDEN)))
                return [name for (name,) in await found.fetchall()]
        except (psycopg.Error, DatabaseProblem):
            return []

    async def insert(self, schema: str, table: str, record: Mapping[str, Any]) -> Any:
        """Insert a row and return it with its defaults; raises ``RowRefused``."""
        if is_hidden(schema):
            raise RowRefused(f"rows of the schema {schema} are not for the status page")
        statement = INSERT if record else INSERT_NOTHING
        try:
            names = sql.SQL(", ").join(map(identifier, record))
            query = statement.format(table=identifier(schema, table), columns=names)
            async with self._pool.use() as conn, conn.transaction():
                await act_for_server(conn, self._login)
                if (await conn.execute(OTHER_THAN_TABLE, (schema, table))).rowcount:
                    raise RowRefused(f"{schema}.{table} is no table")
                made = await conn.execute(query, [Jsonb(dict(record))] if record else [])
                row = await made.fetchone()
        except psycopg.Error as exc:
            problem = exc.diag.message_primary or " ".join(str(exc).split())
        except UnicodeError as exc:
            problem = str(exc)
        except DatabaseProblem as exc:
            problem = str(exc)
        else:
            return row[0] if row else None
        raise RowRefused(problem)

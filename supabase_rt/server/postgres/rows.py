"""The status page's tables: those of the publication, written to as the owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from ..inspector.page import RowRefused
from .conditions import identifier
from .pool import Pool
from .problems import DatabaseProblem

__all__ = ["DatabaseRows"]

PUBLISHED = """
select schemaname || '.' || tablename from pg_publication_tables where pubname = %s order by 1
"""
# Only the columns that were given, so that the others get their defaults.
INSERT = sql.SQL("""
insert into {table} as made ({columns})
select {columns} from jsonb_populate_record(null::{table}, %s)
returning to_jsonb(made)
""")
INSERT_NOTHING = sql.SQL("insert into {table} as made default values returning to_jsonb(made)")


class DatabaseRows:
    """``Rows`` of a real database."""

    def __init__(self, pool: Pool, publication: str) -> None:
        self._pool = pool
        self._publication = publication

    async def tables(self) -> Sequence[str]:
        """The tables of the publication, none while the database is away."""
        try:
            async with self._pool.use() as conn:
                found = await conn.execute(PUBLISHED, (self._publication,))
                return [name for (name,) in await found.fetchall()]
        except (psycopg.Error, DatabaseProblem):
            return []

    async def insert(self, schema: str, table: str, record: Mapping[str, Any]) -> Any:
        """Insert and give back the row with its defaults."""
        statement = INSERT if record else INSERT_NOTHING
        try:
            names = sql.SQL(", ").join(map(identifier, record))
            query = statement.format(table=identifier(schema, table), columns=names)
            async with self._pool.use() as conn:
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

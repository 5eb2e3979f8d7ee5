"""Reads the schema from a database's catalog."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .schema import Column, Enum, Schema, SchemaError, SchemaTable

__all__ = ["check_url", "read_database"]

TABLES = """
select c.oid, n.nspname, c.relname,
       coalesce(obj_description(c.oid, 'pg_class'), ''),
       c.relkind in ('r', 'p', 'f') or (pg_relation_is_updatable(c.oid, false) & 8) > 0,
       coalesce((select array_agg(a.attname order by k.position)
                 from pg_index i
                 cross join unnest(i.indkey) with ordinality as k(number, position)
                 join pg_attribute a on a.attrelid = c.oid and a.attnum = k.number
                 where i.indrelid = c.oid and i.indisprimary), '{}')
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname = any(%s) and not c.relispartition
order by n.nspname, c.relname
"""

# A domain is resolved to its base type and an array to its element, at any depth.
COLUMNS = """
with recursive resolved(attrelid, attnum, oid, is_array, not_null) as (
    select a.attrelid, a.attnum, a.atttypid, false, a.attnotnull
    from pg_attribute a where a.attrelid = any(%s) and a.attnum > 0 and not a.attisdropped
  union all
    select r.attrelid, r.attnum,
           case when t.typtype = 'd' then t.typbasetype else t.typelem end,
           r.is_array or t.typtype <> 'd',
           r.not_null or (t.typtype = 'd' and t.typnotnull and not r.is_array)
    from resolved r join pg_type t on t.oid = r.oid
    where t.typtype = 'd' or (t.typelem <> 0 and t.typcategory = 'A')
)
select r.attrelid, a.attname, t.typname, t.typtype, n.nspname, r.is_array, r.not_null,
       a.atthasdef or a.attidentity <> '' as has_default,
       a.attgenerated <> '' or a.attidentity = 'a' as is_generated,
       coalesce(col_description(a.attrelid, a.attnum), ''),
       case when t.typtype = 'e' then
           (select array_agg(e.enumlabel::text order by e.enumsortorder)
            from pg_enum e where e.enumtypid = t.oid) end,
       a.attndims
from resolved r
join pg_attribute a on a.attrelid = r.attrelid and a.attnum = r.attnum
join pg_type t on t.oid = r.oid
join pg_namespace n on n.oid = t.typnamespace
where not (t.typtype = 'd' or (t.typelem <> 0 and t.typcategory = 'A'))
order by r.attrelid, r.attnum
"""


def check_url(url: str) -> None:
    """Raises ``SchemaError`` for a URL that psycopg misreads; its error would quote the
    password.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        given = conninfo_to_dict(url)
    except ProgrammingError:
        problem = "the URL of a database is postgresql://USER:PASSWORD@HOST:PORT/NAME"
    else:
        # With a slash in the password, libpq reads its two halves as a port and a database.
        misread = re.search(r"[^0-9,]", str(given.get("port") or ""))
        if "@" not in str(given.get("host") or "") and misread is None:
            return
        problem = "the password in the database URL has to be percent-encoded: %40 for @, %2F for /"
    raise SchemaError(problem)


def read_database(url: str, schemas: Sequence[str] = ("public",)) -> Schema:
    """Read the tables and views of ``schemas``; raises ``SchemaError`` with the remedy."""
    try:
        import psycopg
    except ImportError:
        raise SchemaError("--db needs psycopg: pip install 'supabase-rt[server]'") from None
    check_url(url)
    try:
        with psycopg.connect(url, connect_timeout=10, autocommit=True) as connection:
            tables = connection.execute(TABLES, [list(schemas)]).fetchall()
            oids = [row[0] for row in tables]
            columns = connection.execute(COLUMNS, [oids]).fetchall() if oids else []
    except psycopg.Error as exc:
        # For a valid URL, psycopg's error contains no password.
        raise SchemaError(f"the database cannot be read: {str(exc).splitlines()[0]}") from None
    by_table: dict[int, list[Column]] = {}
    for oid, *about in columns:
        by_table.setdefault(oid, []).append(_column(about))
    return Schema(
        tuple(
            SchemaTable(schema, name, tuple(by_table.get(oid, ())), tuple(keys), writable, comment)
            for oid, schema, name, comment, writable, keys in tables
        )
    )


def _column(about: list[Any]) -> Column:
    name, type_name, kind, space, is_array, not_null, has_default, generated, comment = about[:9]
    values, dimensions = about[9:]
    if kind == "c":
        type_name = "json"  # PostgREST and Realtime show a composite value as an object.
    return Column(
        name,
        type_name,
        is_array=is_array,
        dimensions=max(1, dimensions),
        nullable=not not_null,
        optional=not not_null or has_default,
        generated=generated,
        enum=Enum(space, type_name, tuple(values)) if values else None,
        comment=comment,
    )

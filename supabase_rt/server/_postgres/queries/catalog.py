"""Tables as the database's catalog describes them now."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import psycopg

from ..._tables.hidden_schemas import HIDDEN

__all__ = ["Field", "Shape", "published", "read_shape"]

SHAPE = """
select n.nspname, c.relname, c.relrowsecurity, a.attname, t.typname,
    case t.typtype when 'd' then (
        with recursive base(oid, modifier, kind) as (
            select t.typbasetype, t.typtypmod, b.typtype from pg_type b where b.oid = t.typbasetype
          union all
            select d.typbasetype, d.typtypmod, b.typtype from base
            join pg_type d on d.oid = base.oid join pg_type b on b.oid = d.typbasetype
            where base.kind = 'd'
        ) select format_type(oid, modifier) from base where kind <> 'd'
    ) else format_type(a.atttypid, a.atttypmod) end,
    coalesce(a.attnum = any(i.indkey), false),
    array(
        select r.rolname::text from pg_roles r
        where r.rolname = any(%(roles)s::text[])
            and has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT')
    )
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_type t on t.oid = a.atttypid
left join pg_index i on i.indrelid = c.oid and i.indisprimary
where c.oid = %(oid)s
order by a.attnum
"""
# Schema and table are LIKE patterns without an escape character (docs/protocol.md#bindings).
# Oids are selected, because a lookup by name needs a right to the schema.
PUBLISHED = """
select c.oid
from pg_publication_tables p
join pg_namespace n on n.nspname = p.schemaname
join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
where p.pubname = %s and p.schemaname like %s escape '' and p.tablename like %s escape ''
    and p.schemaname <> all(%s::text[]) and p.schemaname !~ '^pg_'
order by p.schemaname, p.tablename
"""


@dataclasses.dataclass(frozen=True)
class Field:
    """A column: its ``pg_type`` name, the type to cast to, and the roles that may read it.

    For a domain, the cast is to its base type. A value that is not in the WAL is null, which a
    domain may not allow.
    """

    name: str
    type: str
    cast: str
    is_key: bool
    readers: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Shape:
    """A table; ``protected`` is True if row level security is on."""

    oid: int
    schema: str
    name: str
    protected: bool
    fields: tuple[Field, ...]

    @property
    def key(self) -> tuple[Field, ...]:
        """The columns of the primary key."""
        return tuple(field for field in self.fields if field.is_key)


async def read_shape(conn: psycopg.AsyncConnection, oid: int, roles: Iterable[str]) -> Shape | None:
    """Read the table with this oid and the rights of ``roles``; None if it is gone."""
    rows = await (await conn.execute(SHAPE, {"oid": oid, "roles": sorted(roles)})).fetchall()
    if not rows:
        return None
    fields = tuple(
        Field(column, kind, cast, is_key, frozenset(readers))
        for *_, column, kind, cast, is_key, readers in rows
    )
    schema, name, protected = rows[0][:3]
    return Shape(oid, schema, name, protected, fields)


async def published(
    conn: psycopg.AsyncConnection, publication: str, schema: str, table: str
) -> list[int]:
    """Returns the oids of the published tables that a binding matches; ``*`` matches all."""
    patterns = ("%" if pattern == "*" else pattern for pattern in (schema, table))
    given = (publication, *patterns, list(HIDDEN))
    rows = await (await conn.execute(PUBLISHED, given)).fetchall()
    return [oid for (oid,) in rows]

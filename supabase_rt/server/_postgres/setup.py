"""Prepares a database to be followed, or says why it cannot be."""

from __future__ import annotations

import re
from importlib import resources

import psycopg
from psycopg import sql

from .embedded import OURS
from .errors import DatabaseProblem
from .roles import Login, clients_login

__all__ = ["MESSAGES_PUBLICATION", "PUBLICATION", "prepare"]

PUBLICATION = "supabase_realtime"
MESSAGES_PUBLICATION = "supabase_rt_messages"
OLDEST = 140_000
WITH_GENERATED = 180_000
# Supabase grants its roles all tables of the schema public; row level security does the rest.
# This runs in our own database only: in another one it would open tables.
OPEN_PUBLIC = """
grant usage on schema public to anon, authenticated, service_role;
alter default privileges in schema public
    grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public
    grant all on sequences to anon, authenticated, service_role;
alter default privileges in schema public
    grant all on functions to anon, authenticated, service_role;
"""


async def prepare(
    conn: psycopg.AsyncConnection, url: str, *, publication: str = PUBLICATION
) -> Login:
    """Check a database and create missing objects; returns the login for clients' statements.

    ``url`` is that of the connection. In an embedded database the schema public is opened to the
    roles, as in a Supabase project. Raises ``DatabaseProblem``.
    """
    parts = _parts(resources.files(__package__).joinpath("schema.sql").read_text("utf-8"))
    async with conn.transaction():
        # No function or operator of a user can take the place of one of Postgres.
        await conn.execute("set local search_path to pg_catalog, pg_temp")
        await _check(conn)
        # Two servers that start on one database at the same time must take turns.
        await conn.execute("select pg_advisory_xact_lock(7307001)")
        for purpose, statements in parts:
            await _run(conn, purpose, statements)
        await _publish(conn, publication)
        ours = await _is_ours(conn)
        if ours:
            await _run(conn, "open the schema public", OPEN_PUBLIC)
        return await clients_login(conn, url, ours=ours)


async def _is_ours(conn: psycopg.AsyncConnection) -> bool:
    found = await (
        await conn.execute("select current_setting(%s, true) = 'on'", (OURS,))
    ).fetchone()
    return bool(found and found[0])


def _parts(text: str) -> list[tuple[str, str]]:
    """Split the script into parts; returns the purpose and the statements of each."""
    words = re.split(r"^-- to: (.*)$", text, flags=re.MULTILINE)[1:]
    return list(zip(words[::2], words[1::2], strict=True))


async def _check(conn: psycopg.AsyncConnection) -> None:
    if conn.info.server_version < OLDEST:
        raise DatabaseProblem(
            f"PostgreSQL 14 or newer is needed, and this is {conn.info.server_version // 10_000}"
        )
    found = await (
        await conn.execute(
            "select current_setting('wal_level'), pg_is_in_recovery(),"
            " rolsuper or rolreplication, current_user from pg_roles where rolname = current_user"
        )
    ).fetchone()
    assert found is not None
    level, is_standby, may_replicate, user = found
    if level != "logical":
        raise DatabaseProblem(
            f"the database has wal_level = {level}; run ALTER SYSTEM SET wal_level = logical "
            "and restart PostgreSQL"
        )
    if is_standby:
        raise DatabaseProblem("the database is a read-only standby; give the URL of the primary")
    if not may_replicate:
        raise DatabaseProblem(
            f"the database user {user} may not follow changes; "
            f"run ALTER ROLE {user} REPLICATION as a superuser"
        )


async def _run(conn: psycopg.AsyncConnection, purpose: str, statements: str) -> None:
    try:
        await conn.execute(statements.encode())
    except psycopg.errors.InsufficientPrivilege as exc:
        problem = exc.diag.message_primary
    else:
        return
    raise DatabaseProblem(
        f"the database user {conn.info.user} may not {purpose} ({problem}); "
        "connect as a superuser such as postgres, or grant what docs/local-server.md lists"
    )


async def _publish(conn: psycopg.AsyncConnection, publication: str) -> None:
    rows = await (await conn.execute("select pubname from pg_publication")).fetchall()
    there = {name for (name,) in rows}
    # The real server sends generated columns. From PostgreSQL 18 on the WAL has them, with this
    # option; without it, a replica identity could not include them either.
    is_new = conn.info.server_version >= WITH_GENERATED
    more = sql.SQL(" with (publish_generated_columns = stored)" if is_new else "")
    mine = sql.Identifier(publication)
    wanted = {
        publication: sql.SQL("create publication {}{}").format(mine, more),
        # Supabase has a publication of its own, which lists partitions; it is not altered.
        MESSAGES_PUBLICATION: sql.SQL(
            "create publication {} for table realtime.messages"
            " with (publish = 'insert', publish_via_partition_root = true)"
        ).format(sql.Identifier(MESSAGES_PUBLICATION)),
    }
    for name, statement in wanted.items():
        if name not in there:
            await _run(conn, f"create the publication {name}", statement.as_string(conn))

"""The database roles of a server: its administrator, and the one for clients' statements.

Every statement that a client causes runs in a session of ``authenticator``. That role owns
nothing, has no rights of its own, and may only switch to the roles granted to it. So no filter,
policy or trigger runs as a superuser, not even after ``reset role``.
"""

from __future__ import annotations

import dataclasses
import os

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from .errors import DatabaseProblem

__all__ = ["AUTHENTICATOR", "OWNER", "SERVICE", "Login", "clients_login"]

AUTHENTICATOR = "authenticator"
OWNER = "supabase_realtime_admin"
SERVICE = "service_role"

# An existing role belongs to the user, so its grants stay as they are.
CREATE = """
do $$
begin
    if not exists (select from pg_roles where rolname = 'authenticator') then
        create role authenticator nologin noinherit;
        grant anon, authenticated, service_role to authenticator;
    end if;
end
$$
"""
# In our own database the role logs in itself, so that its session cannot switch to another user.
# It needs usage of all schemas for the names of types. Our objects belong to a role without
# rights, because triggers and the like may run as the owner of the table.
OWN = """
do $$
declare
    name text;
    mine oid := (select oid from pg_roles where rolname = current_user);
begin
    if exists (
        select from pg_roles where rolname = 'authenticator' and (
            not rolcanlogin or rolinherit or rolsuper or rolcreatedb or rolcreaterole
            or rolreplication or rolbypassrls
        )
    ) then
        alter role authenticator login noinherit nosuperuser nocreatedb nocreaterole
            noreplication nobypassrls;
    end if;
    if not exists (select from pg_roles where rolname = 'supabase_realtime_admin') then
        create role supabase_realtime_admin nologin noinherit;
    end if;
    for name in
        select format('schema %I', nspname) from pg_namespace
        where nspname in ('auth', 'realtime') and nspowner = mine
        union all
        select format('table %s', oid::regclass) from pg_class
        where oid = to_regclass('realtime.messages') and relowner = mine
        union all
        select format('function %s', oid::regprocedure) from pg_proc
        where proowner = mine and oid in (
            to_regprocedure('auth.uid()')::oid,
            to_regprocedure('auth.role()')::oid,
            to_regprocedure('auth.jwt()')::oid,
            to_regprocedure('realtime.topic()')::oid,
            to_regprocedure('realtime.send(jsonb, text, text, boolean)')::oid,
            to_regprocedure('realtime.send_binary(bytea, text, text, boolean)')::oid,
            to_regproc('realtime.broadcast_changes')::oid
        )
        union all
        select format('publication %I', pubname) from pg_publication
        where pubname in ('supabase_realtime', 'supabase_rt_messages') and pubowner = mine
            and not puballtables
            and not exists (select from pg_publication_namespace where pnpubid = pg_publication.oid)
    loop
        execute format('alter %s owner to supabase_realtime_admin', name);
    end loop;
    for name in
        select nspname from pg_namespace
        where nspname !~ '^pg_' and not has_schema_privilege('authenticator', oid, 'usage')
    loop
        execute format('grant usage on schema %I to authenticator', name);
    end loop;
    for name in
        select rolname from pg_auth_members m join pg_roles r on r.oid = m.roleid
        where m.member = 'authenticator'::regrole and m.inherit_option
    loop
        execute format('grant %I to authenticator with inherit false', name);
    end loop;
end
$$;
alter default privileges grant usage on schemas to authenticator
"""
# Tries the server's own statements before the first client connects.
TRY = """
set local role anon;
set local role authenticated;
set local role service_role;
do $$
begin
    if exists (select from pg_roles where rolname = session_user and rolsuper) then
        raise insufficient_privilege using message = 'it is a superuser';
    end if;
    if row_security_active('realtime.messages')
        or not has_table_privilege('realtime.messages', 'select')
        or not has_table_privilege('realtime.messages', 'insert')
    then
        raise insufficient_privilege using message =
            'service_role may not read and write all of realtime.messages';
    end if;
end
$$
"""
REMEDY = (
    "run as a superuser: ALTER ROLE authenticator NOSUPERUSER; "
    "GRANT anon, authenticated, service_role TO authenticator; "
    "ALTER ROLE service_role NOSUPERUSER BYPASSRLS; GRANT USAGE ON SCHEMA realtime TO "
    "service_role; GRANT SELECT, INSERT ON realtime.messages TO service_role"
)


@dataclasses.dataclass(frozen=True)
class Login:
    """The way to connect for clients' statements.

    ``session_role`` is the role that an open session is handed to; None keeps the URL's user.
    ``trusted`` is the role for the server's own statements; None is the URL's user.
    """

    url: str
    session_role: str | None = None
    trusted: str | None = None


async def clients_login(conn: psycopg.AsyncConnection, url: str, *, ours: bool) -> Login:
    """Returns the login for clients' statements; a superuser creates the roles for it.

    Without superuser rights the user itself is the login. Must run within a transaction. Raises
    ``DatabaseProblem``.
    """
    row = await (
        await conn.execute("select rolsuper from pg_roles where rolname = session_user")
    ).fetchone()
    if row is None or not row[0]:
        return Login(url)
    await conn.execute(CREATE)
    if ours:
        await conn.execute(OWN)
    await _try(conn)
    if ours and os.name != "nt":
        # A session of its own from the start leaves no other user to switch back to.
        return Login(make_conninfo(url, user=AUTHENTICATOR), trusted=SERVICE)
    return Login(url, session_role=AUTHENTICATOR, trusted=SERVICE)


async def _try(conn: psycopg.AsyncConnection) -> None:
    become = sql.SQL("set local session authorization {}").format(sql.Identifier(AUTHENTICATOR))
    try:
        await conn.execute(become)
        await conn.execute(TRY)
        await conn.execute("reset role; reset session authorization")
    except psycopg.errors.InsufficientPrivilege as exc:
        problem = exc.diag.message_primary
    else:
        return
    raise DatabaseProblem(
        f"the database role {AUTHENTICATOR} is not fit for clients to act through "
        f"({problem}); {REMEDY}"
    )

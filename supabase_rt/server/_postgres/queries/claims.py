"""Running statements in the role and with the claims of a token.

See docs/protocol.md#rights-on-a-private-channel.
"""

from __future__ import annotations

import json
import time
import types
import weakref
from collections.abc import Mapping
from typing import Any, Final

import psycopg

from ..roles import Login

__all__ = ["act_as", "act_for_server", "role_problem"]

# Stricter than the database itself. A superuser's session may switch to any role, `none` is the
# session's own user, and some roles may run programs or read files.
ASKED = """
select r.rolname <> session_user and r.rolname !~ '^pg_'
    and not r.rolsuper and not r.rolreplication
    and pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER')
    and not exists (
        select from pg_catalog.pg_roles p
        where p.rolname in (
            'pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'
        ) and pg_catalog.pg_has_role(r.oid, p.oid, 'MEMBER')
    ) as allowed
from pg_catalog.pg_roles r where r.rolname::text = %(role)s::text
"""
ACT_AS = """
select pg_catalog.set_config('role', %(role)s, true),
    pg_catalog.set_config('request.jwt.claims', %(claims)s, true),
    pg_catalog.set_config('request.jwt.claim.sub', %(sub)s, true),
    pg_catalog.set_config('request.jwt.claim.role', %(role)s, true),
    pg_catalog.set_config('request.headers', %(headers)s, true),
    pg_catalog.set_config('realtime.topic', %(topic)s, true)
"""
FRESH = 1.0
"""Seconds that the check of a role is valid; the database checks the grant each time itself."""
NO_HEADERS: Final = types.MappingProxyType[str, str]({})
_checked: Final = weakref.WeakKeyDictionary[psycopg.AsyncConnection, dict[str, float]]()


async def act_as(
    conn: psycopg.AsyncConnection,
    claims: Mapping[str, Any],
    topic: str = "",
    headers: Mapping[str, str] = NO_HEADERS,
) -> None:
    """Set the role and the claims of a token until the transaction ends.

    Raises ``psycopg.Error`` if the role is unknown, or not granted to the session's user. Raises
    it also for claims that the database cannot store as text.
    """
    about = {
        "role": str(claims["role"]),
        "claims": json.dumps(claims, default=str),
        "sub": str(claims.get("sub") or ""),
        "topic": topic,
        "headers": json.dumps(dict(headers)),
    }
    try:
        await _check(conn, about["role"])
        await conn.execute(ACT_AS, about)
    except UnicodeError as exc:
        problem = str(exc)
    else:
        return
    raise psycopg.errors.CharacterNotInRepertoire(problem)


async def _check(conn: psycopg.AsyncConnection, role: str) -> None:
    """Raise unless the session may act as a role."""
    checked, now = _checked.setdefault(conn, {}), time.monotonic()
    if checked.get(role, 0.0) > now:
        return
    row = await (await conn.execute(ASKED, {"role": role})).fetchone()
    if row is None:
        raise psycopg.errors.InvalidParameterValue(f'role "{role}" does not exist')
    if not row[0]:
        raise psycopg.errors.InsufficientPrivilege(f'permission denied to set role "{role}"')
    checked[role] = now + FRESH


async def act_for_server(conn: psycopg.AsyncConnection, login: Login) -> None:
    """Set the role for the server's own statements until the transaction ends; no superuser."""
    if login.trusted is not None:
        await act_as(conn, {"role": login.trusted})


async def role_problem(conn: psycopg.AsyncConnection, role: str) -> str | None:
    """Returns the real server's error for a role that cannot be used; None if it can."""
    try:
        row = await (await conn.execute(ASKED, {"role": role})).fetchone()
    except (UnicodeError, psycopg.DataError):
        row = None
    if row is None:
        return f'ERROR 42704 (undefined_object) role "{role}" does not exist'
    if not row[0]:
        return f'ERROR 42501 (insufficient_privilege) permission denied to set role "{role}"'
    return None

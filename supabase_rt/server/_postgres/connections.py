"""Connections to a database, and whether it is the database that is away when one fails."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from .errors import DatabaseProblem

__all__ = ["connect", "is_alive", "is_lost"]

CONNECT_TIMEOUT = 10
# Values are shown in UTC, as the real server's connections do; nothing else that a database may
# have been given as its default changes how they are written.
SESSION = (
    "-c timezone=UTC -c client_encoding=UTF8 -c datestyle=ISO -c intervalstyle=postgres"
    " -c bytea_output=hex -c extra_float_digits=1"
)

# libpq says what is wrong, and not what to do about it.
REMEDIES = {
    "password authentication failed": "; check user and password in the database URL",
    "no password supplied": "; put the password into the database URL",
    "does not exist": "; name another one in the database URL, or create it",
    "no pg_hba.conf entry": "; allow this user and address in pg_hba.conf",
    "failed to resolve host": "; check the host in the database URL",
    "Connection refused": "; start it, or give the URL of another",
    "No such file or directory": "; start it, or give the URL of another",
    "timeout expired": "; is the host reachable from here?",
    "too many clients": "; close some, or raise max_connections",
}


async def connect(
    url: str,
    purpose: str,
    *,
    replication: bool = False,
    timeout: float | None = None,
    session_role: str | None = None,
) -> psycopg.AsyncConnection:
    """An open connection in autocommit mode; raises ``DatabaseProblem``.

    ``purpose`` is shown in ``pg_stat_activity``; no statement takes longer than ``timeout``. With
    ``session_role`` the session is handed to that role, and is not the user's any more.
    """
    given = _read(url)
    try:
        options = f"{given.get('options') or ''} {SESSION}".strip()
        if timeout is not None:
            options += f" -c statement_timeout={max(1, round(timeout * 1000))}"
        conn = await psycopg.AsyncConnection.connect(
            url,
            autocommit=True,
            options=options,
            application_name=f"supabase_rt {purpose}",
            connect_timeout=CONNECT_TIMEOUT,
            # None is left out, so that the connection is an ordinary one.
            replication="database" if replication else None,
        )
        if session_role is not None:
            await _hand_over(conn, session_role)
        return conn
    except psycopg.Error as exc:
        problem = " ".join(str(exc).split())
    problem = problem.removeprefix("connection failed: ").removeprefix("connection is bad: ")
    remedy = next((text for words, text in REMEDIES.items() if words in problem), "")
    raise DatabaseProblem(f"cannot connect to the database: {problem}{remedy}")


async def _hand_over(conn: psycopg.AsyncConnection, role: str) -> None:
    try:
        become = sql.SQL("set session authorization {}").format(sql.Identifier(role))
        await conn.execute(become)
    except BaseException:
        await conn.close()
        raise


def _read(url: str) -> dict[str, Any]:
    """The parts of a URL; what libpq says of a bad one may quote the password, and is not told."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        problem = "cannot read the database URL; it is postgresql://USER:PASSWORD@HOST:PORT/NAME"
    else:
        if "@" not in str(given.get("host") or ""):
            return dict(given)
        problem = "the password in the database URL has to be percent-encoded: %40 for @"
    raise DatabaseProblem(problem)


def is_alive(conn: psycopg.AsyncConnection) -> bool:
    """Whether the database has not hung up meanwhile, as far as is known on this side."""
    try:
        # Twice: first its last words are read, then the end.
        conn.pgconn.consume_input()
        conn.pgconn.consume_input()
    except psycopg.Error:
        return False
    return not conn.closed


def is_lost(error: psycopg.Error, conn: psycopg.AsyncConnection) -> bool:
    """Whether the connection has ended, and not only a statement on it.

    The class of the exception cannot tell: psycopg calls a filter that is too complex (54001) an
    ``OperationalError``, too. Nor can the code alone, because a policy may raise any code it
    likes. What ends a session (57P01 to 57P05, class 08) is FATAL, which no policy can raise.
    """
    return conn.closed or error.diag.severity_nonlocalized in ("FATAL", "PANIC")

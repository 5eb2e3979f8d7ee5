"""Opening connections to a database, and telling a lost connection from a failed statement."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from .errors import DatabaseProblem

__all__ = ["connect", "is_alive", "is_lost"]

CONNECT_TIMEOUT = 10
# Values are formatted in UTC, as on the real server's connections. The other options undo any
# defaults of the database that change the format of values.
SESSION = (
    "-c timezone=UTC -c client_encoding=UTF8 -c datestyle=ISO -c intervalstyle=postgres"
    " -c bytea_output=hex -c extra_float_digits=1"
)

# libpq names the fault; these texts add the remedy.
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
    """Open a connection in autocommit mode; raises ``DatabaseProblem``.

    ``purpose`` is shown in ``pg_stat_activity``. No statement takes longer than ``timeout``.
    With ``session_role`` the session belongs to that role instead of the user.
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
            # psycopg leaves None out, which gives an ordinary connection.
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
    """Parse a URL. libpq's error for an invalid one may quote the password, so it is replaced."""
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
    """Returns False if the database has closed the connection, as far as this side knows."""
    try:
        # The first call reads the last message, the second one the end.
        conn.pgconn.consume_input()
        conn.pgconn.consume_input()
    except psycopg.Error:
        return False
    return not conn.closed


def is_lost(error: psycopg.Error, conn: psycopg.AsyncConnection) -> bool:
    """Returns True if the connection has ended, and not only a statement on it.

    The class of the exception does not show it: psycopg raises ``OperationalError`` also for a
    filter that is too complex (54001). Neither does the code, because a policy may raise any
    code. But errors that end a session (57P01 to 57P05, class 08) are FATAL, and no policy can
    raise that.
    """
    return conn.closed or error.diag.severity_nonlocalized in ("FATAL", "PANIC")

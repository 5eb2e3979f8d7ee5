"""Connections that are opened when needed, used by one at a time and replaced when broken."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from .problems import DatabaseProblem

__all__ = ["Line", "connect"]

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
    url: str, purpose: str, *, replication: bool = False, session_role: str | None = None
) -> psycopg.AsyncConnection:
    """An open connection in autocommit mode; raises ``DatabaseProblem``.

    With ``session_role`` the session is handed to that role, and is not the user's any more.
    """
    given = _read(url)
    try:
        options = f"{given.get('options') or ''} {SESSION}".strip()
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
        # With a slash in the password, libpq takes its two halves for a port and a database.
        misread = re.search(r"[^0-9,]", str(given.get("port") or ""))
        if "@" not in str(given.get("host") or "") and misread is None:
            return dict(given)
        problem = "the password in the database URL has to be percent-encoded: %40 for @, %2F for /"
    raise DatabaseProblem(problem)


def _is_alive(conn: psycopg.AsyncConnection) -> bool:
    """Whether the database has not hung up meanwhile, as far as is known on this side."""
    try:
        # Twice: first its last words are read, then the end.
        conn.pgconn.consume_input()
        conn.pgconn.consume_input()
    except psycopg.Error:
        return False
    return not conn.closed


class Line:
    """One connection to a database.

    ``purpose`` is shown in ``pg_stat_activity``; ``session_role`` is as for ``connect``.
    """

    def __init__(self, url: str, purpose: str, *, session_role: str | None = None) -> None:
        self._url = url
        self._session_role = session_role
        self._purpose = purpose
        self._lock = asyncio.Lock()
        self._conn: psycopg.AsyncConnection | None = None

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """The connection, for one user at a time; raises ``DatabaseProblem``."""
        async with self._lock:
            if self._conn is None or not _is_alive(self._conn):
                await self._hang_up()
                self._conn = await connect(
                    self._url, self._purpose, session_role=self._session_role
                )
            yield self._conn

    @contextlib.asynccontextmanager
    async def rolled_back(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """A transaction of which nothing remains."""
        async with self.use() as conn, conn.transaction(force_rollback=True):
            yield conn

    async def close(self) -> None:
        """Hang up, as soon as nobody uses it."""
        async with self._lock:
            await self._hang_up()

    async def _hang_up(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            await conn.close()

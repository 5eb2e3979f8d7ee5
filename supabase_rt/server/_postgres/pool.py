"""A pool of connections for one purpose; no client can take all of them."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from .connections import connect, is_alive, is_lost
from .errors import DatabaseProblem

__all__ = ["ConnectionEnded", "Pool", "rolled_back"]

T = TypeVar("T")

CANCELLED = "canceling statement due to statement timeout"
LONGEST_WAIT = 10.0
"""Seconds to wait for a database that has no free connection."""
MOST_IDLE = 2
PAUSE = 0.05


class ConnectionEnded(psycopg.OperationalError):
    """A statement ended its own connection, while the database is running."""

    sqlstate = "57P01"


class Pool:
    """Connections that are opened on demand, each for one user at a time.

    There are at most ``size``, and at most ``share`` for each client. A caller waits at most
    ``patience`` seconds for its turn. No statement takes longer than ``timeout`` seconds. A
    function that catches the cancellation loses its session a little later. None lifts both
    limits. ``most_idle`` connections are kept for the next use. ``session_role`` is that of
    ``connect``.
    """

    def __init__(
        self,
        url: str,
        purpose: str,
        *,
        size: int = 4,
        share: int = 2,
        timeout: float | None = None,
        patience: float | None = None,
        session_role: str | None = None,
        most_idle: int = MOST_IDLE,
    ) -> None:
        self._url = url
        self._session_role = session_role
        self._most_idle = most_idle
        self._purpose = purpose
        self._size = size
        self._share = share
        self._timeout = timeout
        self._patience = patience
        self._used: collections.Counter[object] = collections.Counter()
        self._waiting: collections.deque[tuple[object, asyncio.Future[None]]] = collections.deque()
        self._idle: list[psycopg.AsyncConnection] = []
        self._busy: set[psycopg.AsyncConnection] = set()
        self._processes: dict[psycopg.AsyncConnection, int] = {}
        self._cut: set[psycopg.AsyncConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    # -- using a connection --------------------------------------------------------------

    async def run(
        self,
        work: Callable[[psycopg.AsyncConnection], Awaitable[T]],
        client: object = None,
        *,
        limit: float | None = None,
    ) -> T:
        """Call ``work`` with a connection, and once more with a new one if the first is lost.

        The first connection may be lost to a restart of the database; the second is lost because of
        ``work`` itself. ``work`` must leave nothing in the database. Raises as ``use`` does.
        """
        with contextlib.suppress(ConnectionEnded):
            async with self.use(client, limit=limit) as conn:
                return await work(conn)
        async with self.use(client, limit=limit) as conn:
            return await work(conn)

    @contextlib.asynccontextmanager
    async def use(
        self, client: object = None, *, limit: float | None = None
    ) -> AsyncIterator[psycopg.AsyncConnection]:
        """Lend a connection for about ``limit`` seconds; by default ``timeout``.

        Raises ``DatabaseProblem`` if the database is away or the turn does not come in time.
        Raises ``ConnectionEnded`` if only the connection was lost.
        """
        await self._take_turn(client)
        conn: psycopg.AsyncConnection | None = None
        interrupted = False
        guard: asyncio.TimerHandle | None = None
        try:
            conn = await self._open()
            limit = limit or self._timeout
            if limit is not None:
                # This limit comes later than the database's own timeout, after which the connection
                # stays usable.
                later = limit * 1.25 + 0.25
                guard = asyncio.get_running_loop().call_later(later, self._cut_off, conn)
            try:
                yield conn
            except psycopg.Error as exc:
                lost = is_lost(exc, conn)
                if not lost:
                    raise
            except BaseException:
                interrupted = True
                raise
            else:
                return
            await self._explain_loss(conn)
        finally:
            if guard is not None:
                guard.cancel()
            if conn is not None:
                await self._give_back(conn, interrupted)
            self._end_turn(client)

    @contextlib.asynccontextmanager
    async def rolled_back(self, client: object = None) -> AsyncIterator[psycopg.AsyncConnection]:
        """Lend a connection in a transaction that is rolled back."""
        async with self.use(client) as conn, rolled_back(conn):
            yield conn

    async def _explain_loss(self, conn: psycopg.AsyncConnection) -> None:
        """Raise the reason of a loss: it took too long, ended itself, or the database is away."""
        if self._closed:
            raise DatabaseProblem("the server stops")
        if conn in self._cut:
            raise psycopg.errors.QueryCanceled(CANCELLED)
        # This raises if the database is away.
        self._idle.append(await self._connect())
        raise ConnectionEnded("the statement ended its connection to the database")

    # -- taking turns --------------------------------------------------------------------

    def _is_free(self, client: object) -> bool:
        return self._used.total() < self._size and self._used[client] < self._share

    async def _take_turn(self, client: object) -> None:
        if self._closed:
            raise DatabaseProblem("the server stops")
        if self._is_free(client):
            self._used[client] += 1
            return
        mine = asyncio.get_running_loop().create_future()
        entry = (client, mine)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(self._patience):
                await mine
        except BaseException as exc:
            if entry in self._waiting:
                self._waiting.remove(entry)
            elif mine.done() and not mine.cancelled() and mine.exception() is None:
                # The turn came at the same moment; hand it on.
                self._end_turn(client)
            if not isinstance(exc, TimeoutError):
                raise
        else:
            return
        raise DatabaseProblem("too many clients wait for the database")

    def _end_turn(self, client: object) -> None:
        self._used[client] -= 1
        if not self._used[client]:
            del self._used[client]
        for entry in list(self._waiting):
            other, turn = entry
            if self._is_free(other):
                self._waiting.remove(entry)
                if not turn.done():
                    self._used[other] += 1
                    turn.set_result(None)

    # -- opening and closing -------------------------------------------------------------

    async def _connect(self) -> psycopg.AsyncConnection:
        conn = await connect(
            self._url, self._purpose, timeout=self._timeout, session_role=self._session_role
        )
        # An interrupted connection cannot be asked for its process any more.
        self._processes[conn] = conn.info.backend_pid
        return conn

    async def _open(self) -> psycopg.AsyncConnection:
        loop = asyncio.get_running_loop()
        end = loop.time() + LONGEST_WAIT
        while True:
            while self._idle:
                conn = self._idle.pop()
                if is_alive(conn):
                    self._busy.add(conn)
                    return conn
                self._processes.pop(conn, None)
                await conn.close()
            try:
                conn = await self._connect()
            except DatabaseProblem:
                # The database may have no connection left but those in use here.
                if not self._busy or loop.time() > end or self._closed:
                    raise
                await asyncio.sleep(PAUSE)
            else:
                self._busy.add(conn)
                return conn

    async def _give_back(self, conn: psycopg.AsyncConnection, interrupted: bool) -> None:
        self._busy.discard(conn)
        was_cut = conn in self._cut
        self._cut.discard(conn)
        is_idle = conn.pgconn.transaction_status == TransactionStatus.IDLE
        if is_idle and not was_cut and not self._closed and len(self._idle) < self._most_idle:
            self._idle.append(conn)
            return
        process = self._processes.pop(conn, 0)
        if interrupted and not is_idle and not was_cut:
            # Its statement must not continue without anyone waiting for it.
            self._spawn(self._terminate(process))
        await conn.close()

    def _cut_off(self, conn: psycopg.AsyncConnection) -> None:
        """End a connection while its user waits on it, and end its session in the database."""
        self._cut.add(conn)
        with contextlib.suppress(psycopg.Error, OSError):
            self._spawn(self._terminate(self._processes[conn]))
            # Closing the connection would not wake the user, and libpq is in use. So shut the
            # socket down below it.
            with socket.fromfd(conn.fileno(), socket.AF_INET, socket.SOCK_STREAM) as found:
                found.shutdown(socket.SHUT_RDWR)

    async def _terminate(self, process: int) -> None:
        # Another connection is needed, because a busy backend does not read its own. It belongs
        # to the URL's user: to the database, that user still owns a session it handed over.
        with contextlib.suppress(psycopg.Error, DatabaseProblem):
            async with await connect(self._url, "end", timeout=1.0) as conn:
                await conn.execute("select pg_terminate_backend(%s)", (process,))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        name = f"supabase_rt server: end a session of {self._purpose}"
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel(self) -> None:
        """Cancel running statements and refuse new users; ``close`` follows."""
        self._closed = True
        for _, turn in self._waiting:
            if not turn.done():
                turn.set_exception(DatabaseProblem("the server stops"))
        self._waiting.clear()
        await asyncio.gather(
            *(conn.cancel_safe(timeout=1.0) for conn in self._busy), return_exceptions=True
        )

    async def close(self) -> None:
        """Close all connections, also those that are in use."""
        self._closed = True
        for conn in list(self._busy):
            self._cut_off(conn)
        idle, self._idle = self._idle, []
        for conn in idle:
            await conn.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def rolled_back(conn: psycopg.AsyncConnection) -> AsyncIterator[None]:
    """Run a transaction that is rolled back, with all advisory locks of its session."""
    await conn.execute("begin")
    try:
        yield
    finally:
        if conn.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            # Session locks that a policy took would outlive the transaction.
            await conn.execute("rollback; select pg_advisory_unlock_all()", prepare=False)

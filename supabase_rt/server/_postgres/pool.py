"""Several connections for one purpose, of which no client can take all."""

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
"""Seconds to wait for a database that has no connection to spare."""
MOST_IDLE = 2
PAUSE = 0.05


class ConnectionEnded(psycopg.OperationalError):
    """A statement took its own connection with it; the database is there."""

    sqlstate = "57P01"


class Pool:
    """Connections that are opened when needed, each used by one at a time.

    There are at most ``size``, and at most ``share`` for each client. No statement takes longer
    than ``timeout`` seconds, and no use of a connection much longer: a function that catches the
    cancellation loses its session. None lifts both. A turn is waited for ``patience`` seconds.
    ``session_role`` is as for ``connect``; ``most_idle`` are kept for the next use.
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

    # -- using one -----------------------------------------------------------------------

    async def run(
        self,
        work: Callable[[psycopg.AsyncConnection], Awaitable[T]],
        client: object = None,
        *,
        limit: float | None = None,
    ) -> T:
        """Work with a connection, and once more on a new one where the first was lost.

        It may have been lost to a restart of the database; a second time it is the work's fault.
        ``work`` must leave nothing in the database. Raises as ``use`` does.
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
        """A connection, for one user at a time, for about ``limit`` seconds (``timeout``).

        Raises ``DatabaseProblem`` where the database is away or the turn does not come, and
        ``ConnectionEnded`` where it is there and only the connection was lost.
        """
        await self._take_turn(client)
        conn: psycopg.AsyncConnection | None = None
        interrupted = False
        guard: asyncio.TimerHandle | None = None
        try:
            conn = await self._open()
            limit = limit or self._timeout
            if limit is not None:
                # After the database's own timeout, which leaves the connection whole.
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
        """A connection in a transaction of which nothing remains."""
        async with self.use(client) as conn, rolled_back(conn):
            yield conn

    async def _explain_loss(self, conn: psycopg.AsyncConnection) -> None:
        """Raise why a connection was lost: it took too long, it ended itself, or all is away."""
        if self._closed:
            raise DatabaseProblem("the server stops")
        if conn in self._cut:
            raise psycopg.errors.QueryCanceled(CANCELLED)
        # Whoever can be connected to is not away.
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
                # The turn came in the same moment.
                self._end_turn(client)
            if not isinstance(exc, TimeoutError):
                raise
        else:
            return
        raise DatabaseProblem("too many wait for the database")

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
        # Kept, because a connection that was interrupted does not tell any more.
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
                # It may have no more connections for us than those that we have.
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
            # Whatever runs there must not go on by itself.
            self._spawn(self._terminate(process))
        await conn.close()

    def _cut_off(self, conn: psycopg.AsyncConnection) -> None:
        """End a connection under whoever waits for it, and its session too."""
        self._cut.add(conn)
        with contextlib.suppress(psycopg.Error, OSError):
            self._spawn(self._terminate(self._processes[conn]))
            # Closing would wake nobody, and libpq may not be called while it waits.
            with socket.fromfd(conn.fileno(), socket.AF_INET, socket.SOCK_STREAM) as found:
                found.shutdown(socket.SHUT_RDWR)

    async def _terminate(self, process: int) -> None:
        # From another connection; a backend that computes does not look at its own. As the user of
        # the URL: a session that was handed over is still that user's to the database.
        with contextlib.suppress(psycopg.Error, DatabaseProblem):
            async with await connect(self._url, "end", timeout=1.0) as conn:
                await conn.execute("select pg_terminate_backend(%s)", (process,))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        name = f"supabase_rt server: end a session of {self._purpose}"
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel(self) -> None:
        """Cancel what runs, and let nobody begin; ``close`` follows."""
        self._closed = True
        for _, turn in self._waiting:
            if not turn.done():
                turn.set_exception(DatabaseProblem("the server stops"))
        self._waiting.clear()
        await asyncio.gather(
            *(conn.cancel_safe(timeout=1.0) for conn in self._busy), return_exceptions=True
        )

    async def close(self) -> None:
        """Hang up, also where somebody still waits for an answer."""
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
    """A transaction of which nothing remains, not even a lock that its session holds."""
    await conn.execute("begin")
    try:
        yield
    finally:
        if conn.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            # Locks that a policy took for its session would outlive the transaction.
            await conn.execute("rollback; select pg_advisory_unlock_all()", prepare=False)

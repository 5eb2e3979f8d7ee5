"""The database of a local server: its connections, its feed, and their start and end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from .._http.postgrest.query import RestQuery
from .._machine.join_request import Replay
from .._machine.message_store import StoredMessage
from .._machine.server_state import DatabaseAway
from ..activity import Activity
from ..tokens import Rights, Token
from .connections import connect
from .database_feed import DatabaseFeed
from .embedded import EmbeddedPostgres
from .errors import DatabaseProblem
from .pool import Pool
from .queries.policies import Authority
from .queries.status_page_tables import DatabaseRows
from .queries.table_reader import TableReader
from .replication.follower import Follower, Sent
from .replication.stream import ReplicationStream
from .setup import MESSAGES_PUBLICATION, PUBLICATION, prepare

__all__ = ["Database"]

PATIENCE = 10.0
"""Seconds that a request waits for its turn; after them the answer is that the database is away."""
GRACE = 0.5
"""Seconds that running tasks get to end by themselves at the stop."""


class Database:
    """One followed database, given by its URL or embedded.

    ``url`` is that of a PostgreSQL 14 or newer. Without one, an embedded server is started in
    ``folder``, or in a temporary folder. ``slot`` names a replication slot that survives a crash
    of this process and is dropped at an orderly stop. Without a name the slot is temporary.
    ``sent`` is called with the messages of ``realtime.messages``. No statement caused by a
    client takes longer than ``statement_timeout`` seconds.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        sent: Sent,
        folder: str | os.PathLike[str] | None = None,
        slot: str | None = None,
        publication: str = PUBLICATION,
        max_record_bytes: int = 1_048_576,
        statement_timeout: float = 2.0,
        activity: Activity | None = None,
    ) -> None:
        if not statement_timeout > 0:
            raise ValueError("statement_timeout is a number of seconds above 0")
        self.embedded: EmbeddedPostgres | None = EmbeddedPostgres(folder) if url is None else None
        self._url = url
        self._sent = sent
        self._slot = slot
        self._publication = publication
        self._max_record_bytes = max_record_bytes
        self._timeout = statement_timeout
        self._activity = activity
        self._tasks: set[asyncio.Task[None]] = set()
        self._tasks_of: dict[object, set[asyncio.Task[None]]] = {}
        self._pools: list[Pool] = []
        self._follower: Follower | None = None
        self._sql: Pool | None = None
        self._authority: Authority | None = None
        self._reader: TableReader | None = None
        self.rows: DatabaseRows | None = None
        """The tables for the status page, once started."""
        self.feed: DatabaseFeed | None = None
        """The change feed, once started."""

    @property
    def url(self) -> str:
        """The URL for psql and other clients."""
        if self._url is None:
            raise RuntimeError("the embedded database has not been started")
        return self._url

    @property
    def running(self) -> bool:
        """True from start to stop."""
        return self._follower is not None

    @property
    def reachable(self) -> bool:
        """True while the stream of its changes is open."""
        return self._follower is not None and self._follower.following

    # -- start and end -----------------------------------------------------------------

    async def start(self) -> None:
        """Connect, create missing objects, and follow; raises ``DatabaseProblem``."""
        try:
            if self.embedded is not None:
                await _finished(self.embedded.start)
                self._url = self.embedded.url
            await self._open(self.url)
        except BaseException:
            await self.stop()
            raise

    async def _open(self, url: str) -> None:
        # Statements of ``sql()`` share one session, and have no time limit.
        self._sql = self._pool(url, "sql", size=1, share=1)
        async with self._sql.use() as conn:
            login = await prepare(conn, url, publication=self._publication)

        def clients_pool(name: str, timeout: float, **limits: Any) -> Pool:
            return self._pool(
                login.url, name, timeout=timeout, session_role=login.session_role, **limits
            )

        # Work for all channels at once must not wait for a slow one.
        quick = self._timeout / 4
        shared = clients_pool("changes", quick, size=1, share=1)
        apart = clients_pool("single changes", self._timeout)
        checks, policies, rest = (
            clients_pool(name, self._timeout, patience=PATIENCE)
            for name in ("subscriptions", "policies", "rest")
        )
        # A trigger may leave settings in the session, so no connection is used twice.
        rows = clients_pool("rows", self._timeout, patience=PATIENCE, most_idle=0)
        self._reader = TableReader(rest)
        self._authority = Authority(policies, login)
        self.rows = DatabaseRows(rows, login, self._publication)
        self.feed = DatabaseFeed(
            shared,
            apart,
            checks,
            self._spawn,
            publication=self._publication,
            quick=quick,
            timeout=self._timeout,
            max_record_bytes=self._max_record_bytes,
            activity=self._activity,
        )
        self._follower = Follower(self._open_stream, self.feed.deliver, self._sent, self.feed.skip)
        await self._follower.open()
        self._spawn(self._follower.run(), "follower")

    def _pool(self, url: str, purpose: str, **limits: Any) -> Pool:
        pool = Pool(url, purpose, **limits)
        self._pools.append(pool)
        return pool

    async def _open_stream(self) -> ReplicationStream:
        name = self._slot or f"supabase_rt_{os.getpid()}_{secrets.token_hex(4)}"
        publications = (self._publication, MESSAGES_PUBLICATION)
        return await ReplicationStream.open(
            self.url, name, publications, temporary=self._slot is None
        )

    def _spawn(
        self, work: Coroutine[Any, Any, None], name: str, client: object = None
    ) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"supabase_rt server: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if client is not None:
            mine = self._tasks_of.setdefault(client, set())
            mine.add(task)
            task.add_done_callback(lambda task: self._forget(client, task))
        return task

    def _forget(self, client: object, task: asyncio.Task[None]) -> None:
        mine = self._tasks_of.get(client)
        if mine is not None:
            mine.discard(task)
            if not mine:
                del self._tasks_of[client]

    def client_left(self, client: object) -> None:
        """Cancel the tasks of a client."""
        for task in list(self._tasks_of.get(client, ())):
            task.cancel()

    async def stop(self) -> None:
        """End all tasks and connections, drop a named slot, and stop an embedded server."""
        sql = self._sql
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        # Running statements are cancelled first; after a while their connections are closed.
        await asyncio.gather(*(pool.cancel() for pool in self._pools))
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
        await asyncio.gather(*(pool.close() for pool in self._pools))
        await asyncio.gather(*tasks, return_exceptions=True)
        follower, self._follower = self._follower, None
        if follower is not None:
            await follower.close()
            if sql is not None:
                await self._drop_slot()
        self._pools = []
        self._sql = self._authority = self._reader = self.rows = self.feed = None
        if self.embedded is not None:
            await asyncio.to_thread(self.embedded.stop)
            self._url = None

    async def _drop_slot(self) -> None:
        if self._slot is None or self.embedded is not None:
            return
        query = (
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
            " where slot_name = %s and not active"
        )
        # On any failure the slot stays, and the next start finds it.
        with contextlib.suppress(psycopg.Error, DatabaseProblem, TimeoutError):
            async with (
                asyncio.timeout(2 * GRACE),
                await connect(self.url, "end", timeout=GRACE) as conn,
            ):
                # The database notices a moment later that the stream has ended.
                for _ in range(50):
                    if (await conn.execute(query, (self._slot,))).rowcount:
                        return
                    await asyncio.sleep(0.02)

    # -- queries of the server ---------------------------------------------------------

    async def sql(self, statement: str, args: Sequence[Any]) -> list[dict[str, Any]]:
        """Run statements as the user of the URL; returns the rows of the last one."""
        if self._sql is None:
            raise RuntimeError("the database is not running")
        async with self._sql.use() as conn, conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(statement.encode(), args or None)
            while cursor.nextset():
                pass
            return await cursor.fetchall() if cursor.description is not None else []

    async def rights(self, token: Token, sub_topic: str, client: object = None) -> Rights | None:
        """Returns the rights of a token on a private topic; None while the database is away."""
        if self._authority is None:
            return None
        try:
            return await self._authority.rights(token, sub_topic, client or token.text)
        except DatabaseProblem:
            return None

    def ask_rights(
        self,
        token: Token,
        sub_topic: str,
        done: Callable[[Rights | None], None],
        client: object = None,
    ) -> None:
        """Call ``done`` with the result of ``rights``."""

        async def ask() -> None:
            done(await self.rights(token, sub_topic, client))

        self._spawn(ask(), "policies", client)

    async def replay(
        self, sub_topic: str, wanted: Replay, client: object = None
    ) -> list[StoredMessage]:
        """Read stored messages, oldest first; raises ``psycopg.Error`` or ``DatabaseProblem``."""
        assert self._authority is not None
        return await self._authority.replay(sub_topic, wanted, client)

    def ask_replay(
        self,
        sub_topic: str,
        wanted: Replay,
        done: Callable[[list[StoredMessage] | None], None],
        client: object = None,
    ) -> None:
        """Call ``done`` with the result of ``replay``, or None if the database fails."""

        async def ask() -> None:
            try:
                found: list[StoredMessage] | None = await self.replay(sub_topic, wanted, client)
            except (psycopg.Error, DatabaseProblem, UnicodeError):
                found = None
            done(found)

        self._spawn(ask(), "replay", client)

    async def read_table(
        self, token: Token, schema: str, table: str, query: RestQuery
    ) -> tuple[bytes, int]:
        """Read rows as JSON in a token's role, and their number.

        Raises ``RestProblem`` or ``DatabaseAway``.
        """
        if self._reader is None:
            raise DatabaseAway
        try:
            return await self._reader.read(token, schema, table, query)
        except DatabaseProblem:
            # The cause is left out because it names the database's user.
            raise DatabaseAway from None


async def _finished(work: Callable[[], object]) -> None:
    """Run ``work`` in a thread and wait until it has ended, also when cancelled."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        # The thread must end first: nothing can be cleaned up while it still creates files.
        await asyncio.gather(running, return_exceptions=True)
        raise

"""``LocalRealtime``: a Realtime server in this process, for tests and for development."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from .._wire.envelope import TOPIC_PREFIX
from ._http.app import SOCKETS, http_logger, make_app
from ._http.gate import Gate
from ._http.listening_socket import Doorway
from ._http.status_page import MadeUpRows, new_page_token
from ._machine.intake import LINGERING
from ._machine.server_state import Backend, Received
from ._tables.table_writer import Publisher
from ._tables.tables import Row, Table
from .activity import Listener
from .client_script import ClientScript
from .faults import Faults
from .settings import Settings
from .tokens import TEN_YEARS, Policy, Tokens, default_policy

if TYPE_CHECKING:
    from ._postgres.database import Database

__all__ = ["LocalRealtime", "Reached"]


class Reached(int):
    """The number of channels that a message went to.

    It may be awaited, with the same result; that gives the server a turn to write.
    """

    def __await__(self) -> Generator[Any, None, int]:
        yield from asyncio.sleep(0).__await__()
        return int(self)


class LocalRealtime:
    """A server that speaks both versions of the Realtime protocol.

    Without a database, row changes are published from Python with ``insert``, ``update`` and
    ``delete``. ``db`` is the URL of a PostgreSQL with ``wal_level = logical``, whose changes are
    followed instead. ``embedded_db=True`` starts a PostgreSQL for as long as the server runs; a
    path keeps its data there. Missing roles, schemas (``auth``, ``realtime``) and the publication
    ``supabase_realtime`` are created; existing objects stay as they are. ``slot`` names a
    replication slot that is found again after a crash; by default the slot is temporary.

    ``host`` and ``port`` are the address to listen on; port 0 takes a free one. ``jwt_secret``
    signs and checks all tokens. It has at least 32 bytes; by default it is random, so that no
    other key opens the server. ``allow_hosts`` are names that requests may use in addition to
    ``localhost`` and IP addresses. ``allow_origins`` are web pages (``"https://app.example"``)
    that may use the server in addition to local ones.

    ``policy`` decides on private topics: it is called with role, claims and sub-topic, and
    returns ``Rights`` or a bool. By default the policies on ``realtime.messages`` decide.
    Without a database, ``authenticated`` and ``service_role`` may do everything by default, and
    other roles nothing. All other keywords are those of ``Settings``.

    Raises ``ValueError`` for a short secret, or an invalid host name or origin. Raises
    ``TypeError`` for an unknown setting. ``start`` raises ``DatabaseProblem``, a
    ``RuntimeError``, if the database cannot be followed.
    """

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        jwt_secret: str | None = None,
        *,
        policy: Policy = default_policy,
        db: str | None = None,
        embedded_db: bool | str | os.PathLike[str] = False,
        slot: str | None = None,
        allow_hosts: Iterable[str] = (),
        allow_origins: Iterable[str] = (),
        **settings: Any,
    ) -> None:
        if db is not None and embedded_db is not False:
            raise ValueError("db and embedded_db are two databases; give one")
        self.host = host
        self.port: int = port
        self.settings: Settings = Settings(**settings)
        self.faults: Faults = Faults()
        """The faults that tests switch on."""
        self.backend: Backend = Backend(
            self.settings,
            tokens=Tokens(jwt_secret),
            policy=policy,
            faults=self.faults,
        )
        self._script = ClientScript(self.backend, self.faults)
        self._gate = Gate(allow_hosts, allow_origins, listens_on=host)
        self._page_token = new_page_token()
        self._tables = Publisher(self.backend.tables)
        self._database: Database | None = None
        if db is not None or embedded_db is not False:
            self._database = self._make_database(db, embedded_db, slot)
        self._app: web.Application | None = None
        self._runner: web.AppRunner | None = None
        self._doorway: Doorway | None = None
        self._clock: asyncio.TimerHandle | None = None
        issue = self.backend.tokens.issue
        self.anon_key: str = issue("anon", now=time.time(), expires_in=TEN_YEARS)
        """The key of a client without a signed-in user."""
        self.service_key: str = issue("service_role", now=time.time(), expires_in=TEN_YEARS)
        """The key with all rights."""

    # -- start and stop ----------------------------------------------------------------

    async def start(self) -> Self:
        """Start listening and set ``port`` to the real one; raises ``OSError`` if it is taken."""
        if self._runner is not None:
            raise RuntimeError("the server is running already")
        database = self._database
        if database is not None and not database.running:
            await database.start()
            assert database.feed is not None
            self.backend.feed, self.backend.database = database.feed, database
        try:
            await self._listen()
        except BaseException:
            await self._stop_database()
            raise
        return self

    async def _listen(self) -> None:
        rows = self._database.rows if self._database is not None else None
        made_up = MadeUpRows(self.backend.tables.tables, self._tables)
        self._app = make_app(self.backend, self._gate, self._page_token, rows or made_up)
        # The real server does not decompress bodies either.
        runner = web.AppRunner(
            self._app,
            access_log=None,
            logger=http_logger,
            shutdown_timeout=0.1,
            auto_decompress=False,
            lingering_time=LINGERING,
        )
        await runner.setup()
        assert runner.server is not None
        doorway = Doorway(self.settings)
        try:
            self.port = await doorway.open(runner.server, self.host, self.port)
        except BaseException:
            await runner.cleanup()
            raise
        self._runner, self._doorway = runner, doorway
        self._take_averages()

    def _take_averages(self) -> None:
        """Update the averages of the rate limits, now and every ``rate_interval`` seconds."""
        loop = asyncio.get_running_loop()
        self._clock = loop.call_later(self.settings.rate_interval, self._take_averages)
        self.backend.limits.tick()

    async def stop(self) -> None:
        """Stop listening, close every socket with 1012, and wait until all of it has ended.

        The replication slot is dropped, and an embedded database is stopped.
        """
        try:
            await self._hang_up()
        finally:
            await self._stop_database()

    async def _stop_database(self) -> None:
        if self._database is not None:
            self.backend.feed, self.backend.database = self.backend.tables, None
            await self._database.stop()

    async def _hang_up(self) -> None:
        runner, app = self._runner, self._app
        if runner is None or app is None:
            return
        self._runner = self._app = None
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        if self._doorway is not None:
            self._doorway.close()
        self.faults.handshakes.set()
        sockets = list(app[SOCKETS].values())
        for socket in sockets:
            socket.close(1012)
        with contextlib.suppress(TimeoutError):
            # A little longer than a socket waits for its client, so that it ends by itself.
            async with asyncio.timeout(self.settings.close_timeout + 0.1):
                for socket in sockets:
                    await socket.ended()
        for socket in list(app[SOCKETS].values()):
            socket.cut()
        await runner.cleanup()

    async def restart(self, downtime: float = 0.0) -> None:
        """Stop, refuse connections for ``downtime`` seconds, and listen on the same port again.

        A database keeps running meanwhile.
        """
        await self._hang_up()
        await asyncio.sleep(downtime)
        await self.start()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- how to reach it ---------------------------------------------------------------

    @property
    def url(self) -> str:
        """The URL for ``create_client(url, key)``."""
        return f"http://{self._netloc()}"

    @property
    def ws_url(self) -> str:
        """The URL for ``RealtimeClient(url)``."""
        return f"ws://{self._netloc()}/realtime/v1"

    @property
    def inspector_url(self) -> str:
        """The address of the status page, with the token that opens it while this server lives.

        Anyone who has this address may see everything and write. Raises ``RuntimeError`` if the
        server has no status page.
        """
        if not self.settings.status_page:
            raise RuntimeError("this server has no status page: status_page=False")
        return f"{self.url}/#token={self._page_token}"

    def _netloc(self) -> str:
        # 0.0.0.0 and :: mean "listen on all addresses"; a client cannot connect to them.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def token(
        self,
        role: str = "authenticated",
        sub: str | None = None,
        expires_in: float = 3600.0,
        **claims: Any,
    ) -> str:
        """Returns a signed token. ``expires_in`` may be negative, for an expired one."""
        now = time.time()
        return self.backend.tokens.issue(role, now=now, sub=sub, expires_in=expires_in, **claims)

    # -- the database ------------------------------------------------------------------

    def _make_database(
        self, db: str | None, embedded_db: bool | str | os.PathLike[str], slot: str | None
    ) -> Database:
        try:
            from ._postgres.database import Database
        except ImportError as exc:
            from ._postgres.errors import missing_package

            raise missing_package("psycopg", "following a database") from exc
        return Database(
            db,
            sent=self.backend.send_stored,
            folder=None if isinstance(embedded_db, bool) else embedded_db,
            slot=slot,
            max_record_bytes=self.settings.max_record_bytes,
            statement_timeout=self.settings.statement_timeout,
            activity=self.backend.activity,
        )

    @property
    def has_database(self) -> bool:
        """True if the server follows a PostgreSQL."""
        return self._database is not None

    @property
    def database_url(self) -> str:
        """The URL of the database, for psql or other clients; ``RuntimeError`` without one."""
        return self._followed().url

    async def sql(self, statement: str, *args: Any) -> list[dict[str, Any]]:
        """Run SQL as the owner of the database; returns the rows of the last statement.

        ``args`` replace each ``%s``; with them there may be one statement only. Raises
        ``psycopg.Error`` if the database refuses, ``RuntimeError`` without a database.
        """
        return await self._followed().sql(statement, args)

    def _followed(self) -> Database:
        if self._database is None:
            raise RuntimeError("this server has no database; give it db=URL or embedded_db=True")
        return self._database

    @property
    def _publisher(self) -> Publisher:
        if self._database is not None:
            raise RuntimeError("this server follows a database: change its rows with sql()")
        return self._tables

    # -- observed so far ---------------------------------------------------------------

    @property
    def connections(self) -> int:
        """The number of sockets accepted so far."""
        return self.backend.connections

    @property
    def open_connections(self) -> int:
        """The number of open sockets."""
        return len(self._app[SOCKETS]) if self._app is not None else 0

    @property
    def joins(self) -> int:
        """The number of joins accepted so far."""
        return self.backend.joins

    @property
    def malformed(self) -> int:
        """The number of frames that were dropped because they could not be decoded."""
        return self.backend.malformed

    @property
    def missed_changes(self) -> int:
        """The number of database changes that could not be sent, counted for each channel.

        Each of these channels got a ``system`` error: its filter, its policy or its token fails,
        or takes longer than ``statement_timeout``.
        """
        feed = self._database.feed if self._database is not None else None
        return feed.missed if feed is not None else 0

    @property
    def received(self) -> Sequence[Received]:
        """The messages of all clients in order: the newest 10,000, or 64 MiB of them."""
        return self.backend.received

    def watch(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with every ``Happening`` from now on; returns a function to end it."""
        return self.backend.activity.watch(listener)

    # -- a script of single messages ----------------------------------------------------

    async def expect(
        self,
        topic: str,
        event: str,
        check: Callable[[Any], Any] | None = None,
        *,
        timeout: float = 5.0,
    ) -> Received:
        """Returns the next message of a client with this topic and event.

        ``check`` is called with its payload, and a false result passes the message over. Each
        message is returned once, also one that came before the call. The topic may stand without
        ``realtime:``. Raises ``TimeoutError`` after ``timeout`` seconds; its text lists the
        messages that came instead.
        """
        return await self._script.expect(topic, event, check, timeout=timeout)

    async def expect_join(
        self, topic: str, check: Callable[[Any], Any] | None = None, *, timeout: float = 5.0
    ) -> Received:
        """Returns the next join of ``topic`` once it is answered, so that ``emit`` reaches it.

        Raises ``TimeoutError``, also for a join that was refused.
        """
        return await self._script.expect_join(topic, check, timeout=timeout)

    def emit(self, topic: str, event: str, payload: Any) -> int:
        """Write an event, unchanged, to every channel joined on ``topic``; returns their number.

        ``emit("room", "broadcast", {"type": "broadcast", "event": "x", "payload": {}})``. For
        the messages of a real server there are ``broadcast``, ``insert``, ``update`` and
        ``delete``.
        """
        return self._script.emit(topic, event, payload)

    # -- sending to clients ------------------------------------------------------------

    def broadcast(
        self,
        topic: str,
        event: str,
        payload: Mapping[str, Any] | bytes,
        private: bool = False,
    ) -> Reached:
        """Send a broadcast as the database's ``realtime.send`` does.

        ``topic`` is the sub-topic, without ``realtime:``. Private messages are kept for replay.
        See docs/protocol.md#broadcasts-from-the-database.
        """
        content = payload if isinstance(payload, bytes) else dict(payload)
        topic = topic.removeprefix(TOPIC_PREFIX)
        now = time.time()
        return Reached(self.backend.broadcast(topic, event, content, private=private, now=now))

    def table(
        self,
        name: str,
        columns: Mapping[str, str],
        *,
        schema: str = "public",
        primary_key: Sequence[str] = ("id",),
        replica_identity: str = "default",
        visible: Callable[[Mapping[str, Any], Row], bool] | None = None,
    ) -> Table:
        """Declare a table with its columns and their Postgres types, in order.

        ``replica_identity`` is ``"default"`` or ``"full"`` (docs/protocol.md#old-rows).
        ``visible`` plays the part of row level security. It is called with a subscriber's claims
        and a row, and returns True if the subscriber may see the row.
        """
        return self._publisher.declare(
            Table(schema, name, dict(columns), tuple(primary_key), replica_identity, True, visible)
        )

    def insert(
        self, table: str, record: Mapping[str, Any], *, schema: str = "public", **about: Any
    ) -> Reached:
        """Publish the insert of a row.

        In a declared table missing columns become null, and a missing primary key is numbered.
        Any other table learns its columns and types from the Python values. ``about`` may have
        ``commit_timestamp`` (a datetime) and ``errors`` (a list of texts); see
        docs/protocol.md#errors-inside-a-change.
        """
        return Reached(self._publisher.insert(schema, table, record, **about))

    def update(
        self,
        table: str,
        new: Mapping[str, Any],
        *,
        where: Mapping[str, Any] | None = None,
        old: Mapping[str, Any] | None = None,
        schema: str = "public",
        **about: Any,
    ) -> Reached:
        """Publish the update of rows.

        ``where`` selects the rows with these values; ``old`` is the one row before the update.
        With neither, it is the row with the primary key in ``new``.
        """
        return Reached(self._publisher.update(schema, table, new, where, old, **about))

    def delete(
        self,
        table: str,
        where: Mapping[str, Any] | None = None,
        *,
        old: Mapping[str, Any] | None = None,
        schema: str = "public",
        **about: Any,
    ) -> Reached:
        """Publish the deletion of rows.

        ``where`` selects the rows with these values; ``old`` is the one row to delete. If no
        such row was inserted here, ``where`` itself is published as the row.
        """
        return Reached(self._publisher.delete(schema, table, where, old, **about))

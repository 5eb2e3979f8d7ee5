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
from ._machine.server_state import Backend, Received
from ._tables.table_writer import Publisher
from ._tables.tables import Row, Table
from .activity import Listener
from .client_script import Conversing
from .faults import Faults
from .settings import Settings
from .tokens import TEN_YEARS, Policy, Tokens, default_policy

if TYPE_CHECKING:
    from ._postgres.database import Database

__all__ = ["LocalRealtime", "Reached"]


class Reached(int):
    """How many channels a message went to.

    Awaiting it is optional and gives the server a turn to write, with the same result.
    """

    def __await__(self) -> Generator[Any, None, int]:
        yield from asyncio.sleep(0).__await__()
        return int(self)


class LocalRealtime(Conversing):
    """A server that speaks the Realtime protocol on both versions.

    Without a database, row changes are published from Python with ``insert``, ``update`` and
    ``delete``. ``db`` is the URL of a PostgreSQL with ``wal_level = logical`` to follow instead;
    ``embedded_db=True`` starts one for as long as the server runs, and a path instead of True
    keeps its data there. What such a database lacks (roles, the schemas ``auth`` and
    ``realtime``, the publication ``supabase_realtime``) is created; nothing in it is changed.
    ``slot`` names a replication slot that is found again after a crash; by default the slot is
    temporary.

    ``port`` 0 takes a free one; ``host`` is the address to listen on. ``jwt_secret`` signs and
    checks all tokens (at least 32 bytes; by default a random one, so that no other key opens it).
    ``allow_hosts`` are names by which it is reached beside ``localhost`` and addresses, and
    ``allow_origins`` the web pages (``"https://app.example"``) that may use it beside local ones.
    ``policy`` gives the rights on private topics: ``(role, claims, sub_topic)`` to ``Rights`` or
    a bool; by default the policies on ``realtime.messages`` decide, and without a database
    ``authenticated`` and ``service_role`` may do everything there and others nothing. All other
    keywords are those of ``Settings``.

    Raises ``ValueError`` for a short secret and for what is no host name or origin,
    ``TypeError`` for an unknown setting, and, with a database, ``DatabaseProblem`` (a
    ``RuntimeError``) from ``start`` where it cannot be followed.
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
        """What is to go wrong."""
        self.backend: Backend = Backend(
            self.settings,
            tokens=Tokens(jwt_secret),
            policy=policy,
            faults=self.faults,
        )
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
        """The key of a client that nobody has signed in to."""
        self.service_key: str = issue("service_role", now=time.time(), expires_in=TEN_YEARS)
        """The key that may do everything."""

    # -- start and stop ----------------------------------------------------------------

    async def start(self) -> Self:
        """Listen; ``port`` is the real one afterwards. Raises ``OSError`` where it is taken."""
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
        # A body is read as it comes, as by the real server.
        runner = web.AppRunner(
            self._app,
            access_log=None,
            logger=http_logger,
            shutdown_timeout=0.1,
            auto_decompress=False,
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
        """Let the limits look at their rates, now and every ``rate_interval`` seconds."""
        loop = asyncio.get_running_loop()
        self._clock = loop.call_later(self.settings.rate_interval, self._take_averages)
        self.backend.limits.tick()

    async def stop(self) -> None:
        """Stop listening and close every socket with 1012; nothing is left running.

        The replication slot is dropped, and an embedded database ends too.
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
            # A little more than the sockets give their clients, so that they end by themselves.
            async with asyncio.timeout(self.settings.close_timeout + 0.1):
                for socket in sockets:
                    await socket.done.wait()
        for socket in list(app[SOCKETS].values()):
            socket.cut()
        await runner.cleanup()

    async def restart(self, downtime: float = 0.0) -> None:
        """Stop, refuse connections for ``downtime`` seconds, and listen on the same port.

        A database goes on meanwhile.
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
        """For ``create_client(url, key)``."""
        return f"http://{self._netloc()}"

    @property
    def ws_url(self) -> str:
        """For ``RealtimeClient(url)``."""
        return f"ws://{self._netloc()}/realtime/v1"

    @property
    def inspector_url(self) -> str:
        """The address that opens the status page, for as long as this server is there.

        Whoever has it may see everything and write; ``RuntimeError`` where the page is left out.
        """
        if not self.settings.status_page:
            raise RuntimeError("this server has no status page: status_page=False")
        return f"{self.url}/#token={self._page_token}"

    def _netloc(self) -> str:
        # All addresses of this machine are none to connect to, and no name of it for a browser.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def token(
        self,
        role: str = "authenticated",
        sub: str | None = None,
        expires_in: float = 3600.0,
        **claims: Any,
    ) -> str:
        """A signed token that expires in so many seconds; negative for one that has expired."""
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
        """Whether it follows a PostgreSQL."""
        return self._database is not None

    @property
    def database_url(self) -> str:
        """The database, for psql and other clients; ``RuntimeError`` where there is none."""
        return self._followed().url

    async def sql(self, statement: str, *args: Any) -> list[dict[str, Any]]:
        """Run SQL in the database as its owner; the rows of the last statement.

        ``args`` stand for ``%s`` in the statement; with them it must be a single one. Raises
        ``psycopg.Error`` where the database refuses, ``RuntimeError`` without a database.
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

    # -- what it saw -------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many sockets were accepted, ever."""
        return self.backend.connections

    @property
    def open_connections(self) -> int:
        """How many sockets are open."""
        return len(self._app[SOCKETS]) if self._app is not None else 0

    @property
    def joins(self) -> int:
        """How many joins were accepted, ever."""
        return self.backend.joins

    @property
    def malformed(self) -> int:
        """How many frames could not be read and were dropped."""
        return self.backend.malformed

    @property
    def missed_changes(self) -> int:
        """How many changes of a database could not be told, once for each channel.

        Each of these channels got a ``system`` error: its filter, its policy or its token fails,
        or takes longer than ``statement_timeout``.
        """
        feed = self._database.feed if self._database is not None else None
        return feed.missed if feed is not None else 0

    @property
    def received(self) -> Sequence[Received]:
        """The messages of all clients in order, the newest 10,000 or 64 MiB."""
        return self.backend.received

    def watch(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with every ``Happening`` from now on; what comes back ends that."""
        return self.backend.activity.watch(listener)

    # -- what it says ------------------------------------------------------------------

    def broadcast(
        self,
        topic: str,
        event: str,
        payload: Mapping[str, Any] | bytes,
        private: bool = False,
    ) -> Reached:
        """Send from the database side, as ``realtime.send`` does
        (docs/protocol.md#broadcasts-from-the-database).

        The topic stands without ``realtime:``. Private messages are kept for replay.
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
        """Declare a table: columns and their Postgres types, in order.

        ``replica_identity`` is ``"default"`` or ``"full"``
        (docs/protocol.md#old-rows). ``visible`` stands for
        row level security: called with the claims of a subscriber and a row.
        """
        return self._publisher.declare(
            Table(schema, name, dict(columns), tuple(primary_key), replica_identity, True, visible)
        )

    def insert(
        self, table: str, record: Mapping[str, Any], *, schema: str = "public", **about: Any
    ) -> Reached:
        """Publish the insert of a row.

        A declared table gets its missing columns as null and its primary key numbered; another
        one learns columns and types from the Python values. ``about`` may hold
        ``commit_timestamp`` (a datetime) and ``errors`` (a list of texts, section 9.7).
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
        """Publish the update of rows: those with the values ``where``, the one row that was
        ``old``, or, with neither, the row with the primary key that ``new`` has."""
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
        """Publish the deletion of the rows with the values ``where``, or of the one row that was
        ``old``. Where no such row was inserted here, ``where`` itself is taken for the row."""
        return Reached(self._publisher.delete(schema, table, where, old, **about))

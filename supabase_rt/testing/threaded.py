"""``LocalRealtime`` in a thread and a loop of its own, so that any test can use it.

A test may be plain or ``async``, run by pytest-asyncio, anyio or nothing at all, and the bot in
it may block or start loops itself: none of it is in the way of the server, nor the server in
the way of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any, Self, TypeVar, cast

from ..server import Faults, Happening, LocalRealtime, Reached, Received

__all__ = ["Rows", "ThreadedRealtime"]

T = TypeVar("T")
TIMEOUT = 60.0


class Rows(list[dict[str, Any]]):
    """Rows of the database; awaiting them is optional, with the same result."""

    def __await__(self) -> Generator[Any, None, Rows]:
        yield from asyncio.sleep(0).__await__()
        return self


class ThreadedRealtime:
    """A running ``LocalRealtime``, with its names; every call may be made from any thread.

    Takes the keywords of ``LocalRealtime``. Nothing has to be awaited, and ``insert``,
    ``broadcast``, ``sql`` and the like may be.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="supabase_rt test server", daemon=True
        )
        self._server: LocalRealtime | None = None
        self._faults = _Elsewhere(self)

    # -- start and end -----------------------------------------------------------------

    def start(self) -> Self:
        """Listen; raises what ``LocalRealtime`` raises."""

        async def make() -> LocalRealtime:
            return await LocalRealtime(**self._options).start()

        self._thread.start()
        try:
            self._server = self._wait(make())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server, its loop and its thread; twice is fine."""
        server, self._server = self._server, None
        if self._loop.is_closed():
            return
        try:
            if server is not None:
                self._wait(server.stop())
            self._wait(self._loop.shutdown_default_executor())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(TIMEOUT)
            self._loop.close()

    def restart(self, downtime: float = 0.0) -> None:
        """Stop, refuse connections for so many seconds, and listen on the same port."""
        self._wait(self.server.restart(downtime))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def server(self) -> LocalRealtime:
        """The server itself, for code that runs in its loop; ``RuntimeError`` where none runs."""
        if self._server is None:
            raise RuntimeError("the server is not running")
        return self._server

    def call(self, work: Callable[[], T]) -> T:
        """The result of ``work``, called in the loop of the server."""

        async def called() -> T:
            return work()

        found: T = self._wait(called())
        return found

    def _wait(self, work: Any, timeout: float = TIMEOUT) -> Any:
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("called from the server's own loop; use the methods of .server")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    # -- how to reach it ---------------------------------------------------------------

    @property
    def url(self) -> str:
        """For ``create_client(url, key)``."""
        return self.server.url

    @property
    def ws_url(self) -> str:
        """For ``RealtimeClient(url)``."""
        return self.server.ws_url

    @property
    def anon_key(self) -> str:
        """The key of a client that nobody has signed in to."""
        return self.server.anon_key

    @property
    def service_key(self) -> str:
        """The key that may do everything."""
        return self.server.service_key

    def token(
        self,
        role: str = "authenticated",
        sub: str | None = None,
        expires_in: float = 3600.0,
        **claims: Any,
    ) -> str:
        """A signed token that expires in so many seconds; negative for one that has expired."""
        return self.server.token(role, sub, expires_in, **claims)

    # -- what it does ------------------------------------------------------------------

    @property
    def faults(self) -> Faults:
        """What is to go wrong."""
        return cast(Faults, self._faults)

    def broadcast(
        self, topic: str, event: str, payload: Mapping[str, Any] | bytes, private: bool = False
    ) -> Reached:
        """Send from the database side, as ``realtime.send`` does; how many it went to."""
        return self.call(lambda: self.server.broadcast(topic, event, payload, private))

    def table(self, name: str, columns: Mapping[str, str], **about: Any) -> None:
        """Declare a table, where there is no database."""
        self.call(lambda: self.server.table(name, columns, **about))

    def insert(self, table: str, record: Mapping[str, Any], **about: Any) -> Reached:
        """Publish the insert of a row, where there is no database."""
        return self.call(lambda: self.server.insert(table, record, **about))

    def update(self, table: str, new: Mapping[str, Any], **about: Any) -> Reached:
        """Publish the update of rows, where there is no database."""
        return self.call(lambda: self.server.update(table, new, **about))

    def delete(self, table: str, where: Mapping[str, Any] | None = None, **about: Any) -> Reached:
        """Publish the deletion of rows, where there is no database."""
        return self.call(lambda: self.server.delete(table, where, **about))

    def sql(self, statement: str, *args: Any) -> Rows:
        """Run SQL in the database as its owner; the rows of the last statement."""
        return Rows(self._wait(self.server.sql(statement, *args)))

    @property
    def database_url(self) -> str:
        """The database; ``RuntimeError`` where there is none."""
        return self.server.database_url

    # -- a conversation ----------------------------------------------------------------

    def expect(
        self,
        topic: str,
        event: str,
        check: Callable[[Any], Any] | None = None,
        *,
        timeout: float = 5.0,
    ) -> Received:
        """Wait for the next message of a client; see ``LocalRealtime.expect``.

        It blocks: in an ``async`` test, whose loop the client needs meanwhile, call it by
        ``await asyncio.to_thread(server.expect, ...)``.
        """
        return self._expect(self.server.expect(topic, event, check, timeout=timeout), timeout)

    def expect_join(
        self, topic: str, check: Callable[[Any], Any] | None = None, *, timeout: float = 5.0
    ) -> Received:
        """Wait until a client has joined ``topic``; blocks as ``expect`` does."""
        return self._expect(self.server.expect_join(topic, check, timeout=timeout), timeout)

    def _expect(self, work: Coroutine[Any, Any, Received], timeout: float) -> Received:
        try:
            return cast(Received, self._wait(work, timeout + TIMEOUT))
        except TimeoutError as exc:
            problem = str(exc)
        if _is_in_loop():
            problem += (
                "; it kept the event loop of this test, and with it a client there, from running: "
                "await asyncio.to_thread(server.expect, ...)"
            )
        raise TimeoutError(problem)

    def emit(self, topic: str, event: str, payload: Any) -> int:
        """Write an event to every channel joined on ``topic``; how many those were."""
        return self.call(lambda: self.server.emit(topic, event, payload))

    # -- what it saw -------------------------------------------------------------------

    @property
    def received(self) -> Sequence[Received]:
        """The messages of all clients in order, the newest 10,000 or 64 MiB."""
        return self.call(lambda: list(self.server.received))

    @property
    def joins(self) -> int:
        """How many joins were accepted, ever."""
        return self.server.joins

    @property
    def connections(self) -> int:
        """How many sockets were accepted, ever."""
        return self.server.connections

    @property
    def open_connections(self) -> int:
        """How many sockets are open."""
        return self.server.open_connections

    def watch(self, listener: Callable[[Happening], None]) -> Callable[[], None]:
        """Call ``listener``, in the thread of the server, with everything from now on."""
        return self.call(lambda: self.server.watch(listener))


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Elsewhere:
    """The faults, called in the loop of the server."""

    def __init__(self, owner: ThreadedRealtime) -> None:
        object.__setattr__(self, "_owner", owner)

    def __getattr__(self, name: str) -> Any:
        owner: ThreadedRealtime = object.__getattribute__(self, "_owner")
        found = getattr(owner.server.faults, name)
        if not callable(found):
            return found
        return lambda *args, **options: owner.call(lambda: found(*args, **options))

    def __setattr__(self, name: str, value: Any) -> None:
        owner: ThreadedRealtime = object.__getattribute__(self, "_owner")
        if not hasattr(owner.server.faults, name):
            raise AttributeError(f"there is no fault {name!r}")
        owner.call(lambda: setattr(owner.server.faults, name, value))

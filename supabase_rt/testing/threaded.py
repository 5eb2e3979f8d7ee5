"""``LocalRealtime`` in a thread and a loop of its own, so that any test can use it.

A test may be plain or ``async``, with any plugin or none. The bot in it may block or start loops
itself. Test and server do not disturb each other.
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
    """Rows of the database; they may be awaited, with the same result."""

    def __await__(self) -> Generator[Any, None, Rows]:
        yield from asyncio.sleep(0).__await__()
        return self


class ThreadedRealtime:
    """A running ``LocalRealtime`` with the same methods, which any thread may call.

    Takes the keywords of ``LocalRealtime``. No call has to be awaited; the results of
    ``insert``, ``broadcast``, ``sql`` and the like may be.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="supabase_rt test server", daemon=True
        )
        self._server: LocalRealtime | None = None
        self._faults = _ThreadedFaults(self)

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
        """End the server, its loop and its thread; may be called twice."""
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
        """Stop, refuse connections for ``downtime`` seconds, and listen on the same port again."""
        self._wait(self.server.restart(downtime))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def server(self) -> LocalRealtime:
        """The server itself, for code in its loop; raises ``RuntimeError`` if it is not running."""
        if self._server is None:
            raise RuntimeError("the server is not running")
        return self._server

    def call(self, work: Callable[[], T]) -> T:
        """Call ``work`` in the loop of the server; returns its result."""

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
        """The URL for ``create_client(url, key)``."""
        return self.server.url

    @property
    def ws_url(self) -> str:
        """The URL for ``RealtimeClient(url)``."""
        return self.server.ws_url

    @property
    def inspector_url(self) -> str:
        """The address that opens the status page."""
        return self.server.inspector_url

    @property
    def anon_key(self) -> str:
        """The key of a client without a signed-in user."""
        return self.server.anon_key

    @property
    def service_key(self) -> str:
        """The key with all rights."""
        return self.server.service_key

    def token(
        self,
        role: str = "authenticated",
        sub: str | None = None,
        expires_in: float = 3600.0,
        **claims: Any,
    ) -> str:
        """Returns a signed token. ``expires_in`` may be negative, for an expired one."""
        return self.server.token(role, sub, expires_in, **claims)

    # -- sending to clients ------------------------------------------------------------

    @property
    def faults(self) -> Faults:
        """The faults that tests switch on."""
        return cast(Faults, self._faults)

    def broadcast(
        self, topic: str, event: str, payload: Mapping[str, Any] | bytes, private: bool = False
    ) -> Reached:
        """Send a broadcast as the database's ``realtime.send`` does; returns its receivers."""
        return self.call(lambda: self.server.broadcast(topic, event, payload, private))

    def table(self, name: str, columns: Mapping[str, str], **about: Any) -> None:
        """Declare a table, without a database."""
        self.call(lambda: self.server.table(name, columns, **about))

    def insert(self, table: str, record: Mapping[str, Any], **about: Any) -> Reached:
        """Publish the insert of a row, without a database."""
        return self.call(lambda: self.server.insert(table, record, **about))

    def update(self, table: str, new: Mapping[str, Any], **about: Any) -> Reached:
        """Publish the update of rows, without a database."""
        return self.call(lambda: self.server.update(table, new, **about))

    def delete(self, table: str, where: Mapping[str, Any] | None = None, **about: Any) -> Reached:
        """Publish the deletion of rows, without a database."""
        return self.call(lambda: self.server.delete(table, where, **about))

    def sql(self, statement: str, *args: Any) -> Rows:
        """Run SQL as the owner of the database; returns the rows of the last statement."""
        return Rows(self._wait(self.server.sql(statement, *args)))

    @property
    def database_url(self) -> str:
        """The URL of the database; raises ``RuntimeError`` without one."""
        return self.server.database_url

    # -- a script of single messages ----------------------------------------------------

    def expect(
        self,
        topic: str,
        event: str,
        check: Callable[[Any], Any] | None = None,
        *,
        timeout: float = 5.0,
    ) -> Received:
        """Wait for the next message of a client; see ``LocalRealtime.expect``.

        It blocks the calling thread. In an ``async`` test the client needs the loop meanwhile,
        so call it by ``await asyncio.to_thread(server.expect, ...)``.
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
        """Write an event to every channel joined on ``topic``; returns their number."""
        return self.call(lambda: self.server.emit(topic, event, payload))

    # -- observed so far ---------------------------------------------------------------

    @property
    def received(self) -> Sequence[Received]:
        """The messages of all clients in order: the newest 10,000, or 64 MiB of them."""
        return self.call(lambda: list(self.server.received))

    @property
    def joins(self) -> int:
        """The number of joins accepted so far."""
        return self.server.joins

    @property
    def missed_changes(self) -> int:
        """The number of database changes that could not be sent, counted for each channel."""
        return self.server.missed_changes

    @property
    def connections(self) -> int:
        """The number of sockets accepted so far."""
        return self.server.connections

    @property
    def open_connections(self) -> int:
        """The number of open sockets."""
        return self.server.open_connections

    def watch(self, listener: Callable[[Happening], None]) -> Callable[[], None]:
        """Call ``listener`` with every ``Happening`` from now on, in the server's thread.

        Returns a function to end it.
        """
        return self.call(lambda: self.server.watch(listener))


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _ThreadedFaults:
    """The faults of the server, called in its loop."""

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

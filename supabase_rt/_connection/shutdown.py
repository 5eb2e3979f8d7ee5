"""Closing for good: the link, token requests, background tasks, handlers, the HTTP session.

A shutdown runs in a task of its own. A second one waits for the first and then goes through the
same steps. Only the newest one reports that the client is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from .._protocol.client_machine import ClientMachine
from .._protocol.events import EventSink
from .._runtime.background_tasks import BackgroundTasks
from .._runtime.event_loop import LoopBinding
from .._runtime.http_session import HttpSession
from ..errors import ConnectionFailed
from .access_tokens import AccessTokens
from .link import Link
from .traffic import Traffic

__all__ = ["CANCEL_GRACE", "Shutdown", "disconnected"]

CANCEL_GRACE = 1.0
"""Seconds until a cancelled task of ours is replaced.

``asyncio.run`` cancels all tasks just before the loop ends. If the loop still runs after this time,
only the task was cancelled, and not the loop.
"""


def disconnected(why: str = "disconnect() was called") -> ConnectionFailed:
    """Returns the error for callers waiting for a link that is no longer wanted."""
    return ConnectionFailed(f"{why} before the connection was open", retryable=False)


class Shutdown:
    """Closes everything that belongs to a client; nothing else closes for good."""

    def __init__(
        self,
        session: ClientMachine,
        loop: LoopBinding,
        tokens: AccessTokens,
        background: BackgroundTasks,
        sink: EventSink,
        http: HttpSession,
        traffic: Traffic,
        flush: Callable[[], None],
    ) -> None:
        self._session = session
        self._loop = loop
        self._tokens = tokens
        self._background = background
        self._sink = sink
        self._http = http
        self._traffic = traffic
        self._flush = flush
        self._links: list[Link] = []
        """The links still to be closed."""
        self.closed_when_idle: bool = False
        """True if the last channel left: then the next channel opens a socket again."""
        self._closed = asyncio.Event()
        self._closed.set()
        self._task: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._after_restart: list[Callable[[], None]] = []
        """The calls that are due when the task that replaces a cancelled one has ended."""

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The newest task that closes; None if no shutdown is under way."""
        return self._task

    @property
    def is_cancelled(self) -> bool:
        """True if the task that closes was cancelled from outside."""
        return self._task is not None and self._task.cancelling() > 0

    @property
    def is_closed(self) -> bool:
        """True if the client is closed for good, or was never connected."""
        return self._closed.is_set()

    async def wait_closed(self) -> None:
        """Return when the client is closed for good."""
        await self._closed.wait()

    def reopen(self) -> None:
        """Note that the user wants a link again."""
        self.closed_when_idle = False
        self._closed.clear()

    def request(
        self, link: Link | None, tasks: Iterable[asyncio.Task[None]], code: int, reason: str
    ) -> None:
        """Close ``link`` with this code and reason, wait for ``tasks`` of links, then the rest."""
        if link is not None:
            self._links.append(link)
        self._start_task(list(tasks), code, reason)

    def after_newest(self, then: Callable[[], None]) -> None:
        """Call ``then`` when no shutdown is under way, neither this one nor a newer one."""
        task = self._task
        if task is None or (task.done() and not task.cancelled()):
            then()
        elif task.cancelled():
            # Nothing is closed yet: another task goes on, unless the loop ends.
            self._after_restart.append(then)
        else:
            task.add_done_callback(lambda _: self.after_newest(then))

    def forget_loop(self) -> None:
        """Drop the tasks and the event of a loop that is gone."""
        self._task = None
        self._running.clear()
        self._links.clear()
        due, self._after_restart = self._after_restart, []
        for then in due:
            then()
        # An Event belongs to the loop that first waited for it.
        was_closed, self._closed = self._closed.is_set(), asyncio.Event()
        if was_closed or not self._session.wanted:
            self._closed.set()

    def _start_task(self, tasks: list[asyncio.Task[None]], code: int, reason: str) -> None:
        loop = self._loop.current
        assert loop is not None
        # All of them: if the newest is cancelled alone, the one before it may still run.
        work = self._run(tasks, list(self._running), code, reason)
        task = self._task = loop.create_task(work, name="supabase_rt:close")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        due, self._after_restart = self._after_restart, []
        for then in due:
            self.after_newest(then)

        def start_again() -> None:
            if self._task is task:
                self._start_task(tasks, code, reason)

        def ended(_: object) -> None:
            # The task was cancelled from outside, or the loop is ending; the grace period shows
            # which.
            if task.cancelled() and self._loop.current is not None:
                self._loop.current.call_later(CANCEL_GRACE, start_again)

        task.add_done_callback(ended)

    async def _run(
        self,
        tasks: list[asyncio.Task[None]],
        previous: list[asyncio.Task[None]],
        code: int,
        reason: str,
    ) -> None:
        # A loop may run a new task at once (asyncio.eager_task_factory). This one must be known
        # as the newest before it compares itself with it.
        await asyncio.sleep(0)
        if previous:
            await asyncio.wait(previous)
        try:
            await self._close(tasks, code, reason)
        except asyncio.CancelledError:
            # Perhaps the loop is ending, and aiohttp would complain of an open session.
            if self._loop.is_loop_running:
                await self._http.aclose()
            raise
        if self._task is not asyncio.current_task():
            return
        self._task = self._traffic.connected_since = None
        if not self._session.wanted:
            self._session.link_closed()
            self._flush()
            if not (self.closed_when_idle or self._session.wanted):
                self._closed.set()

    async def _close(self, tasks: list[asyncio.Task[None]], code: int, reason: str) -> None:
        for link in list(self._links):
            await link.leave(code, reason)
            self._links.remove(link)
        if tasks:
            await asyncio.wait(tasks)
        await self._tokens.aclose()
        await self._background.end()
        await self._sink.drain()
        # Handlers that finish their work may have started a request.
        await self._background.end()
        if self._task is asyncio.current_task() and not self._session.wanted:
            await self._http.aclose()

"""Opens, reads and replaces links: one task for each link, and one link at a time.

A link's task (``supabase_rt:link``) asks for the token, connects, reads until the socket ends and
reports why. A new task first waits for the previous ones and for a shutdown that is under way.
So there are never two sockets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from .._printable import get_logger
from .._protocol import events
from .._protocol.events import EventSink
from .._runtime.event_loop import LoopBinding
from .._runtime.http_session import HttpSession
from .._runtime.log_fields import facts
from .._runtime.outcome import Waiters
from ..errors import ConnectionFailed, ConnectionLost, RealtimeError
from .access_tokens import AccessTokens
from .codec import Codec
from .link import Link
from .reader import Reader, Shell
from .shutdown import CANCEL_GRACE, Shutdown
from .transport import Transport

__all__ = ["LinkRunner"]

_Task: TypeAlias = asyncio.Task[None] | None

log: Final = get_logger("supabase_rt.connection")


class LinkRunner:
    """Runs one link after the other, and settles the outcomes of ``connect()``.

    Args:
        shell: the connection that the reader of a link flushes.
        open_transport: opens a websocket; raises ``ConnectionFailed``.
        host: scheme, host and port, for messages.
        max_outbound: how many frames may wait to be written.
    """

    def __init__(
        self,
        shell: Shell,
        codec: Codec,
        sink: EventSink,
        loop: LoopBinding,
        tokens: AccessTokens,
        http: HttpSession,
        shutdown: Shutdown,
        *,
        open_transport: Callable[[], Awaitable[Transport]],
        host: str,
        max_outbound: int,
    ) -> None:
        self._shell = shell
        self._session = shell.session
        self._codec = codec
        self._sink = sink
        self._loop = loop
        self._tokens = tokens
        self._http = http
        self._shutdown = shutdown
        self._open_transport = open_transport
        self._host = host
        self._max_outbound = max_outbound
        self.current: Link | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.waiters: Waiters = Waiters()
        """The callers that wait for a link to open."""
        self.is_first_attempt: bool = False
        """True while a failed attempt is the answer to the callers that wait."""
        self.last_error: BaseException | None = None
        self.ever_open: bool = False

    def start(self) -> None:
        """Start a task for a new link."""
        loop = self._loop.current
        assert loop is not None
        link = Link(self._shell.traffic, self._max_outbound, self._writer_failed)
        self.current = link
        previous = (*self._tasks, self._shutdown.task)
        work, context = self._run(link, previous), self._loop.context.copy()
        link.task = loop.create_task(work, name="supabase_rt:link", context=context)
        self._tasks.add(link.task)
        link.task.add_done_callback(lambda task: self._task_ended(link, task))

    async def _run(self, link: Link, previous: tuple[_Task, ...]) -> None:
        try:
            await self._connect_and_serve(link, previous)
        finally:
            # The task was cancelled, alone or with the whole loop, or it is garbage-collected.
            # aiohttp would report a session left open at the end of a loop, with the key in the
            # text.
            is_current = self.current is link
            if (is_current or self._shutdown.is_cancelled) and self._loop.is_loop_running:
                await self._http.aclose()
            elif is_current:
                self._loop.warn_unclosed(self._host)

    def _task_ended(self, link: Link, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Marks the exception as retrieved: the loop itself already raised that of sys.exit().
            task.exception()
        if self.current is link and self._loop.current is not None:
            self._loop.current.call_later(CANCEL_GRACE, self._link_task_cancelled, link)

    def _link_task_cancelled(self, link: Link) -> None:
        """Report the link as lost: the loop goes on, so only the task was cancelled."""
        text = "the task of the connection was cancelled"
        hint = "something cancels tasks of the loop that are not its own; the client reconnects"
        self._link_lost(link, ConnectionLost(text, code="Cancelled", hint=hint))

    async def _connect_and_serve(self, link: Link, previous: tuple[_Task, ...]) -> None:
        for task in previous:
            if task is not None and not task.done():
                await asyncio.wait([task])
        if self.current is not link:
            return
        try:
            transport = await self._open(link)
        except ConnectionFailed as error:
            self._attempt_failed(link, error)
            return
        except Exception as exc:
            # Our own mistake; it must not end the client in silence.
            log.exception("the connection attempt failed", extra=facts(exc, host=self._host))
            self._attempt_failed(link, ConnectionFailed(f"internal error: {type(exc).__name__}"))
            return
        if transport is None:
            return
        try:
            reason = await self._serve(link, transport)
            self._link_lost(link, reason)
        finally:
            if self._loop.is_loop_running:
                await transport.close()

    async def _open(self, link: Link) -> Transport | None:
        """Open a socket; returns None if ``link`` was replaced meanwhile."""
        token_task = self._tokens.refresh()
        if token_task is not None:
            await asyncio.wait([token_task])
        if self.current is not link:
            return None
        transport = await self._open_transport()
        if self.current is not link:
            await transport.close()
            return None
        return transport

    async def _serve(self, link: Link, transport: Transport) -> RealtimeError:
        """Read and write until the socket ends; returns the reason."""
        loop = self._loop.current
        assert loop is not None
        link.open(transport)
        self.is_first_attempt = False
        self.ever_open = True
        self._shell.traffic.connected_since = time.time()
        self._session.link_up(self._loop.now(), transport.unix_time())
        error: RealtimeError
        try:
            self._shell.flush()
            if self.current is link:
                # Otherwise a listener has disconnected, and the present waiters wait for another
                # link.
                self.waiters.detach().succeed()
            reader = Reader(self._shell, self._codec, self._sink, loop)
            error = await transport.pump(reader.on_text, reader.on_binary)
        except Exception as exc:
            # Our own mistake, or a logger of the user's that raises. Never die silently.
            log.exception("the reader failed", extra=facts(exc, host=self._host))
            error = ConnectionLost("the reader failed", code="ReaderFailed")
        finally:
            await link.end()
        return error

    # -- the end of a link ---------------------------------------------------------------

    def _link_lost(self, link: Link, reason: RealtimeError) -> None:
        if self.current is not link:
            return
        self.current = None
        self.last_error = reason
        self._shell.traffic.connected_since = None
        known = facts(reason, host=self._host)
        log.info("connection to %s lost: %s", self._host, reason, extra=known)
        self._session.link_lost(reason, self._loop.now())
        self._shell.flush()

    def _attempt_failed(self, link: Link, error: ConnectionFailed) -> None:
        if self.current is not link:
            return
        self.current = None
        self.last_error = error
        is_first, self.is_first_attempt = self.is_first_attempt, False
        channels = self._session.channels.values()
        subscribed = any(channel.subscribed_once for channel in channels)
        if is_first and self.waiters.is_awaited and not subscribed:
            self._session.cancel_first_attempt()
            self.fail_waiters(error)
            self._shell.flush()
            return
        # Reported through the outbox, so that the machine is in its new state before a listener
        # calls disconnect() or connect().
        self._session.context.outbox.emit(events.ErrorReported(error))
        self._session.link_lost(error, self._loop.now())
        self._shell.flush()

    def fail_waiters(self, error: BaseException) -> None:
        """Close, then fail the callers that wait: by then nothing keeps running."""
        waiters = self.waiters.detach()
        self.close(1000, "")
        self._shutdown.after_newest(lambda: waiters.fail(error))

    def cut(self, error: ConnectionLost) -> None:
        """End the current link without waiting for the peer; the reader reports ``error``."""
        link = self.current
        if link is not None and link.transport is not None:
            link.transport.give_up_on(error)

    def _writer_failed(self, link: Link) -> None:
        if link is self.current:
            self.cut(ConnectionLost("the writer failed", code="WriterFailed"))

    def close(self, code: int, reason: str) -> None:
        """Request a shutdown, which closes the current link."""
        link, self.current = self.current, None
        self._shutdown.request(link, self._tasks, code, reason)

    def forget_loop(self) -> None:
        """Drop the link and the tasks of a loop that is gone."""
        self.current = None
        self._tasks.clear()

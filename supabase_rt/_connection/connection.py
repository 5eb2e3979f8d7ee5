"""The shell: where a session meets a socket, a clock and tasks.

    flush():  collect frames, write them; collect events, tell them; arm one timer

The same three steps follow a frame that arrived, a deadline that passed and a call from the user.
User code runs inside the second step; what it calls comes back into ``flush``, whose frames go
out at once and whose events wait for their turn in the outer round, so that events are told in
the order in which they happened.

One task lives for each link (``_live``): token, connect, read until the end, report. The next one
waits for the end of the one before: there are never two sockets. ``_shut`` closes for good.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

import aiohttp

from .._printable import get_logger
from .._protocol import events
from .._protocol.client_machine import ClientMachine
from .._runtime.background_tasks import Helpers
from .._runtime.http_session import HttpOwner, TransportOptions
from .._runtime.log_fields import facts
from .._runtime.outcome import Outcome, Waiting
from .._runtime.timer import Alarm
from .._wire.envelope import Message
from ..enums import ConnectionState
from ..errors import ConnectionFailed, ConnectionLost, GaveUp, RealtimeError, SendError
from .access_tokens import TokenSource, TokenUser
from .codec import Codec, frame_of, refusal
from .link import Link, Traffic, after_newest, disconnected, settle
from .reader import Listeners, Reader
from .transport import Transport

__all__ = ["Connection"]

_Task: TypeAlias = asyncio.Task[None] | None
_Tasks: TypeAlias = set[asyncio.Task[None]]

log: Final = get_logger("supabase_rt.connection")

OUTLIVED = 1.0
"""Seconds after which a loop that goes on was not about to end."""


class Teller(Listeners, Protocol):
    """What the connection needs of whoever tells the user."""

    def tell(self, event: Any) -> None:
        """An event that is not about the socket itself; must not raise."""

    async def drain(self) -> None:
        """Let handlers finish what waits for them."""

    def leaves(self) -> Callable[[], None]:
        """Whoever runs now may wait for the end: it does not wait for him, until this is called."""

    def forget_loop(self) -> None:
        """The loop that handlers ran in is gone."""


class Connection(TokenUser):
    """Runs a ``ClientMachine`` over real sockets."""

    def __init__(
        self,
        session: ClientMachine,
        codec: Codec,
        url: Callable[[], str],
        host: str,
        options: TransportOptions,
        teller: Teller,
        *,
        access_token: Callable[[], Any] | None = None,
        http: aiohttp.ClientSession | None = None,
        max_outbound: int = 10_000,
    ) -> None:
        self.session = session
        self._outbox = session.context.outbox
        self.codec = codec
        self.traffic: Traffic = Traffic()
        self.tokens: TokenSource = TokenSource(
            access_token, options.timeout, self._use_token, self.report
        )
        self.gave_up: GaveUp | None = None
        self.last_error: BaseException | None = None
        self.ever_open: bool = False
        self._url = url
        self._host = host
        self._options = options
        self._teller = teller
        self._http = HttpOwner(http)
        self._max_outbound = max_outbound
        self._link: Link | None = None
        self._link_tasks: _Tasks = set()
        self._alarm = Alarm(self._on_deadline)
        self.is_telling: bool = False
        self.is_dirty: bool = False
        """Whether flush was called while events were told: by a handler, then."""
        self._waiting = Waiting()
        self._first_attempt = False
        self._shutting: _Task = None
        self._leaving: list[Link] = []
        self.helpers: Helpers = Helpers()
        self._is_resting = False
        self._closed = asyncio.Event()
        self._closed.set()

    def forget_loop(self) -> None:
        """The loop this client ran in is gone, and with it every task and timer."""
        planned = self.session.context.outbox.deadlines.get("connect")
        was_alive = self._link is not None or planned is not None
        self._link = self._shutting = None
        self._link_tasks.clear()
        self._leaving.clear()
        self.tokens.forget()
        self._teller.forget_loop()
        # Else it is only recorded, to begin in the new loop.
        if self.session.wanted and was_alive:
            error = ConnectionLost("the event loop of the last connection is gone")
            self.session.link_lost(error, self.now())
        self._alarm.forget()
        self._http.forget()
        self.helpers.forget()
        self.session.link_closed()
        # An Event belongs to the loop that first waited for it.
        closed, self._closed = self._closed, asyncio.Event()
        if closed.is_set() or not self.session.wanted:
            self._closed.set()

    @property
    def is_running(self) -> bool:
        """Whether anything of this client is alive: a socket, an attempt, a planned attempt."""
        return self.session.wanted or self._link is not None or self._shutting is not None

    # -- the three steps -----------------------------------------------------------------

    def flush(self) -> None:
        """Write what is to be written, tell what has happened, arm the timer."""
        if self.loop is None or not self.loop.is_running():
            return
        if self._outbox.has_frames:
            self._collect_frames()
        if self.is_telling:
            self.is_dirty = True
            return
        self.is_telling = True
        try:
            while found := self.session.pop_events():
                for event in found:
                    self._act_on(event)
        finally:
            self.is_telling = False
        if self._outbox.has_frames:
            self._collect_frames()
        self.set_alarm()

    def set_alarm(self) -> None:
        """Wake up for the session's next deadline."""
        assert self.loop is not None
        self._alarm.set(self.loop, self.session.next_deadline(), self.context)

    def _collect_frames(self) -> None:
        for frame in self.session.pop_frames():
            self._enqueue(frame.message, frame.outcome)

    def _on_deadline(self) -> None:
        self.session.on_deadline(self.now())
        self.flush()

    # -- events about the socket ---------------------------------------------------------

    def _act_on(self, event: Any) -> None:
        kind = type(event)
        if kind is events.ConnectDue:
            # A handler told before may have called disconnect(), and connect() again.
            if self.session.wanted and self._link is None:
                self._start_link()
        elif kind is events.LinkDied:
            self._abandon_link(event.error)
        elif kind is events.TokenWanted:
            self._want_token(event.blocking)
        elif kind is events.IdleReached:
            # A callback that was told before may have made a channel, or ended the client.
            if self._waiting.is_awaited:
                self.session.watch_idle(self.now())
            elif self.session.wanted and not self.session.channels:
                # Not for good: the next channel opens a socket again.
                self.session.disconnect(self.now())
                self._waiting.take().fail(disconnected("the last channel was left"))
                self._shut_soon(1000, "")
                self._is_resting = True
        else:
            if kind is events.GaveUpForGood and not self.session.wanted:
                # Else a callback that was told before has connected anew.
                self.gave_up = event.error
                self._fail_connecting(event.error.__cause__ or event.error)
            elif kind is events.Reconnected:
                self.traffic.reconnects += 1
            self._teller.tell(event)

    def report(self, error: BaseException) -> None:
        """An error that no call is waiting to hear of."""
        self._teller.tell(events.ErrorReported(error))

    # -- connecting ----------------------------------------------------------------------

    def connect(self, *, patient: bool = False) -> Outcome[None]:
        """Open the socket; the outcome settles with the first link.

        ``patient``: a failed attempt does not fail the outcome while another one follows.
        """
        in_loop = self.enter_loop(is_wish=True)
        if self.session.state is ConnectionState.OPEN and self.session.wanted:
            return Outcome.of(None)
        # It settles when an end that is under way is over, so that must not wait for a handler
        # which waits for this.
        begin, then = (None, self._teller.leaves()) if in_loop else (self.connect, None)
        outcome = self._waiting.add(begin, then)
        if not self.session.wanted:
            self.gave_up = None
            self._is_resting = False
            self._first_attempt = True
            self._closed.clear()
            self.session.connect()
        if patient:
            self._first_attempt = False
        if in_loop:
            self.flush()
        return outcome

    def _fail_connecting(self, error: BaseException) -> None:
        """Close, then tell those who wait: when they hear of it, nothing keeps running."""
        waiting = self._waiting.take()
        self._shut_soon(1000, "")
        after_newest(lambda: self._shutting, lambda: waiting.fail(error))

    def _start_link(self) -> None:
        assert self.loop is not None
        link = Link(self.traffic, self._max_outbound, self._writer_failed)
        self._link = link
        previous = (*self._link_tasks, self._shutting)
        work, context = self._live(link, previous), self.context.copy()
        link.task = self.loop.create_task(work, name="supabase_rt:link", context=context)
        self._link_tasks.add(link.task)
        link.task.add_done_callback(lambda task: self._link_ended(link, task))

    async def _live(self, link: Link, previous: tuple[_Task, ...]) -> None:
        """The life of one link, from the first packet to the last."""
        try:
            await self._connect_and_serve(link, previous)
        finally:
            # Else its task was cancelled, alone or with the whole loop, or it is collected. What
            # aiohttp finds open at the end of a loop it shows, key and all.
            shutting = self._shutting
            alone = self._link is link or (shutting is not None and shutting.cancelling() > 0)
            if alone and self.is_loop_running:
                await self._http.aclose()
            elif self._link is link:
                self.warn_unclosed(self._host)

    def _link_ended(self, link: Link, task: asyncio.Task[None]) -> None:
        self._link_tasks.discard(task)
        if not task.cancelled():
            # sys.exit() in a handler goes through the loop; asyncio need not tell it again.
            task.exception()
        if self._link is link and self.loop is not None:
            self.loop.call_later(OUTLIVED, self._outlived, link)

    def _outlived(self, link: Link) -> None:
        """The loop goes on, so it was not its end. Whether a link is wanted is said elsewhere."""
        text = "the task of the connection was cancelled"
        hint = "something cancels tasks of the loop that are not its own; the client reconnects"
        self._lost(link, ConnectionLost(text, code="Cancelled", hint=hint))

    async def _connect_and_serve(self, link: Link, previous: tuple[_Task, ...]) -> None:
        for task in previous:
            if task is not None and not task.done():
                await asyncio.wait([task])
        if self._link is not link:
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
            why = await self._serve(link, transport)
            self._lost(link, why)
        finally:
            if self.is_loop_running:
                await transport.close()

    def _lost(self, link: Link, why: RealtimeError) -> None:
        if self._link is not link:
            return
        self._link = None
        self.last_error = why
        self.traffic.connected_since = None
        log.info("connection to %s lost: %s", self._host, why, extra=facts(why, host=self._host))
        self.session.link_lost(why, self.now())
        self.flush()

    async def _open(self, link: Link) -> Transport | None:
        flight = self.tokens.refresh()
        if flight is not None:
            await asyncio.wait([flight])
        if self._link is not link:
            return None
        http = self._http.get()
        transport = await Transport.open(http, self._url(), self._host, self._options)
        if self._link is not link:
            await transport.close()
            return None
        return transport

    @property
    def http(self) -> aiohttp.ClientSession | None:
        """The session to make requests with, where there is one."""
        return self._http.current

    def _attempt_failed(self, link: Link, error: ConnectionFailed) -> None:
        if self._link is not link:
            return
        self._link = None
        self.last_error = error
        first, self._first_attempt = self._first_attempt, False
        subscribed = any(channel.subscribed_once for channel in self.session.channels.values())
        if first and self._waiting.is_awaited and not subscribed:
            self.session.cancel_first_attempt()
            self._fail_connecting(error)
            self.flush()
            return
        # By the outbox: a listener may call disconnect() and connect(), so all is in order first.
        self.session.context.outbox.emit(events.ErrorReported(error))
        self.session.link_lost(error, self.now())
        self.flush()

    async def _read(self, transport: Transport) -> ConnectionLost:
        """Take every frame until the socket ends; returns why."""
        assert self.loop is not None
        reader = Reader(self, self.codec, self._teller, self.loop)
        return await transport.pump(reader.on_text, reader.on_binary)

    async def _serve(self, link: Link, transport: Transport) -> RealtimeError:
        """Read and write until the socket ends; returns why."""
        link.open(transport)
        self._first_attempt = False
        self.ever_open = True
        self.traffic.connected_since = time.time()
        self.session.link_up(self.now(), transport.unix_time())
        error: RealtimeError
        try:
            self.flush()
            if self._link is link:
                # Else a listener has disconnected; who waits now waits for another link.
                self._waiting.take().succeed()
            error = await self._read(transport)
        except Exception as exc:
            # Our own mistake, or a logger of the user's that raises. Never die silently.
            log.exception("the reader failed", extra=facts(exc, host=self._host))
            error = ConnectionLost("the reader failed", code="ReaderFailed")
        finally:
            await link.end()
        return error

    # -- writing -------------------------------------------------------------------------

    def refuses(self) -> bool:
        """Whether frames pile up so high that one of the user's is refused, which is counted."""
        return self._link is not None and self._link.refuses()

    def way_out(self) -> Link | None:
        """The open link, where nothing waits to be written before what is written now."""
        link = self._link
        if link is None or not link.is_clear or self._outbox.has_frames:
            return None
        return link

    def _enqueue(self, message: Message, outcome: Any) -> None:
        link = self._link
        if link is None or link.transport is None:
            settle(outcome, "error")
            return
        frame = frame_of(self.codec, message)
        if frame is not None and not isinstance(frame, SendError):
            link.put(frame, outcome)
            return
        settle(outcome, "error")
        if frame is not None and self.loop is not None:
            self.report(frame)
            self.session.receive(refusal(message, frame), self.now())
            self.loop.call_soon(self.flush)

    def _writer_failed(self, link: Link) -> None:
        if link is self._link:
            self._abandon_link(ConnectionLost("the writer failed", code="WriterFailed"))

    # -- closing -------------------------------------------------------------------------

    def _abandon_link(self, error: ConnectionLost) -> None:
        """The heartbeat says that the link is dead: end the reader without waiting."""
        link = self._link
        if link is not None and link.transport is not None:
            link.transport.give_up_on(error)

    def disconnect(self, code: int = 1000, reason: str = "") -> Outcome[str]:
        """Close for good; the outcome settles when nothing is left running."""
        self.enter_loop(required="disconnect")
        outcome: Outcome[str] = Outcome()
        self._is_resting = False
        self.session.disconnect(self.now(), code, reason)
        self._waiting.take().fail(disconnected())
        # Not before: whoever waited for a connection stays from now on, unless it is the same.
        stays = self._teller.leaves()
        self._shut_soon(code, reason)
        self.flush()

        def ended() -> None:
            stays()
            outcome.succeed("ok")

        after_newest(lambda: self._shutting, ended)
        return outcome

    def _shut_soon(self, code: int, reason: str) -> None:
        if self._link is not None:
            self._leaving.append(self._link)
        self._link = None
        self._start_shutting(self._link_tasks.copy(), code, reason)

    def _start_shutting(self, links: _Tasks, code: int, reason: str) -> None:
        assert self.loop is not None
        work = self._shut(links, self._shutting, code, reason)
        task = self._shutting = self.loop.create_task(work, name="supabase_rt:close")

        def again() -> None:
            if self._shutting is task:
                self._start_shutting(links, code, reason)

        def ended(_: object) -> None:
            # By somebody whose task it is not, unless it was the end of the loop.
            if task.cancelled() and self.loop is not None:
                self.loop.call_later(OUTLIVED, again)

        task.add_done_callback(ended)

    async def _shut(self, links: _Tasks, previous: _Task, code: int, reason: str) -> None:
        """End the link and everything that belongs to it. The one place that closes."""
        # A loop may run its tasks at once (asyncio.eager_task_factory), and this one has to be
        # known as the one that closes before it ends.
        await asyncio.sleep(0)
        if previous is not None and not previous.done():
            await asyncio.wait([previous])
        for link in list(self._leaving):
            await link.leave(code, reason)
            self._leaving.remove(link)
        if links:
            await asyncio.wait(links)
        await self.tokens.aclose()
        await self.helpers.end()
        await self._teller.drain()
        # Handlers that finish what they have begun may begin a request.
        await self.helpers.end()
        if self._shutting is asyncio.current_task() and not self.session.wanted:
            await self._http.aclose()
        if self._shutting is not asyncio.current_task():
            return
        self._shutting = self.traffic.connected_since = None
        if not self.session.wanted:
            self.session.link_closed()
            self.flush()
            if not (self._is_resting or self.session.wanted):
                self._closed.set()

    async def wait_closed(self) -> None:
        """Return when the client is closed for good; raises ``GaveUp`` if it gave up."""
        self.enter_loop(required="wait_closed")
        stays = self._teller.leaves()
        try:
            await self._closed.wait()
            while self.is_running:
                await asyncio.sleep(0)
                await self._closed.wait()
        finally:
            stays()
        if self.gave_up is not None:
            raise self.gave_up.with_traceback(None)

"""The connection: where the client's state machine meets a socket, a clock and tasks.

    flush():  collect frames, write them; collect events, handle them; arm one timer

The same three steps follow a frame that arrived, a deadline that passed and a call from the user.
Callbacks run inside the second step. Their calls come back into ``flush``: the frames go out at
once, and the events wait for the outer call. So events are handled in the order in which they
happened.

``LinkRunner`` opens sockets and reads them, ``Shutdown`` closes for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp

from .._protocol import events
from .._protocol.client_machine import ClientMachine
from .._protocol.events import EventSink
from .._runtime.background_tasks import BackgroundTasks
from .._runtime.event_loop import LoopBinding
from .._runtime.http_session import HttpSession, TransportOptions
from .._runtime.outcome import Outcome, settle
from .._runtime.timer import Timer
from .._wire.envelope import Message
from ..enums import ConnectionState
from ..errors import ConnectionLost, GaveUp, SendError
from .access_tokens import AccessTokens
from .codec import Codec, frame_of, refusal
from .link import Link
from .link_runner import LinkRunner
from .shutdown import Shutdown, disconnected
from .traffic import Traffic
from .transport import Transport

__all__ = ["Connection"]


class _EnterLoop(Protocol):
    def __call__(self, *, required: str | None = None, is_wish: bool = False) -> bool: ...


class Connection:
    """Runs the client's state machine over real sockets.

    Args:
        url: returns the URL of the socket, key included.
        host: scheme, host and port, for messages.
        sink: handles the events of the machines.
        access_token: the user's callback that returns a token.
        http: an aiohttp session of the user's, left open at the end.
        max_outbound: how many frames may wait to be written.
    """

    def __init__(
        self,
        session: ClientMachine,
        codec: Codec,
        url: Callable[[], str],
        host: str,
        options: TransportOptions,
        sink: EventSink,
        *,
        access_token: Callable[[], Any] | None = None,
        http: aiohttp.ClientSession | None = None,
        max_outbound: int = 10_000,
    ) -> None:
        self.session = session
        self._outbox = session.context.outbox
        self._codec = codec
        self._url = url
        self._host = host
        self._options = options
        self._sink = sink
        self.traffic: Traffic = Traffic()
        self.gave_up: GaveUp | None = None
        self.in_callback: bool = False
        """True while events are handled, so while callbacks of the user's may run."""
        self.flush_requested: bool = False
        """True if ``flush`` was called while events were handled: by a callback, then."""
        self._timer = Timer(self._on_deadline)
        self._http = HttpSession(http)
        self.background: BackgroundTasks = BackgroundTasks()
        self.loop: LoopBinding = LoopBinding(self._is_running, self._forget_loop)
        # Every public call makes these two; an attribute saves a call in between.
        self.enter_loop: _EnterLoop = self.loop.enter
        self.now: Callable[[], float] = self.loop.now
        self.tokens: AccessTokens = AccessTokens(
            access_token, options.timeout, self._use_token, self.report
        )
        self.shutdown: Shutdown = Shutdown(
            session,
            self.loop,
            self.tokens,
            self.background,
            sink,
            self._http,
            self.traffic,
            self.flush,
        )
        self.links: LinkRunner = LinkRunner(
            self,
            codec,
            sink,
            self.loop,
            self.tokens,
            self._http,
            self.shutdown,
            open_transport=self._open_transport,
            host=host,
            max_outbound=max_outbound,
        )

    def _is_running(self) -> bool:
        """Returns True while there is a socket, an attempt, a planned attempt or a shutdown."""
        return (
            self.session.wanted or self.links.current is not None or self.shutdown.task is not None
        )

    def _forget_loop(self) -> None:
        """Drop every task and timer: their loop is gone."""
        planned = self._outbox.deadlines.get("connect")
        was_alive = self.links.current is not None or planned is not None
        self.links.forget_loop()
        self.tokens.forget_loop()
        self._sink.forget_loop()
        # A connect() that no loop has begun yet is no loss: it begins in the new loop.
        if self.session.wanted and was_alive:
            error = ConnectionLost("the event loop of the last connection is gone")
            self.session.loop_ended(error, self.now())
        self._timer.forget()
        self._http.forget_loop()
        self.background.forget_loop()
        self.session.link_closed()
        self.shutdown.forget_loop()

    @property
    def http(self) -> aiohttp.ClientSession | None:
        """The aiohttp session to make requests with, if there is one."""
        return self._http.current

    @property
    def last_error(self) -> BaseException | None:
        """The reason why the last link or attempt ended."""
        return self.links.last_error

    @property
    def ever_open(self) -> bool:
        """True if a socket was open at least once."""
        return self.links.ever_open

    # -- the three steps -----------------------------------------------------------------

    def flush(self) -> None:
        """Write collected frames, handle collected events, arm the timer."""
        if not self.loop.is_loop_running:
            return
        if self._outbox.has_frames:
            self._write_frames()
        if self.in_callback:
            self.flush_requested = True
            return
        self.in_callback = True
        try:
            while found := self.session.pop_events():
                for event in found:
                    self._handle(event)
        finally:
            self.in_callback = False
        if self._outbox.has_frames:
            self._write_frames()
        self.arm_timer()

    def arm_timer(self) -> None:
        """Wake up for the machine's next deadline."""
        loop = self.loop.current
        assert loop is not None
        self._timer.set(loop, self.session.next_deadline(), self.loop.context)

    def _on_deadline(self) -> None:
        self.session.on_deadline(self.now())
        self.flush()

    # -- events --------------------------------------------------------------------------

    def _handle(self, event: Any) -> None:
        kind = type(event)
        if kind is events.ConnectDue:
            # A handler called before this may have called disconnect(), and connect() again.
            if self.session.wanted and self.links.current is None:
                self.links.start()
        elif kind is events.LinkDied:
            self.links.cut(event.error)
        elif kind is events.TokenWanted:
            self._ask_for_token(event.blocking)
        elif kind is events.IdleReached:
            self._close_when_idle()
        else:
            if kind is events.GaveUpForGood and not self.session.wanted:
                # Otherwise a callback called before this has connected anew.
                self.gave_up = event.error
                self.links.fail_waiters(event.error.__cause__ or event.error)
            elif kind is events.Reconnected:
                self.traffic.reconnects += 1
            self._sink.handle(event)

    def _close_when_idle(self) -> None:
        # A callback called before this may have made a channel, or disconnected.
        if self.links.waiters.is_awaited:
            self.session.watch_idle(self.now())
        elif self.session.wanted and not self.session.channels:
            self.session.disconnect(self.now())
            self.links.waiters.detach().fail(disconnected("the last channel was left"))
            self.links.close(1000, "")
            self.shutdown.closed_when_idle = True

    def report(self, error: BaseException) -> None:
        """Report an error that no caller is waiting for."""
        self._sink.handle(events.ErrorReported(error))

    # -- opening and closing -------------------------------------------------------------

    def connect(self, *, patient: bool = False) -> Outcome[None]:
        """Open the socket; the outcome settles with the first link.

        ``patient``: a failed attempt does not fail the outcome if another attempt follows.
        """
        in_loop = self.enter_loop(is_wish=True)
        if self.session.state is ConnectionState.OPEN and self.session.wanted:
            return Outcome.of(None)
        # The outcome settles after a shutdown that is under way. That shutdown must not wait for
        # a handler that awaits this outcome.
        start, end_exemption = None, None
        if in_loop:
            end_exemption = self._sink.exempt_caller()
        else:
            start = self.connect
        outcome = self.links.waiters.add(start, end_exemption)
        if not self.session.wanted:
            self.gave_up = None
            self.links.is_first_attempt = True
            self.shutdown.reopen()
            self.session.connect()
        if patient:
            self.links.is_first_attempt = False
        if in_loop:
            self.flush()
        return outcome

    async def _open_transport(self) -> Transport:
        http = self._http.get()
        return await Transport.open(http, self._url(), self._host, self._options)

    def disconnect(self, code: int = 1000, reason: str = "") -> Outcome[str]:
        """Close for good; the outcome settles when nothing is left running."""
        self.enter_loop(required="disconnect")
        outcome: Outcome[str] = Outcome()
        self.shutdown.closed_when_idle = False
        self.session.disconnect(self.now(), code, reason)
        self.links.waiters.detach().fail(disconnected())
        # This comes after that line, which ends the exemptions of those who waited for a
        # connection. The caller may be one of them.
        end_exemption = self._sink.exempt_caller()
        self.links.close(code, reason)
        self.flush()

        def ended() -> None:
            end_exemption()
            outcome.succeed("ok")

        self.shutdown.after_newest(ended)
        return outcome

    async def wait_closed(self) -> None:
        """Return when the client is closed for good; raises ``GaveUp`` if it gave up."""
        self.enter_loop(required="wait_closed")
        end_exemption = self._sink.exempt_caller()
        try:
            await self.shutdown.wait_closed()
            while self._is_running():
                await asyncio.sleep(0)
                await self.shutdown.wait_closed()
        finally:
            end_exemption()
        if self.gave_up is not None:
            raise self.gave_up.with_traceback(None)

    # -- tokens --------------------------------------------------------------------------

    def set_auth(self, token: str | None) -> Outcome[None]:
        """Use ``token``, or ask the callback for one. A token is in use when this returns.

        Without a token it asks nobody if the callback itself is the caller: the callback's
        return value counts.
        """
        self.enter_loop()
        if token is not None and token != "":
            self.tokens.set(token)
            return Outcome.of(None)
        if self.tokens.callback is None or self.tokens.is_asked_here:
            return Outcome.of(None)
        self.enter_loop(required="set_auth")
        outcome: Outcome[None] = Outcome()
        task = self.tokens.refresh(anew=True)
        assert task is not None
        task.add_done_callback(lambda _: outcome.succeed(None))
        return outcome

    def _use_token(self, token: str | None) -> None:
        self.session.set_token(token, self.now())
        self.flush()

    def _ask_for_token(self, blocking: bool) -> None:
        task = self.tokens.refresh()
        if task is None:
            self.session.token_arrived(self.now())
        elif blocking:
            task.add_done_callback(self._token_asked)

    def _token_asked(self, _: asyncio.Task[None]) -> None:
        # Also if the task was cancelled: the joins that wait then carry the last token.
        if self.session.wanted:
            self.session.token_arrived(self.now())
            self.flush()

    # -- writing -------------------------------------------------------------------------

    def refuses(self) -> bool:
        """Returns True, and counts it, if too many frames wait to add one of the user's."""
        link = self.links.current
        return link is not None and link.refuses()

    def idle_link(self) -> Link | None:
        """Returns the open link if no frame waits in it or in the outbox."""
        link = self.links.current
        if link is None or not link.is_clear or self._outbox.has_frames:
            return None
        return link

    def _write_frames(self) -> None:
        for frame in self.session.pop_frames():
            self._write(frame.message, frame.outcome)

    def _write(self, message: Message, outcome: Any) -> None:
        link = self.links.current
        if link is None or link.transport is None:
            settle(outcome, "error")
            return
        frame = frame_of(self._codec, message)
        if frame is not None and not isinstance(frame, SendError):
            link.put(frame, outcome)
            return
        settle(outcome, "error")
        if frame is not None and self.loop.current is not None:
            self.report(frame)
            self.session.receive(refusal(message, frame), self.now())
            self.loop.current.call_soon(self.flush)

"""The subscription of one channel: join, become ready, leave, and what its callback is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from .._handlers.handler import Handler
from .._handlers.runners import new_handler
from .._printable import get_logger
from .._protocol.channel.channel_machine import ChannelMachine
from .._protocol.channel.channel_states import CLOSED, JOINED
from .._protocol.channel_options import check_seconds
from .._protocol.events import EventListener, PresenceDelivered, StatusChanged
from .._protocol.join_queue import JOIN_RATE
from .._runtime.log_fields import facts
from .._runtime.outcome import Outcome, Reply, Waiters
from ..enums import ListenType, SubscribeStatus
from ..errors import (
    AuthError,
    BindingMismatch,
    InvalidState,
    RealtimeError,
    Refused,
    SubscribeError,
    TimedOut,
)
from .channel_handlers import ChannelHandlers
from .channel_streams import ChannelStreams
from .parts import ClientParts

__all__ = ["ChannelSubscription"]

log: Final = get_logger("supabase_rt.channel")

_LOGGED = {
    SubscribeStatus.CHANNEL_ERROR: "error",
    SubscribeStatus.TIMED_OUT: "timeout",
    SubscribeStatus.CLOSED: "close",
}
"""The words that supabase-js gives the ``logger`` for the statuses of a channel."""


class ChannelSubscription:
    """The subscription of one channel, and the ``ChannelOwner`` of its machine.

    The public channel itself has no methods for events, so nobody can call one by mistake.
    ``channel`` is that public object: the client finds the public object by its machine.
    """

    __slots__ = (
        "_callback",
        "_deadline",
        "_end_reason",
        "_joining",
        "_machine",
        "_parts",
        "_readying",
        "_streams",
        "channel",
        "deliver",
        "handlers",
    )

    def __init__(
        self,
        parts: ClientParts,
        machine: ChannelMachine,
        handlers: ChannelHandlers,
        streams: ChannelStreams,
        channel: Any,
    ) -> None:
        self._parts = parts
        self._machine = machine
        self._streams = streams
        self._callback: Handler | None = None
        self._deadline: float | None = None
        # Made when first awaited: most channels are subscribed with a callback only.
        self._joining: Waiters | None = None
        self._readying: Waiters | None = None
        self._end_reason: BaseException | None = None
        self.channel: Any = channel
        self.handlers: ChannelHandlers = handlers
        # Bound here, because one more call for each event would be felt.
        self.deliver: Callable[[tuple[int, ...], Any], None] = handlers.listeners.deliver

    # -- joining -------------------------------------------------------------------------

    def subscribe(self, callback: Callable[..., Any] | None, timeout: float | None) -> None:
        """Starts to join."""
        seconds = self._seconds(timeout)
        registration = self._callback_registration(callback)
        parts, machine = self._parts, self._machine
        connection, client_machine = parts.connection, parts.client_machine
        in_loop = connection.enter_loop()
        now = connection.now()
        before = machine.state
        if client_machine.channels.get(machine.topic, machine) is not machine:
            parts.log("transport", f'leaving duplicate topic "{machine.topic}"')
        if parts.middleware and not machine.subscribed_once:
            # A channel made by hand was in no list when the middleware was added.
            self.handlers.rewrap()
        client_machine.subscribe(machine, seconds, now)
        if machine.state is not before:
            if registration is not None:
                self._replace_callback(registration)
            self._deadline = now + seconds
            self._end_reason = None
        elif registration is not None:
            words = "%s is subscribed already; the second callback is ignored"
            log.debug(words, machine.topic, extra=facts(topic=machine.topic))
        connection.connect()
        if in_loop:
            connection.flush()

    def _seconds(self, timeout: float | None) -> float:
        return self._parts.timeout if timeout is None else check_seconds("timeout", timeout)

    def _callback_registration(self, callback: Any) -> Handler | None:
        if callback is None:
            return None
        return new_handler(
            callback,
            self._parts.dispatcher,
            source=f"subscribe callback of {self._machine.topic}",
            limit=2,
            maxsize=None,
        )

    def _replace_callback(self, callback: Handler) -> None:
        replaced, self._callback = self._callback, callback
        if replaced is not None:
            # Its task would sleep until the client closes.
            replaced.end()

    async def wait_joined(self) -> None:
        """Waits until the channel is joined; raises what awaiting ``subscribe`` raises."""
        connection = self._parts.connection
        connection.enter_loop(required="subscribe")
        connection.flush()
        if self._machine.state is JOINED:
            return
        self._raise_if_final()
        left = None if self._deadline is None else self._deadline - connection.now()
        try:
            self._joining = self._joining or Waiters()
            await self._within(left, self._joining, "to be subscribed")
        except TimedOut:
            # Raised once: a later await of the channel waits for the next SUBSCRIBED.
            self._deadline = None
            raise

    async def wait_ready(self, timeout: float | None) -> None:
        """Waits until database changes flow and every backfill knows its start."""
        seconds = self._seconds(timeout)
        connection = self._parts.connection
        connection.enter_loop(required="ready")
        connection.flush()
        self._raise_if_final()
        until = connection.now() + seconds
        if not self._is_ready():
            if self._machine.inbound.ready_error is not None:
                raise self._machine.inbound.ready_error.with_traceback(None)
            self._readying = self._readying or Waiters()
            await self._within(seconds, self._readying, "to receive database changes")
        for runner in self.handlers.backfilled():
            if runner.start_error is not None:
                raise runner.start_error.with_traceback(None)
            if not runner.is_start_known:
                left = until - connection.now()
                try:
                    await self._within(
                        left, runner.start_known, "to read where its backfill begins"
                    )
                except TimedOut as exc:
                    raise exc from (runner.last_problem or exc.__cause__)

    def _is_ready(self) -> bool:
        if self._machine.state is not JOINED:
            return False
        expects = self._machine.bindings.of_type(ListenType.POSTGRES_CHANGES)
        return self._machine.inbound.ready or not expects

    def _raise_if_final(self) -> None:
        """Raises the error that no waiting would change, if there is one."""
        machine = self._machine
        if not machine.subscribed_once:
            raise InvalidState(
                f"{machine.topic} was never subscribed", hint="call channel.subscribe() first"
            )
        if machine.final_error is not None:
            raise machine.final_error.with_traceback(None)
        if machine.state is CLOSED:
            raise self._closed_error().with_traceback(None)

    def _closed_error(self) -> BaseException:
        if self._end_reason is not None:
            return self._end_reason
        topic, sub_topic = self._machine.topic, self._machine.sub_topic
        return SubscribeError(
            f"{topic} was closed",
            topic=topic,
            code="Closed",
            hint=f"make a new channel: client.channel({sub_topic!r})",
        )

    async def _within(self, seconds: float | None, waiting: Waiters, what: str) -> None:
        outcome = waiting.add()
        limit = asyncio.timeout(None if seconds is None else max(0.0, seconds))
        try:
            async with limit:
                await outcome
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._timed_out(what) from self._parts.connection.last_error
        finally:
            waiting.remove(outcome)

    def _timed_out(self, what: str) -> TimedOut:
        topic = self._machine.topic
        hint = "the channel keeps trying; see its callback, client.health() and __cause__"
        waiting = self._parts.client_machine.joins_waiting(self._machine)
        if waiting:
            hint = (
                f"its turn has not come: of the channels that wait to join ({waiting}) "
                f"{JOIN_RATE:g} go each second, because the server cuts who joins faster; this one "
                "joins in its turn, so give it a longer timeout, or leave it to its callback"
            )
        return TimedOut(f"{topic} took too long {what}", topic=topic, hint=hint)

    # -- leaving -------------------------------------------------------------------------

    def unsubscribe(self, timeout: float | None) -> Outcome[str]:
        """Starts to leave; the topic is free at once."""
        seconds = self._seconds(timeout)
        connection = self._parts.connection
        connection.enter_loop(required="unsubscribe")
        outcome = Reply()
        machine, now = self._machine, connection.now()
        self._parts.client_machine.unsubscribe(machine, seconds, outcome, now)
        connection.flush()
        return outcome

    def teardown(self) -> None:
        """Closes the channel without a message to the server."""
        connection = self._parts.connection
        connection.enter_loop(required="teardown")
        self._parts.client_machine.teardown(self._machine, connection.now())
        connection.flush()

    # -- events of the machine -----------------------------------------------------------

    def listener_for(self, ids: tuple[int, ...], *, of_changes: bool = False) -> EventListener:
        """Returns the handlers of these bindings as one listener, see ``ChannelOwner``."""
        return self.handlers.listeners.listener_for(ids, of_changes=of_changes)

    def presence_changed(self, event: PresenceDelivered) -> None:
        """Calls the handlers of a presence event."""
        self.handlers.deliver_presence(event)

    def status_changed(self, event: StatusChanged) -> None:
        """Settles the calls that wait for the subscription, then calls the callback."""
        status, error = event.status, event.error
        # Both a join and a loss: changes flow only once the server says so.
        self.handlers.changes_interrupted()
        self._log(status, error)
        if status is SubscribeStatus.SUBSCRIBED:
            self._deadline = None
            _succeed(self._joining)
            if self._is_ready():
                _succeed(self._readying)
        elif status is SubscribeStatus.CLOSED:
            self._closed(error)
        elif isinstance(error, Refused | BindingMismatch) or self._machine.final_error is not None:
            self._failed(self._machine.final_error or error)
        if self._callback is not None:
            self._callback(status, error)
            if self._machine.removed:
                self._callback.runner.stop()

    def _log(self, status: SubscribeStatus, error: BaseException | None) -> None:
        """Logs a status: an error if no rejoin follows, a warning if the server refused.

        Losing the link is logged for debugging only: the connection has logged it already.
        """
        topic, final_error = self._machine.topic, self._machine.final_error
        known = facts(error, topic=topic, status=str(status))
        if final_error is not None and error is not None:
            words = "%s: %s: %s; no rejoin follows (%s)"
            log.error(words, topic, status, error, final_error.hint, extra=known)
        elif self._machine.rejoin.retries_final and isinstance(error, RealtimeError):
            words = "%s: %s: %s; the client asks again for a while (%s)"
            log.error(words, topic, status, error, error.hint, extra=known)
        elif isinstance(error, SubscribeError | AuthError):
            log.warning("%s: %s: %s", topic, status, error, extra=known)
        else:
            log.debug("%s: %s", topic, status, extra=known)
        if status in _LOGGED:
            data = self._machine.timeout if status is SubscribeStatus.TIMED_OUT else error
            self._parts.log("channel", f"{_LOGGED[status]} {topic}", data)

    def _closed(self, error: BaseException | None) -> None:
        # A binding mismatch is reported as CLOSED first and as CHANNEL_ERROR after, as in JS.
        self._end_reason = error = error or self._machine.final_error
        _fail(self._joining, self._closed_error())
        _fail(self._readying, self._closed_error())
        self._streams.end(error)
        self.handlers.channel_closed()
        self.handlers.stop_workers()

    def _failed(self, error: BaseException | None) -> None:
        error = error or self._closed_error()
        _fail(self._joining, error)
        if self._machine.final_error is not None:
            _fail(self._readying, error)
            self._streams.end(error)

    def ready_changed(self, error: RealtimeError | None) -> None:
        """Settles ``ready()`` and tells the backfills; ``error`` says why no changes flow."""
        if error is None:
            self.handlers.changes_started()
            _succeed(self._readying)
            return
        self.handlers.changes_interrupted()
        topic = self._machine.topic
        words = "%s receives no database changes: %s (%s)"
        log.error(words, topic, error, error.hint, extra=facts(error, topic=topic))
        _fail(self._readying, error)

    def removed(self) -> None:
        """Logs that the channel has left the client's list."""
        topic = self._machine.topic
        log.debug("%s left the client", topic, extra=facts(topic=topic))


def _succeed(waiting: Waiters | None) -> None:
    if waiting is not None:
        waiting.succeed()


def _fail(waiting: Waiters | None, error: BaseException) -> None:
    if waiting is not None:
        waiting.fail(error)

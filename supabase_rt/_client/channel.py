"""The public channel: what a chain is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self

from .._handlers.handler import Handler
from .._handlers.runners import new_handler
from .._name_hints import no_attribute
from .._printable import get_logger
from .._protocol.channel.channel_machine import ChannelMachine
from .._protocol.channel.channel_states import CLOSED, JOINED
from .._protocol.channel_options import ChannelConfig, check_seconds
from .._protocol.events import StatusChanged
from .._protocol.join_queue import JOIN_RATE
from .._runtime.log_fields import facts
from .._runtime.outcome import Outcome, Reply, Waiters
from .._wire.json_codec import dumps
from .._wire.serializer import MAX_FRAME, is_too_large
from ..enums import ChannelState, ListenType, SubscribeStatus
from ..errors import (
    AuthError,
    BindingMismatch,
    InvalidState,
    RealtimeError,
    Refused,
    SubscribeError,
    TimedOut,
)
from .channel_shortcuts import Sugar
from .parts import Core

__all__ = ["RealtimeChannel"]

log: Final = get_logger("supabase_rt.channel")

_LOGGED = {
    SubscribeStatus.CHANNEL_ERROR: "error",
    SubscribeStatus.TIMED_OUT: "timeout",
    SubscribeStatus.CLOSED: "close",
}
"""The words of supabase-js for what its ``logger`` hears of a channel."""


class _Client(Protocol):
    """What a channel needs of its client."""

    _core: Core


class RealtimeChannel(Sugar):
    """One topic of one client: made by ``client.channel(topic, opts)``.

    Made by hand it takes the full topic (``realtime:room``) and enters the client's list when
    it is subscribed.

    Args:
        topic: the topic on the wire.
        params: ``{"config": {...}}``, see ``client.channel``.
        client: the ``RealtimeClient``.
    """

    def __init__(
        self,
        topic: str,
        params: Mapping[str, Any] | None = None,
        client: _Client | None = None,
        *,
        _machine: ChannelMachine | None = None,
    ) -> None:
        if client is None:
            raise TypeError("RealtimeChannel needs its client; use client.channel(topic)")
        self._core = client._core
        if _machine is None:
            config = ChannelConfig.build(params, topic)
            _machine = ChannelMachine(topic, config, self._core.session.context)
        self._machine = _machine
        self._machine.owner = self
        self._callback: Handler | None = None
        self._deadline: float | None = None
        self._joining = Waiters()
        self._readying = Waiters()
        self._end_reason: BaseException | None = None
        self._init_listening()

    # -- what it is ----------------------------------------------------------------------

    @property
    def topic(self) -> str:
        """The topic on the wire: ``realtime:room``."""
        return self._machine.topic

    @property
    def sub_topic(self) -> str:
        """The topic as given to ``client.channel``: ``room``."""
        return self._machine.sub_topic

    @property
    def state(self) -> ChannelState:
        """Where the channel is in its life."""
        return self._machine.state

    @property
    def params(self) -> dict[str, Any]:
        """The options in their merged form, ``{"config": {...}}``."""
        return self._machine.config.params

    @property
    def joined_once(self) -> bool:
        """Whether ``subscribe`` was ever called."""
        return self._machine.subscribed_once

    @property
    def private(self) -> bool:
        """Whether the policies on ``realtime.messages`` decide who may read and write."""
        return self._machine.config.private

    @property
    def last_downtime(self) -> float | None:
        """Seconds between the last loss and the rejoin after it; None before the first."""
        return self._machine.last_downtime

    @property
    def timeout(self) -> float:
        """Seconds a join may take."""
        return self._machine.timeout

    @property
    def broadcast_endpoint_url(self) -> str:
        """Where broadcasts go while the channel is not joined."""
        return self._core.rest.endpoint.http_url

    def __repr__(self) -> str:
        return f"<RealtimeChannel {self.topic!r} {self.state}>"

    _moved: ClassVar[dict[str, str]] = {
        "join": "subscribe()",
        "push": "send()",
        **{f"is_{state}": f'state == "{state}"' for state in ChannelState},
        **{f"is{state.capitalize()}": f'state == "{state}"' for state in ChannelState},
    }

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    # -- joining -------------------------------------------------------------------------

    def subscribe(
        self, callback: Callable[..., Any] | None = None, timeout: float | None = None
    ) -> Self:
        """Join the channel, connecting if need be; returns the channel, which is awaitable.

        Un-awaited, everything is told to ``callback(status, error)`` (one or two arguments,
        plain or ``async``), for the whole life of the channel: ``SUBSCRIBED`` after every join,
        ``CHANNEL_ERROR`` with an exception after every loss or refusal, ``TIMED_OUT``,
        ``CLOSED``.

        Awaited, it returns the channel once joined, and raises ``Refused``, ``BindingMismatch``,
        ``SubscribeError`` (closed meanwhile) or ``TimedOut`` after ``timeout`` seconds
        (the client's by default), whose cause is the last error of the connection. Raising does
        not unsubscribe.

        On a channel that is joined or on its way nothing happens and ``callback`` is ignored.
        Raises ``InvalidState`` on a channel that was closed: make a new one.

        Protocol reference, section 3.
        """
        seconds = self._core.timeout if timeout is None else check_seconds("timeout", timeout)
        registration = self._callback_registration(callback)
        connection, session, machine = self._core.connection, self._core.session, self._machine
        in_loop = connection.enter_loop()
        now = connection.now()
        before = machine.state
        if session.channels.get(self.topic, machine) is not machine:
            self._core.log("transport", f'leaving duplicate topic "{self.topic}"')
        if self._core.middleware and not machine.subscribed_once:
            # One made by hand was in no list when middleware came.
            self._rewrap()
        session.subscribe(machine, seconds, now)
        if machine.state is not before:
            self._callback = registration or self._callback
            self._deadline = now + seconds
            self._end_reason = None
        elif registration is not None:
            words = "%s is subscribed already; the second callback is ignored"
            log.debug(words, self.topic, extra=facts(topic=self.topic))
        connection.connect()
        if in_loop:
            connection.flush()
        return self

    def _callback_registration(self, callback: Any) -> Handler | None:
        if callback is None:
            return None
        return new_handler(
            callback,
            self._core.dispatch,
            source=f"subscribe callback of {self.topic}",
            limit=2,
            maxsize=None,
        )

    def __await__(self) -> Generator[Any, None, Self]:
        return self._subscribed().__await__()

    async def _subscribed(self) -> Self:
        connection = self._core.connection
        connection.enter_loop(required="subscribe")
        connection.flush()
        if self.state is not JOINED:
            self._raise_if_hopeless()
            left = None if self._deadline is None else self._deadline - connection.now()
            try:
                await self._within(left, self._joining, "to be subscribed")
            except TimedOut:
                # Said once: who awaits the channel later waits for the next SUBSCRIBED.
                self._deadline = None
                raise
        return self

    def _raise_if_hopeless(self) -> None:
        """Raise at once what waiting would not change."""
        machine = self._machine
        if not machine.subscribed_once:
            raise InvalidState(
                f"{self.topic} was never subscribed", hint="call channel.subscribe() first"
            )
        if machine.final_error is not None:
            raise machine.final_error.with_traceback(None)
        if machine.state is CLOSED:
            raise self._closed_error().with_traceback(None)

    def _closed_error(self) -> BaseException:
        if self._end_reason is not None:
            return self._end_reason
        return SubscribeError(
            f"{self.topic} was closed",
            topic=self.topic,
            code="Closed",
            hint=f"make a new channel: client.channel({self.sub_topic!r})",
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
            raise self._timed_out(what) from self._core.connection.last_error
        finally:
            waiting.remove(outcome)

    def _timed_out(self, what: str) -> TimedOut:
        hint = "the channel keeps trying; see its callback, client.health() and __cause__"
        waiting = self._core.session.joins_waiting(self._machine)
        if waiting:
            hint = (
                f"its turn has not come: of the channels that wait to join ({waiting}) "
                f"{JOIN_RATE:g} go each second, because the server cuts who joins faster; this one "
                "joins in its turn, so give it a longer timeout, or leave it to its callback"
            )
        return TimedOut(f"{self.topic} took too long {what}", topic=self.topic, hint=hint)

    async def ready(self, timeout: float | None = None) -> None:
        """Wait until database changes really flow: the server said "Subscribed to PostgreSQL".

        A channel without postgres_changes is ready when it is joined; one with a backfill when
        that also knows where to begin. ``timeout`` in seconds,
        the client's by default. Raises ``TimedOut``, the reason why the server cannot deliver
        changes (``SubscribeError``), or what awaiting ``subscribe`` raises.

        Protocol reference, section 9.9.
        """
        seconds = self._core.timeout if timeout is None else check_seconds("timeout", timeout)
        connection = self._core.connection
        connection.enter_loop(required="ready")
        connection.flush()
        self._raise_if_hopeless()
        until = connection.now() + seconds
        if not self._is_ready():
            if self._machine.inbound.ready_error is not None:
                raise self._machine.inbound.ready_error.with_traceback(None)
            await self._within(seconds, self._readying, "to receive database changes")
        for registration in self._catchups():
            if registration.start_error is not None:
                raise registration.start_error.with_traceback(None)
            if not registration.is_start_known:
                left = until - connection.now()
                try:
                    await self._within(
                        left, registration.start_known, "to read where its backfill begins"
                    )
                except TimedOut as exc:
                    raise exc from (registration.last_problem or exc.__cause__)

    def _is_ready(self) -> bool:
        if self.state is not JOINED:
            return False
        expects = self._machine.bindings.of_type(ListenType.POSTGRES_CHANGES)
        return self._machine.inbound.ready or not expects

    # -- leaving -------------------------------------------------------------------------

    def unsubscribe(self, timeout: float | None = None) -> Outcome[str]:
        """Leave the channel; starts at the call, and the topic is free from then on.

        The result is ``"ok"``, or ``"timed out"`` where the server did not answer within
        ``timeout`` seconds (the client's by default), or ``"error"``; the channel is closed in
        each case. Raises ``RuntimeError`` where no event loop runs.

        Protocol reference, section 3.7.
        """
        seconds = self._core.timeout if timeout is None else check_seconds("timeout", timeout)
        connection = self._core.connection
        connection.enter_loop(required="unsubscribe")
        outcome = Reply()
        self._core.session.unsubscribe(self._machine, seconds, outcome, connection.now())
        connection.flush()
        return outcome

    def teardown(self) -> None:
        """Drop the channel here, without a word to the server. Pending sends end ``"error"``."""
        connection = self._core.connection
        connection.enter_loop(required="teardown")
        self._core.session.teardown(self._machine, connection.now())
        connection.flush()

    def update_join_payload(self, payload: Mapping[str, Any]) -> None:
        """Merge ``payload`` into what the next join (or rejoin) sends, over our own keys.

        Raises ``ValueError`` or ``TypeError`` for what no join could carry.
        """
        extra = {**self._machine.join_payload_extra, **payload}
        if self._core.snapshots and is_too_large(dumps(extra)):
            raise ValueError(f"a join is at most {MAX_FRAME:,} bytes")
        self._machine.join_payload_extra.update(payload)

    # -- presence ------------------------------------------------------------------------

    def presence_state(self) -> dict[str, list[dict[str, Any]]]:
        """Who is present: ``{key: [{"presence_ref": ..., ...}]}``, a copy.

        Inside a presence handler it is the state that belongs to the event, as in supabase-js.
        """
        view = self._presence_view
        found = self._machine.inbound.presence if view is None else view
        state: dict[str, list[dict[str, Any]]] = found.list()
        return state

    # -- told by dispatch ----------------------------------------------------------------

    def status_changed(self, event: StatusChanged) -> None:
        status, error = event.status, event.error
        # Joined or lost: until the server says so, no changes flow.
        self._feed_lost()
        self._log(status, error)
        if status is SubscribeStatus.SUBSCRIBED:
            self._deadline = None
            self._joining.succeed()
            if self._is_ready():
                self._readying.succeed()
        elif status is SubscribeStatus.CLOSED:
            self._ended(error)
        elif isinstance(error, Refused | BindingMismatch) or self._machine.final_error is not None:
            self._failed(self._machine.final_error or error)
        if self._callback is not None:
            self._callback(status, error)
            if self._machine.removed:
                self._callback.runner.stop()

    def _log(self, status: SubscribeStatus, error: BaseException | None) -> None:
        """Loud where nothing follows by itself; a lost link was told of by the connection."""
        known = facts(error, topic=self.topic, status=str(status))
        if self._machine.final_error is not None and error is not None:
            words = "%s: %s: %s; no rejoin follows (%s)"
            log.error(words, self.topic, status, error, self._machine.final_error.hint, extra=known)
        elif isinstance(error, SubscribeError | AuthError):
            log.warning("%s: %s: %s", self.topic, status, error, extra=known)
        else:
            log.debug("%s: %s", self.topic, status, extra=known)
        if status in _LOGGED:
            data = self.timeout if status is SubscribeStatus.TIMED_OUT else error
            self._core.log("channel", f"{_LOGGED[status]} {self.topic}", data)

    def _ended(self, error: BaseException | None) -> None:
        # A binding mismatch is told as CLOSED first and as CHANNEL_ERROR after, as in JS.
        self._end_reason = error = error or self._machine.final_error
        self._joining.fail(self._closed_error())
        self._readying.fail(self._closed_error())
        self._end_listening(error)
        self._feed_over()
        self._stop_workers()

    def _failed(self, error: BaseException | None) -> None:
        error = error or self._closed_error()
        self._joining.fail(error)
        if self._machine.final_error is not None:
            self._readying.fail(error)
            self._end_listening(error)

    def ready_changed(self, error: RealtimeError | None) -> None:
        if error is None:
            self._feed_up()
            self._readying.succeed()
            return
        self._feed_lost()
        words = "%s receives no database changes: %s (%s)"
        log.error(words, self.topic, error, error.hint, extra=facts(error, topic=self.topic))
        self._readying.fail(error)

    def removed(self) -> None:
        log.debug("%s left the client", self.topic, extra=facts(topic=self.topic))

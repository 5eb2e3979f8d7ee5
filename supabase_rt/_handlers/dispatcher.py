"""Gives the events of the machines to user code: channels, listeners of the client, callers.

No exception of user code gets past this file. It is logged with the handler's name, counted and
given to ``error`` listeners; then the next handler runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from .._payloads.base import Payload, brief
from .._payloads.broadcast import Broadcast
from .._payloads.postgres_change import PostgresChange
from .._printable import get_logger
from .._protocol import events
from .._runtime.log_fields import facts
from .._runtime.slow_handler import Stopwatch
from ..enums import HeartbeatStatus, SubscribeStatus
from ..errors import ConnectionFailed, RealtimeError
from .handler import Handler
from .handler_tasks import HandlerTasks
from .listener_table import ListenerTable
from .runners import new_handler
from .signatures import accepted_arguments

__all__ = ["CLIENT_EVENTS", "Dispatcher"]

log: Final = get_logger("supabase_rt")
handlers_log: Final = get_logger("supabase_rt.handlers")

CLIENT_EVENTS: dict[str, int] = {
    "open": 0,
    "close": 2,
    "error": 3,
    "reconnecting": 3,
    "reconnected": 1,
    "heartbeat": 2,
    "gap": 4,
    "resumed": 2,
    "gave_up": 1,
}
"""The client's own events, and the number of arguments of each."""

CLIENT_EVENTS_KEPT: Final = 10_000
"""The number of the client's own events that may wait for one listener.

A server could cause any number of them.
"""

_SOURCE = "client event "
ERROR_SOURCE = f"{_SOURCE}error"


@dataclass(slots=True)
class Tally:
    """The counts that ``health()`` shows."""

    handler_errors: int = 0
    dropped_events: int = 0
    joins: int = 0


class Dispatcher:
    """The ``EventSink`` of a connection, and the owner of all handlers of a client."""

    _actions: ClassVar[dict[type, Callable[[Any, Any], None]]]
    """The method for each event of the machines: one table for all clients, built at the end of the
    file.
    """

    def __init__(
        self,
        logger: Callable[[str, str, Any], None] | None = None,
        host: str = "",
        drain_timeout: float = 5.0,
    ) -> None:
        self.tasks: HandlerTasks = HandlerTasks(drain_timeout, self._abandoned)
        self._logger = logger
        self._host = host
        self.listeners: ListenerTable = ListenerTable()
        """The listeners of the client's own events."""
        self.tally: Tally = Tally()
        self.stopwatch: Stopwatch = Stopwatch()
        self.last_latency: float | None = None
        self._heartbeat_callback: Handler | None = None
        self._in_error = False
        self._logged: set[str] = set()
        self._is_failing = False
        self._final_hint = ""
        """The last hint of a failure of the final kind that was logged in this row."""

    # -- EventSink -----------------------------------------------------------------------

    def handle(self, event: Any) -> None:
        """Gives one event to user code. Raises nothing that user code raised."""
        try:
            self._actions[type(event)](self, event)
        except Exception:
            # A mistake of this package: to lose an event is bad, but to lose the reader would be
            # worse.
            name = type(event).__name__
            log.exception("could not tell %s", name, extra=facts(event=name))

    def deliver(self, delivery: events.Delivery) -> None:
        """Gives one payload to the handlers of a channel."""
        channel, ids, payload = delivery
        channel.owner.deliver(ids, payload)

    def listener_for(
        self, channel: Any, ids: tuple[int, ...], *, of_changes: bool = False
    ) -> events.EventListener:
        """Returns the handlers of these bindings of a channel as one listener."""
        owner: events.ChannelOwner = channel.owner
        return owner.listener_for(ids, of_changes=of_changes)

    def exempt_caller(self) -> Callable[[], None]:
        """Exempts the running handler from ``drain`` until the result is called."""
        return self.tasks.exempt_caller()

    async def drain(self) -> None:
        """Waits until the handlers have finished their queued events."""
        await self.tasks.drain()

    def forget_loop(self) -> None:
        """Drops the tasks of an event loop that is gone; queued events stay."""
        self.tasks.forget_loop()

    # -- the machines' events ------------------------------------------------------------

    def _status(self, event: events.StatusChanged) -> None:
        if event.status is SubscribeStatus.SUBSCRIBED:
            self.tally.joins += 1
        event.channel.owner.status_changed(event)

    def _resumed(self, event: events.ChannelResumed) -> None:
        self.client_event("resumed", event.channel.topic, event.downtime)

    def _push_ended(self, event: events.RequestEnded) -> None:
        settle = getattr(event.outcome, "push_ended", None)
        if settle is not None:
            settle(event.result, event.response)

    def _opened(self, event: events.LinkOpened) -> None:
        self._transport(f"connected to {self._host}")
        if self._is_failing:
            log.info("connected to %s", self._host, extra=facts(host=self._host))
            self._is_failing = False
            self._final_hint = ""
        self.client_event("open")

    def _closed(self, event: events.LinkClosed) -> None:
        self._transport("close", {"code": event.code, "reason": event.reason})
        self.client_event("close", event.code, event.reason)

    def _transport(self, message: str, data: Any = None) -> None:
        """Calls the user's ``logger`` about the socket, in the words of supabase-js."""
        if self._logger is not None:
            self._logger("transport", message, data)

    def _heartbeat(self, event: events.HeartbeatReported) -> None:
        if event.status is HeartbeatStatus.TIMEOUT:
            self._transport("heartbeat timeout. Attempting to re-establish connection")
        if event.latency is not None:
            self.last_latency = event.latency
        self.heartbeat(event.status, event.latency)

    def heartbeat(self, status: HeartbeatStatus, latency: float | None) -> None:
        """Calls the one heartbeat callback, then the listeners."""
        if self._heartbeat_callback is not None:
            self._heartbeat_callback(status, latency)
        self.client_event("heartbeat", status, latency)

    def _reconnecting(self, event: events.ReconnectScheduled) -> None:
        # Losing a link is normal, but if no link can be opened, the user should look into it.
        cause, level, hint = event.cause, logging.INFO, ""
        if isinstance(cause, ConnectionFailed):
            level = logging.WARNING
            self._transport("error", cause)
            hint, self._is_failing = "" if self._is_failing else cause.hint, True
        # The hint is logged once for a row of failures, as all have the same reason. A failure of
        # the final kind needs somebody; its hint is logged even if another one was before.
        if event.is_final_kind and isinstance(cause, RealtimeError):
            level, hint = logging.ERROR, "" if cause.hint == self._final_hint else cause.hint
            self._final_hint = cause.hint
        words = "%s; trying again in %.1f s (attempt %d)%s"
        advice = f"; {hint}" if hint else ""
        known = facts(event.cause, host=self._host, attempt=event.attempt, delay=event.delay)
        log.log(level, words, event.cause, event.delay, event.attempt, advice, extra=known)
        self.client_event("reconnecting", event.attempt, event.delay, event.cause)

    def _reconnected(self, event: events.Reconnected) -> None:
        known = facts(host=self._host, downtime=event.downtime)
        log.info("connected again after %.1f s", event.downtime, extra=known)
        self.client_event("reconnected", event.downtime)

    def _reconnect_after_failed(self, event: events.ReconnectAfterFailed) -> None:
        # Logged once for each kind of error: the function is called before every attempt, and fails
        # each time.
        kind = f"{type(event.error).__name__}: {event.error}"
        if kind not in self._logged:
            self._logged.add(kind)
            words = "reconnect_after failed, the delays are those of the policy: %s"
            log.error(words, kind, exc_info=event.error, extra=facts(event.error))
        self.error(event.error)

    def _gave_up(self, event: events.GaveUpForGood) -> None:
        hint = event.error.hint
        known = facts(event.error, host=self._host, attempt=getattr(event.error, "attempts", None))
        log.error("%s%s", event.error, f"; {hint}" if hint else "", extra=known)
        self.client_event("gave_up", event.error)

    # -- the client's own events ---------------------------------------------------------

    def client_event(self, name: str, *args: Any) -> None:
        """Calls the listeners of ``client.on(name, ...)``."""
        self.listeners.call(name, *args)

    def error(self, error: BaseException, event: Any = None, handler: Any = None) -> None:
        """Calls the ``error`` listeners; the error of a listener is only logged."""
        if self._in_error:
            return
        self._in_error = True
        try:
            self.client_event("error", error, event, handler)
        finally:
            self._in_error = False

    # -- Reports of handlers -------------------------------------------------------------

    def start_worker(self, handler: Handler) -> asyncio.Task[None]:
        """Starts a task that handles the queued events of ``handler``."""
        return self.tasks.start_worker(handler)

    async def wait_for(self, fits: Callable[[Handler], bool]) -> None:
        """Waits for the tasks of the handlers that fit, within the bound of ``drain``."""
        await self.tasks.wait_for(fits)

    def handler_failed(self, error: BaseException, event: Any, handler: Handler) -> None:
        """Logs and counts that a handler raised, and calls the ``error`` listeners."""
        self.tally.handler_errors += 1
        handlers_log.error(
            "handler %s failed: %s (%s)%s",
            handler.name,
            type(error).__name__,
            _where(handler, event),
            _dict_hint(error, event),
            exc_info=error,
            extra=facts(
                error,
                handler=handler.name,
                topic=handler.topic,
                event=_name_of(event),
            ),
        )
        if handler.source != ERROR_SOURCE:
            # An error listener that always raises would be called for its own errors for ever.
            self.error(error, event, handler.function)

    def events_dropped(self, source: str, count: int, since: float, until: float) -> None:
        """Logs and counts events for which a full queue had no room, and reports the gap."""
        self.tally.dropped_events += count
        words = "dropped %d events of %s: the handler is too slow"
        handlers_log.warning(words, count, source, extra=facts(topic=source, count=count))
        if not source.startswith(_SOURCE):
            # A slow listener of ``gap`` would make events for itself without end.
            self.client_event("gap", source, since, until, "overflow")

    def on_unawaited_failure(self, error: BaseException) -> None:
        """Reports that a call failed which nobody awaits."""
        log.error("a call that nobody awaits failed: %s", error, extra=facts(error))
        self.error(error)

    def _abandoned(self, handler: Handler, since: float) -> bool:
        """Reports events that a handler did not finish in time; returns True if listeners were
        told.
        """
        lost = handler.runner.discard()
        handlers_log.warning(
            "handler %s did not end in time; cancelled, %d events unhandled",
            handler.name,
            lost,
            extra=facts(handler=handler.name, topic=handler.topic, count=lost),
        )
        is_of_client = handler.source.startswith(_SOURCE)
        if not lost or is_of_client or handler.runner.queue_survives_shutdown:
            return False
        self.tally.dropped_events += lost
        self.client_event("gap", handler.source, since, time.time(), "shutdown")
        return True

    # -- registering for the client's events ---------------------------------------------

    def listen(self, name: str, function: Any, *, once: bool = False) -> None:
        """Registers for one of the client's events; raises ``ValueError`` for another name."""
        limit = self._check_name(name)
        handler = new_handler(
            function,
            self,
            source=_SOURCE + name,
            limit=limit,
            maxsize=CLIENT_EVENTS_KEPT,
            once=once,
            on_end=lambda ended: self.listeners.detach(name, ended),
        )
        self.listeners.attach(name, handler)

    def unlisten(self, name: str, function: Any) -> None:
        """Removes a listener of ``name``, or all for None; an unknown function is ignored."""
        self._check_name(name)
        for handler in self.listeners.listeners(name):
            if isinstance(handler, Handler) and function in (None, handler.function):
                handler.end()

    def _check_name(self, name: str) -> int:
        if name not in CLIENT_EVENTS:
            raise ValueError(f"unknown client event {name!r}; known: {', '.join(CLIENT_EVENTS)}")
        return CLIENT_EVENTS[name]

    def set_heartbeat(self, callback: Any) -> None:
        """Sets the one heartbeat callback of supabase-js; None removes it."""
        replaced, handler = self._heartbeat_callback, None
        if callback is not None:
            accepted_arguments(callback, 2)
            handler = new_handler(
                callback, self, source="heartbeat callback", limit=2, maxsize=None
            )
        self._heartbeat_callback = handler
        if replaced is not None:
            # Its task would sleep until the client closes.
            replaced.end()


def _name_of(payload: Any) -> str | None:
    """Returns the word for an event in a log record; never its content."""
    name = getattr(payload, "event_type", None) or getattr(payload, "event", None)
    return name if isinstance(name, str) else None


def _where(handler: Handler, event: Any) -> str:
    """Returns the channel and the event's name, or the client event."""
    name = _name_of(event) if isinstance(event, Payload) else None
    if name is None:
        return handler.source
    if isinstance(event, PostgresChange):
        name = f"{name:.20} {event.schema}.{event.table}"
    return f"{handler.source}, {brief(name)}"


def _dict_hint(error: BaseException, event: Any) -> str:
    """Returns a hint for ``row.name``, which works in JavaScript; here rows are dicts."""
    if not isinstance(error, AttributeError) or type(error.obj) is not dict:
        return ""
    if isinstance(event, PostgresChange):
        return f'; rows are dicts: change.new["{error.name}"]'
    where = "message.payload" if isinstance(event, Broadcast) else "entry"
    return f'; it is a dict: {where}["{error.name}"]'


Dispatcher._actions = {
    events.Delivered: Dispatcher.deliver,
    events.PresenceDelivered: lambda _, event: event.channel.owner.presence_changed(event),
    events.StatusChanged: Dispatcher._status,
    events.ReadyChanged: lambda _, event: event.channel.owner.ready_changed(event.error),
    events.ChannelRemoved: lambda _, event: event.channel.owner.removed(),
    events.ChannelResumed: Dispatcher._resumed,
    events.GapFound: lambda self, event: self.client_event(
        "gap", event.topic, event.since, event.until, event.reason
    ),
    events.RequestEnded: Dispatcher._push_ended,
    events.HeartbeatReported: Dispatcher._heartbeat,
    events.LinkOpened: Dispatcher._opened,
    events.LinkClosed: Dispatcher._closed,
    events.ReconnectScheduled: Dispatcher._reconnecting,
    events.Reconnected: Dispatcher._reconnected,
    events.ErrorReported: lambda self, event: self.error(event.error),
    events.ReconnectAfterFailed: Dispatcher._reconnect_after_failed,
    events.GaveUpForGood: Dispatcher._gave_up,
}

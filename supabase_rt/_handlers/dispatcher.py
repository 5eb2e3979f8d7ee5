"""From what happened to who is told: the boundary between the machines and user code.

Nothing that user code does gets past this file: an exception is logged with the handler's name,
counted, told to ``error`` listeners, and the next handler runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from .._payloads.base import Payload, brief
from .._payloads.broadcast import Broadcast, PostgresChange
from .._printable import get_logger
from .._protocol import events
from .._runtime.log_fields import facts
from .._runtime.slow_handler import Stopwatch
from ..enums import HeartbeatStatus, SubscribeStatus
from ..errors import ConnectionFailed
from .handler import Registration
from .handler_tasks import Workers
from .listener_table import Emitter, Taker
from .signatures import accepted_arguments

__all__ = ["CLIENT_EVENTS", "Dispatch"]

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
"""The client's own events and how many arguments each carries."""

CLIENT_EVENTS_KEPT: Final = 10_000
"""How many of the client's events may wait for one listener: a server may cause any number."""

_SOURCE = "client event "
ERROR_SOURCE = f"{_SOURCE}error"


@dataclass(slots=True)
class Tally:
    """What ``health()`` shows of what was told."""

    handler_errors: int = 0
    dropped_events: int = 0
    joins: int = 0


class Dispatch(Workers):
    """Tells channels, client listeners and callers what the machines report."""

    _tellers: ClassVar[dict[type, Callable[[Any, Any], None]]]
    """What to do with each event of the machines: one table for all clients, at the end."""

    def __init__(
        self,
        logger: Callable[[str, str, Any], None] | None = None,
        host: str = "",
        drain_timeout: float = 5.0,
    ) -> None:
        super().__init__(drain_timeout)
        self._logger = logger
        self._host = host
        self.emitter: Emitter = Emitter()
        self.tally: Tally = Tally()
        self.stopwatch: Stopwatch = Stopwatch()
        self.last_latency: float | None = None
        self.heartbeat_registration: Registration | None = None
        self._in_error = False
        self._said: set[str] = set()
        self._is_failing = False

    def tell(self, event: Any) -> None:
        """Tell one event. Raises nothing that user code raised."""
        try:
            self._tellers[type(event)](self, event)
        except Exception:
            # Our own mistake: an event lost is bad, a reader lost is worse.
            name = type(event).__name__
            log.exception("could not tell %s", name, extra=facts(event=name))

    # -- the machines' events ------------------------------------------------------------

    def deliver(self, delivery: events.Delivery) -> None:
        """Tell the handlers of a channel one payload."""
        channel, ids, payload = delivery
        channel.owner.deliver(ids, payload)

    def listener(self, channel: Any, ids: tuple[int, ...]) -> Taker:
        """Who takes the payloads that are for these bindings of a channel."""
        found: Taker = channel.owner.listener_for(ids)
        return found

    def change_listener(self, channel: Any, ids: tuple[int, ...]) -> Taker:
        """The same for database changes, which are given as ``PostgresData``."""
        found: Taker = channel.owner.listener_for(ids, of_changes=True)
        return found

    def _presence(self, event: events.PresenceDelivered) -> None:
        event.channel.owner.presence_changed(event)

    def _status(self, event: events.StatusChanged) -> None:
        if event.status is SubscribeStatus.SUBSCRIBED:
            self.tally.joins += 1
        event.channel.owner.status_changed(event)

    def _resumed(self, event: events.ChannelResumed) -> None:
        self.client_event("resumed", event.channel.topic, event.downtime)

    def _push_ended(self, event: events.PushEnded) -> None:
        settle = getattr(event.outcome, "push_ended", None)
        if settle is not None:
            settle(event.result, event.response)

    def _opened(self, event: events.LinkOpened) -> None:
        self._transport(f"connected to {self._host}")
        if self._is_failing:
            log.info("connected to %s", self._host, extra=facts(host=self._host))
            self._is_failing = False
        self.client_event("open")

    def _closed(self, event: events.LinkClosed) -> None:
        self._transport("close", {"code": event.code, "reason": event.reason})
        self.client_event("close", event.code, event.reason)

    def _transport(self, message: str, data: Any = None) -> None:
        """What the user's ``logger`` hears of the socket, in the words of supabase-js."""
        if self._logger is not None:
            self._logger("transport", message, data)

    def _heartbeat(self, event: events.HeartbeatReported) -> None:
        if event.status is HeartbeatStatus.TIMEOUT:
            self._transport("heartbeat timeout. Attempting to re-establish connection")
        if event.latency is not None:
            self.last_latency = event.latency
        self.heartbeat(event.status, event.latency)

    def heartbeat(self, status: HeartbeatStatus, latency: float | None) -> None:
        """The one heartbeat callback, then the listeners."""
        if self.heartbeat_registration is not None:
            self.heartbeat_registration(status, latency)
        self.client_event("heartbeat", status, latency)

    def _reconnecting(self, event: events.ReconnectScheduled) -> None:
        # A lost link is everyday; one that cannot be made is what somebody should look at.
        level, hint = logging.INFO, ""
        if isinstance(event.cause, ConnectionFailed):
            level = logging.WARNING
            self._transport("error", event.cause)
            hint, self._is_failing = "" if self._is_failing else event.cause.hint, True
        # What to do is said at the first of a row of failures, as all have the same reason.
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
        # Once for each kind: it is asked before every attempt, and fails alike each time.
        kind = f"{type(event.error).__name__}: {event.error}"
        if kind not in self._said:
            self._said.add(kind)
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
        """Tell the listeners of ``client.on(name, ...)``."""
        self.emitter.tell(name, *args)

    def error(self, error: BaseException, event: Any = None, handler: Any = None) -> None:
        """Tell the ``error`` listeners; one that raises is only logged."""
        if self._in_error:
            return
        self._in_error = True
        try:
            self.client_event("error", error, event, handler)
        finally:
            self._in_error = False

    # -- Reports -------------------------------------------------------------------------

    def handler_failed(self, error: BaseException, event: Any, registration: Registration) -> None:
        """A handler raised: logged with its name, counted, told."""
        self.tally.handler_errors += 1
        handlers_log.error(
            "handler %s failed: %s (%s)%s",
            registration.name,
            type(error).__name__,
            _where(registration, event),
            _dict_hint(error, event),
            exc_info=error,
            extra=facts(
                error,
                handler=registration.name,
                topic=registration.topic,
                event=_name_of(event),
            ),
        )
        if registration.source != ERROR_SOURCE:
            # An error listener that always raises would be told of itself for ever.
            self.error(error, event, registration.handler)

    def events_dropped(self, source: str, count: int, since: float, until: float) -> None:
        """A handler was slower than its events for longer than its queue lasts."""
        self.tally.dropped_events += count
        words = "dropped %d events of %s: the handler is too slow"
        handlers_log.warning(words, count, source, extra=facts(topic=source, count=count))
        if not source.startswith(_SOURCE):
            # Else a slow listener of ``gap`` would make events for itself without end.
            self.client_event("gap", source, since, until, "overflow")

    def unheard(self, error: BaseException) -> None:
        """A call failed and nobody awaits it."""
        log.error("a call that nobody awaits failed: %s", error, extra=facts(error))
        self.error(error)

    def _cut_off(self, registration: Registration, since: float) -> bool:
        """What waits for this handler is lost, and told; whether anything was."""
        lost = registration.discard_queue()
        handlers_log.warning(
            "handler %s did not end in time; cancelled, %d events unhandled",
            registration.name,
            lost,
            extra=facts(handler=registration.name, topic=registration.topic, count=lost),
        )
        if not lost or registration.keeps_queue or registration.source.startswith(_SOURCE):
            return False
        self.tally.dropped_events += lost
        self.client_event("gap", registration.source, since, time.time(), "shutdown")
        return True

    # -- registering for the client's events ---------------------------------------------

    def listen(self, name: str, handler: Any, *, once: bool = False) -> None:
        """Register for one of the client's events; raises ``ValueError`` for another name."""
        limit = self._check_name(name)
        registration = Registration(
            handler,
            self,
            source=_SOURCE + name,
            limit=limit,
            maxsize=CLIENT_EVENTS_KEPT,
            once=once,
            on_end=lambda ended: self.emitter.detach(name, ended),
        )
        self.emitter.attach(name, registration)

    def unlisten(self, name: str, handler: Any) -> None:
        """Remove a handler of ``name``, or all of them; an unknown one is ignored."""
        self._check_name(name)
        for registration in self.emitter.listeners(name):
            if isinstance(registration, Registration) and handler in (None, registration.handler):
                registration.end()

    def _check_name(self, name: str) -> int:
        if name not in CLIENT_EVENTS:
            raise ValueError(f"unknown client event {name!r}; known: {', '.join(CLIENT_EVENTS)}")
        return CLIENT_EVENTS[name]

    def set_heartbeat(self, callback: Any) -> None:
        """The one heartbeat callback of supabase-js; a new one takes the place of the old."""
        if callback is None:
            self.heartbeat_registration = None
            return
        accepted_arguments(callback, 2)
        self.heartbeat_registration = Registration(
            callback, self, source="heartbeat callback", limit=2, maxsize=None
        )


def _name_of(payload: Any) -> str | None:
    """The word for an event in a log record: never its content."""
    name = getattr(payload, "event_type", None) or getattr(payload, "event", None)
    return name if isinstance(name, str) else None


def _where(registration: Registration, event: Any) -> str:
    """The channel or client event, and which event of it."""
    name = _name_of(event) if isinstance(event, Payload) else None
    if name is None:
        return registration.source
    if isinstance(event, PostgresChange):
        name = f"{name:.20} {event.schema}.{event.table}"
    return f"{registration.source}, {brief(name)}"


def _dict_hint(error: BaseException, event: Any) -> str:
    """JavaScript reads ``row.name``; here rows and payloads are dicts."""
    if not isinstance(error, AttributeError) or type(error.obj) is not dict:
        return ""
    if isinstance(event, PostgresChange):
        return f'; rows are dicts: change.new["{error.name}"]'
    where = "message.payload" if isinstance(event, Broadcast) else "entry"
    return f'; it is a dict: {where}["{error.name}"]'


Dispatch._tellers = {
    events.Delivered: Dispatch.deliver,
    events.PresenceDelivered: Dispatch._presence,
    events.StatusChanged: Dispatch._status,
    events.ReadyChanged: lambda self, event: event.channel.owner.ready_changed(event.error),
    events.ChannelRemoved: lambda self, event: event.channel.owner.removed(),
    events.ChannelResumed: Dispatch._resumed,
    events.GapFound: lambda self, event: self.client_event(
        "gap", event.topic, event.since, event.until, event.reason
    ),
    events.PushEnded: Dispatch._push_ended,
    events.HeartbeatReported: Dispatch._heartbeat,
    events.LinkOpened: Dispatch._opened,
    events.LinkClosed: Dispatch._closed,
    events.ReconnectScheduled: Dispatch._reconnecting,
    events.Reconnected: Dispatch._reconnected,
    events.ErrorReported: lambda self, event: self.error(event.error),
    events.ReconnectAfterFailed: Dispatch._reconnect_after_failed,
    events.GaveUpForGood: Dispatch._gave_up,
}

"""The streams of one channel, and the calls of ``wait_for`` that wait for an event."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable
from typing import Any

from .._backfill.backfill_stream import backfill_stream
from .._backfill.options import Backfill
from .._handlers.event_stream import Stream, wait_for_event, weak_handler
from .._handlers.handler import Handler
from .._handlers.signatures import check_asked
from .._protocol.channel.channel_machine import ChannelMachine
from .._protocol.channel_options import check_filter, check_listen_type, check_seconds
from .._runtime.event_loop import LoopBinding
from .._runtime.outcome import Outcome
from ..errors import InvalidState, TimedOut
from .channel_handlers import ChannelHandlers, check_queue
from .parts import ClientParts

__all__ = ["ChannelStreams"]


class ChannelStreams:
    """The streams and waits of one channel, which end with it.

    Both are held weakly, because users drop them without a call: a stream by leaving its loop,
    a wait by cancelling its await.
    """

    __slots__ = ("_handlers", "_machine", "_parts", "_streams", "_waits")

    def __init__(
        self, parts: ClientParts, machine: ChannelMachine, handlers: ChannelHandlers
    ) -> None:
        self._parts = parts
        self._machine = machine
        self._handlers = handlers
        # Made when first used: most channels have neither, and a WeakSet takes 800 bytes.
        self._streams: weakref.WeakSet[Stream[Any]] | None = None
        self._waits: weakref.WeakSet[Outcome[Any]] | None = None

    @property
    def waiting(self) -> int:
        """The number of ``wait_for`` calls that are not settled, or not collected yet."""
        return 0 if self._waits is None else len(self._waits)

    def stream(
        self,
        type: str,
        filter: Any,
        *,
        maxsize: int,
        maxbytes: int,
        types: str | None,
        model: Any,
        backfill: Backfill | None,
    ) -> Stream[Any]:
        """Makes a stream of the events that fit."""
        handlers = self._handlers
        listen_type = check_listen_type(type)
        checked = check_filter(listen_type, filter)
        check_queue(maxsize, maxbytes=maxbytes)
        options: dict[str, Any] = {"types": handlers.conversion_for(listen_type, types, model)}
        handlers.check_backfill(listen_type, checked, backfill, filter)
        handlers.require_open()
        handlers.require_bound(listen_type, checked)
        reports, topic = self._parts.dispatcher, self._machine.topic
        found: Stream[Any]
        handler: Callable[[Any], Any]
        if backfill is None:
            found = Stream(reports, topic, maxsize, maxbytes)
            handler = weak_handler(found)
        else:
            found, handler = backfill_stream(reports, topic)
            options |= {"backfill": backfill, "maxsize": maxsize, "maxbytes": maxbytes}
        registration = handlers.register(listen_type, checked, handler, **options)
        found.attach(registration, self._parts.connection.loop)
        if self._streams is None:
            self._streams = weakref.WeakSet()
        self._streams.add(found)
        if self._machine.final_error is not None:
            found.end(self._machine.final_error)
        return found

    def wait_for(
        self,
        type: str,
        filter: Any,
        check: Callable[[Any], Any] | None,
        timeout: float | None,
        *,
        types: str | None,
        model: Any,
    ) -> Outcome[Any]:
        """Begins to wait for the next event that fits."""
        handlers, connection = self._handlers, self._parts.connection
        listen_type = check_listen_type(type)
        checked = check_filter(listen_type, filter)
        seconds = None if timeout is None else check_seconds("timeout", timeout)
        if check is not None:
            check_asked("check", check)
        conversion = handlers.conversion_for(listen_type, types, model)
        handlers.require_open()
        handlers.require_bound(listen_type, checked)
        connection.enter_loop(required="wait_for")
        outcome = _EventOutcome(connection.loop)
        handler = wait_for_event(outcome, check)
        outcome.registration = handlers.register(listen_type, checked, handler, types=conversion)
        if self._waits is None:
            self._waits = weakref.WeakSet()
        self._waits.add(outcome)
        if seconds is not None:
            error = TimedOut(f"no such {listen_type} event within {seconds:g} s")
            loop = asyncio.get_running_loop()
            outcome.timer = loop.call_later(seconds, _fail, weakref.ref(outcome), error)
        if self._machine.final_error is not None:
            outcome.fail(self._machine.final_error)
        return outcome

    def end(self, error: BaseException | None) -> None:
        """Ends all streams and waits, since the channel is closed or will not rejoin."""
        for stream in list(self._streams or ()):
            stream.end(error)
        reason = error or InvalidState(f"{self._machine.topic} was closed")
        for outcome in list(self._waits or ()):
            outcome.fail(reason)


class _EventOutcome(Outcome[Any]):
    """The outcome of ``wait_for``; removes its handler once it is settled or collected."""

    __slots__ = ("_owner", "registration", "timer")

    def __init__(self, owner: LoopBinding) -> None:
        super().__init__()
        self._owner = owner
        self.registration: Handler | None = None
        self.timer: asyncio.TimerHandle | None = None

    def _wake(self) -> None:
        super()._wake()
        _release(self.registration, self.timer)

    def __del__(self) -> None:
        if not self._settled:
            # A collection may run in any thread; handlers are removed in the loop only.
            self._owner.call_in_loop(functools.partial(_release, self.registration, self.timer))


def _release(registration: Handler | None, timer: asyncio.TimerHandle | None) -> None:
    if registration is not None:
        registration.end()
    if timer is not None:
        timer.cancel()


def _fail(wait: weakref.ref[_EventOutcome], error: BaseException) -> None:
    outcome = wait()
    if outcome is not None:
        outcome.fail(error)

"""The listening half of a channel: ``on``, ``off``, ``once``, ``stream``, ``wait_for``."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, Self, TypeVar, overload

from .core import Core
from .emitter import Emitter
from .enums import ListenType
from .errors import InvalidState, TimedOut
from .outcome import Outcome
from .protocol.bindings import Binding
from .protocol.channel import ChannelMachine
from .protocol.columns import check_mode
from .protocol.config import check_filter, check_listen_type, check_seconds
from .protocol.events import PresenceDelivered
from .protocol.transitions import JOINED, JOINING
from .registration import OVERFLOWS, Registration
from .stream import Stream, wait_for_event, weak_handler

__all__ = ["Listening"]

Handler = TypeVar("Handler", bound=Callable[..., Any])

FIXED_BY_THE_JOIN = (ListenType.PRESENCE, ListenType.POSTGRES_CHANGES)
"""What the join payload says; a later wish would not reach the server."""


class Listening:
    """Registrations of one channel, over one emitter."""

    _core: Core
    _machine: ChannelMachine

    def _init_listening(self) -> None:
        self._emitter = Emitter()
        self._bound: dict[Registration, Binding] = {}
        self._streams: weakref.WeakSet[Stream[Any]] = weakref.WeakSet()
        self._waits: weakref.WeakSet[_Wait] = weakref.WeakSet()
        self._presence_view: Any = None

    # -- registering ---------------------------------------------------------------------

    @overload
    def on(
        self,
        type: str,
        filter: Any,
        handler: Callable[..., Any],
        *,
        maxsize: int = ...,
        overflow: str = ...,
        types: str | None = ...,
        thread: bool = ...,
    ) -> Self: ...

    @overload
    def on(
        self,
        type: str,
        filter: Any,
        handler: None = None,
        *,
        maxsize: int = ...,
        overflow: str = ...,
        types: str | None = ...,
        thread: bool = ...,
    ) -> Callable[[Handler], Handler]: ...

    def on(
        self,
        type: str,
        filter: Any,
        handler: Callable[..., Any] | None = None,
        *,
        maxsize: int = 1000,
        overflow: str = "drop_oldest",
        types: str | None = None,
        thread: bool = False,
    ) -> Any:
        """Call ``handler`` for every event that fits; returns the channel for chaining.

        Without ``handler`` it is a decorator. The handler takes one argument (the payload) or
        none, and is a plain or an ``async`` function; its events come in order, one at a time.

        Args:
            type: ``"postgres_changes"``, ``"broadcast"``, ``"presence"`` or ``"system"``.
            filter: ``{"event": ...}``; for postgres_changes also ``schema``, ``table``,
                ``filter`` (text or a ``postgres_changes_filter()``) and ``select``.
            maxsize: how many events may wait for an ``async`` or ``thread`` handler.
            overflow: what goes when they are full: ``"drop_oldest"``, ``"drop_newest"``, or
                ``"close"``, which ends the registration with an error.
            types: how columns are converted: ``"js"``, ``"python"`` or ``"raw"``; the client's
                choice by default.
            thread: run a plain function in a worker thread instead of on the event loop.

        Raises:
            ValueError: an unknown type, event, key or option.
            TypeError: a handler that cannot be called with one argument.
            InvalidState: presence or postgres_changes on a channel that is joined or joining.
        """
        listen_type = check_listen_type(type)
        checked = check_filter(listen_type, filter)
        self._check_options(maxsize, overflow, types)

        def register(function: Callable[..., Any]) -> None:
            self._require_unjoined(listen_type)
            self._register(
                listen_type,
                checked,
                function,
                maxsize=maxsize,
                overflow=overflow,
                types=types or self._core.types,
                thread=thread,
            )

        if handler is not None:
            register(handler)
            return self

        def decorate(function: Handler) -> Handler:
            register(function)
            return function

        self._require_unjoined(listen_type)
        return decorate

    def once(self, type: str, filter: Any, handler: Callable[..., Any]) -> Self:
        """Call ``handler`` for the first event that fits, then never again. See ``on``."""
        listen_type = check_listen_type(type)
        checked = check_filter(listen_type, filter)
        self._require_unjoined(listen_type)
        self._register(listen_type, checked, handler, types=self._core.types, once=True)
        return self

    def off(self, type: str, filter: Any = None, handler: Callable[..., Any] | None = None) -> Self:
        """Remove handlers: of a type, of one filter of it, or one function. See ``on``.

        What is queued for a removed handler is still handled. Raises ``ValueError`` as ``on``.
        """
        listen_type = check_listen_type(type)
        checked = None if filter is None else check_filter(listen_type, filter)
        for registration, binding in list(self._bound.items()):
            if (
                binding.type is listen_type
                and checked in (None, binding.filter)
                and handler in (None, registration.handler)
            ):
                registration.end()
        return self

    def copy_bindings(self, other: Listening) -> None:
        """Register all handlers of ``other`` here too; raises ``InvalidState`` once subscribed."""
        if self._machine.subscribed_once:
            raise InvalidState("cannot copy bindings into joined channel")
        for registration, binding in other._bound.items():
            self._register(
                binding.type, dict(binding.filter), registration.handler, **registration.options
            )

    def _check_options(self, maxsize: int, overflow: str, types: str | None) -> None:
        if isinstance(maxsize, bool) or not isinstance(maxsize, int) or maxsize < 1:
            raise ValueError(f"maxsize is a number of events, 1 or more, not {maxsize!r}")
        if overflow not in OVERFLOWS:
            raise ValueError(f"overflow is one of {', '.join(OVERFLOWS)}, not {overflow!r}")
        if types is not None:
            check_mode(types)

    def _require_unjoined(self, type: ListenType) -> None:
        if type in FIXED_BY_THE_JOIN and self._machine.state in (JOINED, JOINING):
            raise InvalidState(
                f"cannot add `{type}` callbacks for {self._machine.topic} after `subscribe()`.",
                hint="call on() before subscribe(); the join tells the server what to send",
            )

    def _require_live(self) -> None:
        """Nothing will ever come over a channel that is over; waiting would be for ever."""
        if self._machine.removed and self._machine.rest is None:
            raise InvalidState(
                f"{self._machine.topic} was closed",
                hint=f"make a new one: client.channel({self._machine.sub_topic!r})",
            )

    def _require_bound(self, type: ListenType, filter: dict[str, Any]) -> None:
        """As ``_require_unjoined``, but what the join asked for already may be heard again."""
        if type is ListenType.PRESENCE and (
            self._machine.reception.listens_to_presence or self._machine.config.presence_enabled
        ):
            return
        if type is ListenType.POSTGRES_CHANGES and any(
            binding.type is type and binding.filter == filter for binding in self._bound.values()
        ):
            return
        self._require_unjoined(type)

    def _register(
        self, type: ListenType, filter: dict[str, Any], handler: Callable[..., Any], **options: Any
    ) -> Registration:
        registration = Registration(
            handler,
            self._core.dispatch,
            source=self._machine.topic,
            on_end=self._unregister,
            **options,
        )
        binding = self._machine.bindings.add(type, filter)
        self._bound[registration] = binding
        self._emitter.attach(binding.id, registration)
        return registration

    def _unregister(self, registration: Registration) -> None:
        binding = self._bound.pop(registration, None)
        if binding is not None:
            self._machine.bindings.remove(binding.id)
            self._emitter.detach(binding.id, registration)

    # -- iterating and waiting -----------------------------------------------------------

    def stream(self, type: str, filter: Any, maxsize: int = 1000) -> Stream[Any]:
        """The same events as an async iterator, from this call on. See ``on``.

        At most ``maxsize`` events wait; then the oldest goes, counted and told by ``gap``. Ends
        when the channel is closed. Raises as ``on``, except that what is bound already may be
        streamed while joined.
        """
        listen_type = check_listen_type(type)
        checked = check_filter(listen_type, filter)
        self._check_options(maxsize, "drop_oldest", None)
        self._require_live()
        self._require_bound(listen_type, checked)
        found: Stream[Any] = Stream(self._core.dispatch, self._machine.topic, maxsize)
        registration = self._register(
            listen_type, checked, weak_handler(found), types=self._core.types
        )
        found._attach(registration)
        self._streams.add(found)
        if self._machine.rest is not None:
            found._end(self._machine.rest)
        return found

    def wait_for(
        self,
        type: str,
        filter: Any,
        check: Callable[[Any], Any] | None = None,
        timeout: float | None = None,
    ) -> Outcome[Any]:
        """The next event that fits and passes ``check``, from this call on; await the result.

        ``timeout`` in seconds, None to wait for ever. Raises as ``stream`` at the call; when
        awaited ``TimedOut``, what ``check`` raised, or the error that ended the channel.
        """
        listen_type = check_listen_type(type)
        checked = check_filter(listen_type, filter)
        seconds = None if timeout is None else check_seconds("timeout", timeout)
        self._require_live()
        self._require_bound(listen_type, checked)
        self._core.connection.enter_loop(required="wait_for")
        outcome = _Wait()
        outcome.registration = self._register(
            listen_type, checked, wait_for_event(outcome, check), types=self._core.types
        )
        self._waits.add(outcome)
        if seconds is not None:
            error = TimedOut(f"no such {listen_type} event within {seconds:g} s")
            loop = asyncio.get_running_loop()
            outcome.timer = loop.call_later(seconds, _fail, weakref.ref(outcome), error)
        if self._machine.rest is not None:
            outcome.fail(self._machine.rest)
        return outcome

    def _end_listening(self, error: BaseException | None) -> None:
        """The channel is over, or rests with an error: iterators and waits end with it."""
        for stream in list(self._streams):
            stream._end(error)
        reason = error or InvalidState(f"{self._machine.topic} was closed")
        for outcome in list(self._waits):
            outcome.fail(reason)

    def _stop_workers(self) -> None:
        for registration in self._emitter.registrations():
            registration.stop()

    # -- telling -------------------------------------------------------------------------

    def _deliver_presence(self, event: PresenceDelivered) -> None:
        self._presence_view = event.state
        try:
            self._emitter.deliver(event.ids, event.payload)
        finally:
            self._presence_view = None


class _Wait(Outcome[Any]):
    """An outcome that lets go of its registration when it is settled, or dropped.

    The channel holds it weakly, as a stream: an await that is cancelled drops it without a word.
    """

    __slots__ = ("registration", "timer")

    def __init__(self) -> None:
        super().__init__()
        self.registration: Registration | None = None
        self.timer: asyncio.TimerHandle | None = None

    def _wake(self) -> None:
        super()._wake()
        self._release()

    def _release(self) -> None:
        if self.registration is not None:
            self.registration.end()
        if self.timer is not None:
            self.timer.cancel()

    def __del__(self) -> None:
        self._release()


def _fail(wait: weakref.ref[_Wait], error: BaseException) -> None:
    outcome = wait()
    if outcome is not None:
        outcome.fail(error)

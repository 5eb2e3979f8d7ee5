"""Who listens to what on one channel: registrations over one emitter, and when they are allowed."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Final

from .._backfill.backfill_runner import BackfillRunner, backfill_handler
from .._backfill.options import Backfill
from .._handlers.concurrent_runner import concurrent_handler
from .._handlers.event_stream import Stream
from .._handlers.handler import Handler
from .._handlers.listener_table import ListenerTable
from .._handlers.queue_bounds import OVERFLOWS
from .._handlers.runners import new_handler
from .._handlers.signatures import check_asked
from .._payloads.models.dataclass_models import model_of
from .._payloads.row_conversion import check_mode
from .._protocol.channel.bindings import Binding
from .._protocol.channel.channel_machine import ChannelMachine
from .._protocol.channel.channel_states import JOINED, JOINING
from .._protocol.channel_options import MAXBYTES
from .._protocol.events import EventListener, PresenceDelivered
from .._runtime.outcome import Outcome
from ..enums import ListenType
from ..errors import InvalidState
from .parts import Core

__all__ = ["Registry"]

FIXED_BY_THE_JOIN: Final = (ListenType.PRESENCE, ListenType.POSTGRES_CHANGES)
"""What the join payload says; a later wish would not reach the server."""


class Registry:
    """The registrations of one channel."""

    _core: Core
    _machine: ChannelMachine

    def _init_listening(self) -> None:
        self._emitter = ListenerTable()
        self._bound: dict[Handler, Binding] = {}
        self._presence_view: Any = None

    # Made when first used, because most channels have neither and a WeakSet takes 800 bytes.

    @functools.cached_property
    def _streams(self) -> weakref.WeakSet[Stream[Any]]:
        return weakref.WeakSet()

    @functools.cached_property
    def _waits(self) -> weakref.WeakSet[Outcome[Any]]:
        return weakref.WeakSet()

    def _check_options(
        self, maxsize: int, overflow: str, types: str | None, maxbytes: int = MAXBYTES
    ) -> None:
        if isinstance(maxsize, bool) or not isinstance(maxsize, int) or maxsize < 1:
            raise ValueError(f"maxsize is a number of events, 1 or more, not {maxsize!r}")
        if isinstance(maxbytes, bool) or not isinstance(maxbytes, int) or maxbytes < 1:
            raise ValueError(f"maxbytes is a number of bytes, 1 or more, not {maxbytes!r}")
        if overflow not in OVERFLOWS:
            raise ValueError(f"overflow is one of {', '.join(OVERFLOWS)}, not {overflow!r}")
        if types is not None:
            check_mode(types)

    def _reading(self, type: ListenType, types: str | None, model: Any) -> Any:
        """How rows are read: a mode by its name, or the converter of a dataclass."""
        if model is None:
            return types or self._core.types
        if type is not ListenType.POSTGRES_CHANGES:
            raise ValueError(f"model= is for the rows of postgres_changes, not for {str(type)!r}")
        if types is not None:
            raise ValueError("give types= or model=: the fields of a model say how to convert")
        return model_of(model)

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
    ) -> Handler:
        backfill = options.pop("backfill", None)
        concurrency, key = options.pop("concurrency", 1), options.pop("key", None)
        options["on_end"] = self._unregister
        topic, core = self._machine.topic, self._core
        registration: Handler
        if concurrency > 1:
            options |= {"concurrency": concurrency, "key": key}
            registration = concurrent_handler(handler, core.dispatch, source=topic, **options)
        elif backfill is None:
            registration = new_handler(handler, core.dispatch, source=topic, **options)
        else:
            taken = [other.store_name for other in self._catchups()]
            registration = backfill_handler(
                core.dispatch, core.tables, topic, filter, handler, backfill, taken, **options
            )
        binding = self._machine.bindings.add(type, filter)
        self._bound[registration] = binding
        self._emitter.attach(binding.id, registration)
        runner = registration.runner
        if isinstance(runner, BackfillRunner) and self._machine.reception.ready:
            runner.changes_started()
        return registration

    def _check_concurrency(self, concurrency: Any, key: Any, backfill: Any) -> None:
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise ValueError(f"concurrency is a number of events, 1 or more, not {concurrency!r}")
        if key is not None:
            check_asked("key", key)
        if concurrency > 1 and backfill is not None:
            raise ValueError(
                "with backfill= each event is recorded before the next one is handled; "
                "leave concurrency= out"
            )

    def _check_backfill(self, type: ListenType, filter: dict[str, Any], backfill: Any) -> None:
        if backfill is None:
            return
        if not isinstance(backfill, Backfill):
            found = backfill.__class__.__name__
            raise TypeError(f"backfill is a Backfill, such as Backfill('id'), not {found}")
        if type is not ListenType.POSTGRES_CHANGES:
            raise ValueError(f"backfill= is for postgres_changes, not for {str(type)!r}")
        backfill.page(filter)

    # -- what was missed -----------------------------------------------------------------

    def _catchups(self) -> list[BackfillRunner]:
        """The runners that read what they missed."""
        runners = [handler.runner for handler in self._bound]
        return [runner for runner in runners if isinstance(runner, BackfillRunner)]

    def _feed_up(self) -> None:
        for registration in self._catchups():
            registration.changes_started()

    def _feed_lost(self) -> None:
        for registration in self._catchups():
            registration.changes_interrupted()

    def _feed_over(self) -> None:
        for registration in self._catchups():
            registration.channel_closed()

    def _unregister(self, registration: Handler) -> None:
        binding = self._bound.pop(registration, None)
        if binding is not None:
            self._machine.bindings.remove(binding.id)
            self._emitter.detach(binding.id, registration)

    def _stop_workers(self) -> None:
        for registration in self._emitter.handlers():
            registration.runner.stop()

    def _rewrap(self) -> None:
        """The client has another middleware."""
        for registration in self._bound:
            registration.rewrap()

    # -- telling -------------------------------------------------------------------------

    def listener_for(self, ids: tuple[int, ...], *, of_changes: bool = False) -> EventListener:
        return self._emitter.listener_for(ids, of_changes=of_changes)

    def deliver(self, ids: tuple[int, ...], payload: Any) -> None:
        self._emitter.deliver(ids, payload)

    def presence_changed(self, event: PresenceDelivered) -> None:
        self._presence_view = event.state
        try:
            self._emitter.deliver(event.ids, event.payload)
        finally:
            self._presence_view = None

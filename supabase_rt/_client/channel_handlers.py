"""The handlers of one channel: which there are, and when a new one is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .._backfill.backfill_runner import BackfillRunner, backfill_handler
from .._backfill.options import Backfill
from .._handlers.concurrent_runner import concurrent_handler
from .._handlers.handler import Handler
from .._handlers.listener_table import ListenerTable
from .._handlers.pending_decorator import Decorator
from .._handlers.queue_bounds import OVERFLOWS
from .._handlers.runners import new_handler
from .._handlers.signatures import check_asked
from .._payloads.models import converter_for
from .._payloads.row_conversion import check_mode
from .._protocol.changes_filter import PostgresChangesFilter
from .._protocol.channel.bindings import Binding
from .._protocol.channel.channel_machine import ChannelMachine
from .._protocol.channel.channel_states import JOINED, JOINING
from .._protocol.channel_options import MAXBYTES, check_filter, check_listen_type
from .._protocol.events import PresenceDelivered
from ..enums import ListenType
from ..errors import InvalidState
from .parts import ClientParts

__all__ = ["ChannelHandlers", "check_queue"]

FIXED_BY_THE_JOIN: Final = (ListenType.PRESENCE, ListenType.POSTGRES_CHANGES)
"""Listen types that the join asks for; the server does not hear of a later wish."""


def check_queue(maxsize: Any, overflow: Any = "drop_oldest", maxbytes: Any = MAXBYTES) -> None:
    """Raises ``ValueError`` for options that no queue can have."""
    if isinstance(maxsize, bool) or not isinstance(maxsize, int) or maxsize < 1:
        raise ValueError(f"maxsize is a number of events, 1 or more, not {maxsize!r}")
    if isinstance(maxbytes, bool) or not isinstance(maxbytes, int) or maxbytes < 1:
        raise ValueError(f"maxbytes is a number of bytes, 1 or more, not {maxbytes!r}")
    if overflow not in OVERFLOWS:
        raise ValueError(f"overflow is one of {', '.join(OVERFLOWS)}, not {overflow!r}")


def _check_concurrency(concurrency: Any, key: Any, backfill: Any) -> None:
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ValueError(f"concurrency is a number of events, 1 or more, not {concurrency!r}")
    if key is not None:
        check_asked("key", key)
    if concurrency > 1 and backfill is not None:
        raise ValueError(
            "with backfill= each event is recorded before the next one is handled; "
            "leave concurrency= out"
        )


class ChannelHandlers:
    """The handlers of one channel, each with the binding it listens to.

    ``listeners`` finds and calls the handlers of a binding. ``bound`` has all of them in the order
    of registration, including those of streams and ``wait_for``.
    """

    __slots__ = ("_machine", "_parts", "_presence_view", "bound", "listeners")

    def __init__(self, parts: ClientParts, machine: ChannelMachine) -> None:
        self._parts = parts
        self._machine = machine
        self._presence_view: Any = None
        self.listeners: ListenerTable = ListenerTable()
        self.bound: dict[Handler, Binding] = {}

    # -- on, once, off -------------------------------------------------------------------

    def on(
        self,
        type: str,
        filter: Any,
        handler: Callable[..., Any] | None,
        *,
        types: str | None,
        model: Any,
        maxsize: int,
        overflow: str,
        maxbytes: int,
        concurrency: int,
        key: Any,
        backfill: Backfill | None,
        **options: Any,
    ) -> Decorator | None:
        """Registers ``handler``, or returns a decorator that registers one."""
        listen_type = check_listen_type(type)
        checked = check_filter(listen_type, filter)
        check_queue(maxsize, overflow, maxbytes)
        conversion = self.conversion_for(listen_type, types, model)
        self.check_backfill(listen_type, checked, backfill, filter)
        _check_concurrency(concurrency, key, backfill)
        return self._register_user_handler(
            "on",
            listen_type,
            checked,
            handler,
            types=conversion,
            maxsize=maxsize,
            overflow=overflow,
            maxbytes=maxbytes,
            concurrency=concurrency,
            key=key,
            backfill=backfill,
            **options,
        )

    def once(
        self,
        type: str,
        filter: Any,
        handler: Callable[..., Any] | None,
        *,
        types: str | None,
        model: Any,
        **options: Any,
    ) -> Decorator | None:
        """Registers ``handler`` for one event, or returns a decorator that does."""
        listen_type = check_listen_type(type)
        checked = check_filter(listen_type, filter)
        conversion = self.conversion_for(listen_type, types, model)
        return self._register_user_handler(
            "once", listen_type, checked, handler, types=conversion, once=True, **options
        )

    def _register_user_handler(
        self,
        call: str,
        type: ListenType,
        filter: dict[str, Any],
        handler: Callable[..., Any] | None,
        **options: Any,
    ) -> Decorator | None:
        def register(function: Callable[..., Any]) -> None:
            self._require_unjoined(type)
            self.register(type, filter, function, middleware=self._parts.middleware, **options)

        if handler is not None:
            register(handler)
            return None
        # Without this check the error would come only when the decorator is applied.
        self._require_unjoined(type)
        return Decorator(register, call)

    def off(self, type: str, filter: Any, handler: Callable[..., Any] | None) -> None:
        """Removes the handlers of a listen type that also match ``filter`` and ``handler``."""
        listen_type = check_listen_type(type)
        checked = None if filter is None else check_filter(listen_type, filter)
        for registration, binding in list(self.bound.items()):
            if (
                binding.type is listen_type
                and checked in (None, binding.filter)
                and handler in (None, registration.function)
            ):
                registration.end()

    def copy_from(self, other: ChannelHandlers) -> None:
        """Registers all handlers of ``other`` here too."""
        if self._machine.subscribed_once:
            raise InvalidState("cannot copy bindings into joined channel")
        for registration, binding in other.bound.items():
            options = registration.options
            if registration.is_user_handler:
                options["middleware"] = self._parts.middleware
            self.register(binding.type, dict(binding.filter), registration.function, **options)

    # -- checks that streams need as well ------------------------------------------------

    def conversion_for(self, type: ListenType, types: str | None, model: Any) -> Any:
        """Returns the conversion of rows: the name of a mode, or the converter of a model."""
        if types is not None:
            check_mode(types)
        if model is None:
            return types or self._parts.types
        if type is not ListenType.POSTGRES_CHANGES:
            raise ValueError(f"model= is for the rows of postgres_changes, not for {str(type)!r}")
        if types is not None:
            raise ValueError("give types= or model=: the fields of a model say how to convert")
        return converter_for(model)

    def check_backfill(
        self, type: ListenType, filter: Mapping[str, Any], backfill: Any, given: Any
    ) -> None:
        """Raises ``ValueError`` or ``TypeError`` for a backfill that cannot work here.

        ``given`` is the filter as the user passed it, and ``filter`` the checked copy.
        """
        if backfill is None:
            return
        if not isinstance(backfill, Backfill):
            found = backfill.__class__.__name__
            raise TypeError(f"backfill is a Backfill, such as Backfill('id'), not {found}")
        if type is not ListenType.POSTGRES_CHANGES:
            raise ValueError(f"backfill= is for postgres_changes, not for {str(type)!r}")
        backfill.page(filter)
        row_filter = given.get("filter")
        columns = (
            row_filter.columns_of_bytes if isinstance(row_filter, PostgresChangesFilter) else []
        )
        if columns and backfill.fetch is None:
            # Realtime compares hex digits, and PostgREST the bytes: no text means both.
            raise ValueError(
                f"the backfill cannot carry over the bytes of {columns[0]!r}: use fetch=, or "
                "leave the condition out and test the column in the handler"
            )

    def require_open(self) -> None:
        """Raises ``InvalidState`` on a closed channel; a stream there would wait for ever."""
        if self._machine.removed and self._machine.final_error is None:
            raise InvalidState(
                f"{self._machine.topic} was closed",
                hint=f"make a new one: client.channel({self._machine.sub_topic!r})",
            )

    def require_bound(self, type: ListenType, filter: dict[str, Any]) -> None:
        """Raises ``InvalidState`` if the join under way, or done, did not ask for these events."""
        if type is ListenType.PRESENCE and (
            self._machine.inbound.listens_to_presence or self._machine.config.presence_enabled
        ):
            return
        if type is ListenType.POSTGRES_CHANGES and any(
            binding.type is type and binding.filter == filter for binding in self.bound.values()
        ):
            return
        self._require_unjoined(type)

    def _require_unjoined(self, type: ListenType) -> None:
        if type in FIXED_BY_THE_JOIN and self._machine.state in (JOINED, JOINING):
            raise InvalidState(
                f"cannot add `{type}` callbacks for {self._machine.topic} after `subscribe()`.",
                hint="call on() before subscribe(); the join tells the server what to send",
            )

    # -- the registry --------------------------------------------------------------------

    def register(
        self, type: ListenType, filter: dict[str, Any], handler: Callable[..., Any], **options: Any
    ) -> Handler:
        """Registers a handler whose options are checked already."""
        backfill = options.pop("backfill", None)
        concurrency, key = options.pop("concurrency", 1), options.pop("key", None)
        options["on_end"] = self._unregister
        topic, parts = self._machine.topic, self._parts
        registration: Handler
        if concurrency > 1:
            options |= {"concurrency": concurrency, "key": key}
            registration = concurrent_handler(handler, parts.dispatcher, source=topic, **options)
        elif backfill is None:
            registration = new_handler(handler, parts.dispatcher, source=topic, **options)
        else:
            taken = [other.store_name for other in self.backfilled()]
            registration = backfill_handler(
                parts.dispatcher,
                parts.table_access(),
                topic,
                filter,
                handler,
                backfill,
                taken,
                **options,
            )
        binding = self._machine.bindings.add(type, filter)
        self.bound[registration] = binding
        self.listeners.attach(binding.id, registration)
        runner = registration.runner
        if isinstance(runner, BackfillRunner) and self._machine.inbound.ready:
            runner.changes_started()
        return registration

    def _unregister(self, registration: Handler) -> None:
        binding = self.bound.pop(registration, None)
        if binding is not None:
            self._machine.bindings.remove(binding.id)
            self.listeners.detach(binding.id, registration)

    def rewrap(self) -> None:
        """Puts the client's middleware, which has changed, around every handler."""
        for registration in self.bound:
            registration.rewrap()

    def stop_workers(self) -> None:
        """Lets the tasks of the handlers end once their queues are empty."""
        for registration in self.listeners.handlers():
            registration.runner.stop()

    # -- backfills -----------------------------------------------------------------------

    def backfilled(self) -> list[BackfillRunner]:
        """Returns the runners of the handlers that have a backfill."""
        runners = [handler.runner for handler in self.bound]
        return [runner for runner in runners if isinstance(runner, BackfillRunner)]

    def changes_started(self) -> None:
        """Tells the backfills that database changes flow."""
        for runner in self.backfilled():
            runner.changes_started()

    def changes_interrupted(self) -> None:
        """Tells the backfills that database changes may be missed from now on."""
        for runner in self.backfilled():
            runner.changes_interrupted()

    def channel_closed(self) -> None:
        """Tells the backfills that no event follows."""
        for runner in self.backfilled():
            runner.channel_closed()

    # -- presence ------------------------------------------------------------------------

    def deliver_presence(self, event: PresenceDelivered) -> None:
        """Calls the handlers of a presence event, which see the state of that event."""
        self._presence_view = event.state
        try:
            self.listeners.deliver(event.ids, event.payload)
        finally:
            self._presence_view = None

    def presence_state(self) -> dict[str, list[dict[str, Any]]]:
        """Returns a copy of the presence state; during an event, of the state of that event."""
        view = self._presence_view
        found = self._machine.inbound.presence if view is None else view
        state: dict[str, list[dict[str, Any]]] = found.list()
        return state

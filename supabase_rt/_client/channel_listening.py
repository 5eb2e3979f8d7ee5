"""The listening half of a channel: ``on``, ``off``, ``once``.

The overloads tell a type checker what a handler is given, from the listen type and, for presence,
from the event.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, Self, TypeAlias, TypeVar, Unpack, overload

from .._backfill.options import Backfill
from .._handlers.pending_decorator import Decorator
from .._payloads.broadcast import Broadcast
from .._payloads.postgres_change import PostgresChange
from .._payloads.presence_events import PresenceJoin, PresenceLeave, PresenceSync
from .._payloads.system_message import SystemMessage
from .._protocol.channel_options import MAXBYTES, check_filter, check_listen_type
from ..enums import ListenType
from ..errors import InvalidState
from ..types import (
    BroadcastFilter,
    ChangesFilter,
    ListenOptions,
    OnceOptions,
    PresenceFilter,
    PresenceJoinFilter,
    PresenceLeaveFilter,
    PresenceSyncFilter,
    SystemFilter,
)
from .channel_handlers import Registry

__all__ = ["AnyPresence", "Broadcasts", "Changes", "Filter", "Listening", "Presences", "Systems"]

Changes: TypeAlias = Literal["postgres_changes", ListenType.POSTGRES_CHANGES]
Broadcasts: TypeAlias = Literal["broadcast", ListenType.BROADCAST]
Presences: TypeAlias = Literal["presence", ListenType.PRESENCE]
Systems: TypeAlias = Literal["system", ListenType.SYSTEM]
Filter: TypeAlias = Mapping[str, Any]
"""A dict from a variable, whose values a type checker does not know."""
AnyPresence: TypeAlias = PresenceSync | PresenceJoin | PresenceLeave

Row = TypeVar("Row")
Handler = TypeVar("Handler", bound=Callable[..., Any])

# What a decorator is put on; the function comes back with the type it has.
Nothing: TypeAlias = Callable[[], Any]
OnChange = TypeVar("OnChange", bound=Callable[[PostgresChange[Any]], Any] | Nothing)
OnBroadcast = TypeVar("OnBroadcast", bound=Callable[[Broadcast], Any] | Nothing)
OnSync = TypeVar("OnSync", bound=Callable[[PresenceSync], Any] | Nothing)
OnJoin = TypeVar("OnJoin", bound=Callable[[PresenceJoin], Any] | Nothing)
OnLeave = TypeVar("OnLeave", bound=Callable[[PresenceLeave], Any] | Nothing)
OnPresence = TypeVar("OnPresence", bound=Callable[[AnyPresence], Any] | Nothing)
OnSystem = TypeVar("OnSystem", bound=Callable[[SystemMessage], Any] | Nothing)


class Listening(Registry):
    """Handlers of one channel."""

    @overload
    def on(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        handler: Callable[[PostgresChange[Row]], Any],
        *,
        model: builtins.type[Row],
        **options: Unpack[ListenOptions],
    ) -> Self: ...

    @overload
    def on(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        handler: Callable[[PostgresChange[dict[str, Any]]], Any],
        **options: Unpack[ListenOptions],
    ) -> Self: ...

    @overload
    def on(
        self,
        type: Broadcasts,
        filter: BroadcastFilter | Filter,
        handler: Callable[[Broadcast], Any],
        **options: Unpack[ListenOptions],
    ) -> Self: ...

    @overload
    def on(
        self,
        type: Presences,
        filter: PresenceSyncFilter,
        handler: Callable[[PresenceSync], Any],
        **options: Unpack[ListenOptions],
    ) -> Self: ...

    @overload
    def on(
        self,
        type: Presences,
        filter: PresenceJoinFilter,
        handler: Callable[[PresenceJoin], Any],
        **options: Unpack[ListenOptions],
    ) -> Self: ...

    @overload
    def on(
        self,
        type: Presences,
        filter: PresenceLeaveFilter,
        handler: Callable[[PresenceLeave], Any],
        **options: Unpack[ListenOptions],
    ) -> Self: ...

    @overload
    def on(
        self,
        type: Presences,
        filter: PresenceFilter | Filter,
        handler: Callable[[AnyPresence], Any],
        **options: Unpack[ListenOptions],
    ) -> Self: ...

    @overload
    def on(
        self,
        type: Systems,
        filter: SystemFilter | Filter | None,
        handler: Callable[[SystemMessage], Any],
        **options: Unpack[ListenOptions],
    ) -> Self: ...

    @overload
    def on(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        handler: Callable[[], Any],
        *,
        model: builtins.type[Any] | None = ...,
        **options: Unpack[ListenOptions],
    ) -> Self: ...

    @overload
    def on(
        self,
        type: Broadcasts | Presences | Systems,
        filter: BroadcastFilter | PresenceFilter | SystemFilter | Filter | None,
        handler: Callable[[], Any],
        **options: Unpack[ListenOptions],
    ) -> Self: ...

    @overload
    def on(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        handler: None = None,
        *,
        model: builtins.type[Any] | None = ...,
        **options: Unpack[ListenOptions],
    ) -> Callable[[OnChange], OnChange]: ...

    @overload
    def on(
        self,
        type: Broadcasts,
        filter: BroadcastFilter | Filter,
        handler: None = None,
        **options: Unpack[ListenOptions],
    ) -> Callable[[OnBroadcast], OnBroadcast]: ...

    @overload
    def on(
        self,
        type: Presences,
        filter: PresenceSyncFilter,
        handler: None = None,
        **options: Unpack[ListenOptions],
    ) -> Callable[[OnSync], OnSync]: ...

    @overload
    def on(
        self,
        type: Presences,
        filter: PresenceJoinFilter,
        handler: None = None,
        **options: Unpack[ListenOptions],
    ) -> Callable[[OnJoin], OnJoin]: ...

    @overload
    def on(
        self,
        type: Presences,
        filter: PresenceLeaveFilter,
        handler: None = None,
        **options: Unpack[ListenOptions],
    ) -> Callable[[OnLeave], OnLeave]: ...

    @overload
    def on(
        self,
        type: Presences,
        filter: PresenceFilter | Filter,
        handler: None = None,
        **options: Unpack[ListenOptions],
    ) -> Callable[[OnPresence], OnPresence]: ...

    @overload
    def on(
        self,
        type: Systems,
        filter: SystemFilter | Filter | None,
        handler: None = None,
        **options: Unpack[ListenOptions],
    ) -> Callable[[OnSystem], OnSystem]: ...

    def on(
        self,
        type: str,
        filter: Any,
        handler: Callable[..., Any] | None = None,
        *,
        maxsize: int = 1000,
        overflow: str = "drop_oldest",
        types: str | None = None,
        model: builtins.type[Any] | None = None,
        thread: bool = False,
        backfill: Backfill | None = None,
        concurrency: int = 1,
        key: Callable[[Any], Hashable] | None = None,
        maxbytes: int = MAXBYTES,
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
            model: a dataclass that ``new`` and ``old`` become instances of, instead of dicts.
                A row that does not fit raises where it is read.
            thread: run a plain function in a worker thread instead of on the event loop.
            backfill: for postgres_changes: read from the table what was missed, see ``Backfill``.
            concurrency: how many events an ``async`` or ``thread`` handler is called for at
                once. More than one gives up their order, but see ``key``.
            key: event to anything hashable: those of one key come in order, one at a time.
            maxbytes: how large the frames of the events that wait may be in sum; ``overflow``
                says what goes then.

        Raises:
            ValueError: an unknown type, event, key or option.
            TypeError: a handler that cannot be called with one argument.
            InvalidState: presence or postgres_changes on a channel that is joined or joining.
        """
        listen_type = check_listen_type(type)
        checked = check_filter(listen_type, filter)
        self._check_options(maxsize, overflow, types, maxbytes)
        reading = self._reading(listen_type, types, model)
        self._check_backfill(listen_type, checked, backfill)
        self._check_concurrency(concurrency, key, backfill)
        return self._listen(
            "on",
            listen_type,
            checked,
            handler,
            maxsize=maxsize,
            maxbytes=maxbytes,
            overflow=overflow,
            types=reading,
            thread=thread,
            backfill=backfill,
            concurrency=concurrency,
            key=key,
        )

    @overload
    def once(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        handler: Callable[[PostgresChange[Row]], Any],
        *,
        model: builtins.type[Row],
        **options: Unpack[OnceOptions],
    ) -> Self: ...

    @overload
    def once(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        handler: Callable[[PostgresChange[dict[str, Any]]], Any],
        **options: Unpack[OnceOptions],
    ) -> Self: ...

    @overload
    def once(
        self,
        type: Broadcasts,
        filter: BroadcastFilter | Filter,
        handler: Callable[[Broadcast], Any],
        **options: Unpack[OnceOptions],
    ) -> Self: ...

    @overload
    def once(
        self,
        type: Presences,
        filter: PresenceSyncFilter,
        handler: Callable[[PresenceSync], Any],
        **options: Unpack[OnceOptions],
    ) -> Self: ...

    @overload
    def once(
        self,
        type: Presences,
        filter: PresenceJoinFilter,
        handler: Callable[[PresenceJoin], Any],
        **options: Unpack[OnceOptions],
    ) -> Self: ...

    @overload
    def once(
        self,
        type: Presences,
        filter: PresenceLeaveFilter,
        handler: Callable[[PresenceLeave], Any],
        **options: Unpack[OnceOptions],
    ) -> Self: ...

    @overload
    def once(
        self,
        type: Presences,
        filter: PresenceFilter | Filter,
        handler: Callable[[AnyPresence], Any],
        **options: Unpack[OnceOptions],
    ) -> Self: ...

    @overload
    def once(
        self,
        type: Systems,
        filter: SystemFilter | Filter | None,
        handler: Callable[[SystemMessage], Any],
        **options: Unpack[OnceOptions],
    ) -> Self: ...

    @overload
    def once(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        handler: Callable[[], Any],
        *,
        model: builtins.type[Any] | None = ...,
        **options: Unpack[OnceOptions],
    ) -> Self: ...

    @overload
    def once(
        self,
        type: Broadcasts | Presences | Systems,
        filter: BroadcastFilter | PresenceFilter | SystemFilter | Filter | None,
        handler: Callable[[], Any],
        **options: Unpack[OnceOptions],
    ) -> Self: ...

    @overload
    def once(
        self,
        type: Changes | Broadcasts | Presences | Systems,
        filter: Filter | None,
        handler: None = None,
        *,
        model: builtins.type[Any] | None = ...,
        **options: Unpack[OnceOptions],
    ) -> Callable[[Handler], Handler]: ...

    def once(
        self,
        type: str,
        filter: Any,
        handler: Callable[..., Any] | None = None,
        *,
        types: str | None = None,
        model: builtins.type[Any] | None = None,
        thread: bool = False,
    ) -> Any:
        """Call ``handler`` for the first event that fits, then never again. See ``on``."""
        listen_type = check_listen_type(type)
        checked = check_filter(listen_type, filter)
        self._check_options(1, "drop_oldest", types)
        reading = self._reading(listen_type, types, model)
        return self._listen(
            "once", listen_type, checked, handler, types=reading, thread=thread, once=True
        )

    def _listen(
        self,
        call: str,
        type: ListenType,
        filter: dict[str, Any],
        handler: Callable[..., Any] | None,
        **options: Any,
    ) -> Any:
        """Register ``handler``, or return what registers one."""

        def register(function: Callable[..., Any]) -> None:
            self._require_unjoined(type)
            self._register(type, filter, function, middleware=self._core.middleware, **options)

        if handler is not None:
            register(handler)
            return self
        # Else heard of only when the decorator is applied.
        self._require_unjoined(type)
        return Decorator(register, call)

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
                and handler in (None, registration.function)
            ):
                registration.end()
        return self

    def copy_bindings(self, other: Listening) -> None:
        """Register all handlers of ``other`` here too; raises ``InvalidState`` once subscribed."""
        if self._machine.subscribed_once:
            raise InvalidState("cannot copy bindings into joined channel")
        for registration, binding in other._bound.items():
            options = registration.options
            if registration.is_user_handler:
                options["middleware"] = self._core.middleware
            self._register(binding.type, dict(binding.filter), registration.function, **options)

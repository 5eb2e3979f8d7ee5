"""The public channel: every method a user calls, each handed on to the part that does the work."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    Unpack,
    overload,
)

from .._backfill.options import Backfill
from .._handlers.event_stream import Stream
from .._name_hints import no_attribute
from .._payloads.broadcast import Broadcast
from .._payloads.postgres_change import PostgresChange
from .._payloads.presence_events import PresenceJoin, PresenceLeave, PresenceSync
from .._payloads.system_message import SystemMessage
from .._protocol.changes_filter import PostgresChangesFilter
from .._protocol.channel.channel_machine import ChannelMachine
from .._protocol.channel_options import MAXBYTES, ChannelConfig
from .._runtime.outcome import Outcome
from .._wire.json_codec import dumps
from .._wire.serializer import MAX_FRAME, is_too_large
from ..enums import ChannelState, ListenType, PostgresChangesEvent, PresenceEvent
from ..types import (
    BroadcastFilter,
    BroadcastMessage,
    ChangesFilter,
    ListenOptions,
    OnceOptions,
    PersistOptions,
    PresenceFilter,
    PresenceJoinFilter,
    PresenceLeaveFilter,
    PresenceSyncFilter,
    SendOptions,
    SystemFilter,
    TypesMode,
)
from .channel_handlers import ChannelHandlers
from .channel_sender import ChannelSender
from .channel_streams import ChannelStreams
from .channel_subscription import ChannelSubscription
from .parts import ClientParts
from .realtime_py_compat import spread

__all__ = ["RealtimeChannel"]


Changes: TypeAlias = Literal["postgres_changes", ListenType.POSTGRES_CHANGES]
Broadcasts: TypeAlias = Literal["broadcast", ListenType.BROADCAST]
Presences: TypeAlias = Literal["presence", ListenType.PRESENCE]
Systems: TypeAlias = Literal["system", ListenType.SYSTEM]
Filter: TypeAlias = Mapping[str, Any]
"""A filter from a variable, whose values a type checker does not know."""
AnyPresence: TypeAlias = PresenceSync | PresenceJoin | PresenceLeave

Row = TypeVar("Row")
Handler = TypeVar("Handler", bound=Callable[..., Any])

# The functions that a decorator accepts; it returns them with the type they have.
Nothing: TypeAlias = Callable[[], Any]
OnChange = TypeVar("OnChange", bound=Callable[[PostgresChange[Any]], Any] | Nothing)
OnBroadcast = TypeVar("OnBroadcast", bound=Callable[[Broadcast], Any] | Nothing)
OnSync = TypeVar("OnSync", bound=Callable[[PresenceSync], Any] | Nothing)
OnJoin = TypeVar("OnJoin", bound=Callable[[PresenceJoin], Any] | Nothing)
OnLeave = TypeVar("OnLeave", bound=Callable[[PresenceLeave], Any] | Nothing)
OnPresence = TypeVar("OnPresence", bound=Callable[[AnyPresence], Any] | Nothing)
OnSystem = TypeVar("OnSystem", bound=Callable[[SystemMessage], Any] | Nothing)

PresenceEntries = list[dict[str, Any]]


class _Client(Protocol):
    """The one attribute that a channel reads of its client."""

    @property
    def __client_parts__(self) -> ClientParts: ...


class RealtimeChannel:
    """One topic of one client: made by ``client.channel(topic, opts)``.

    Made by hand it takes the full topic (``realtime:room``) and enters the client's list when
    it is subscribed.

    Args:
        topic: the topic on the wire.
        params: ``{"config": {...}}``, see ``client.channel``.
        client: the ``RealtimeClient``.
    """

    # An instance has a __dict__ for the attributes of users; it stays empty for all others.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_handlers",
        "_machine",
        "_parts",
        "_sender",
        "_streams",
        "_subscription",
    )

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
        self._parts = parts = client.__client_parts__
        if _machine is None:
            config = ChannelConfig.build(params, topic)
            _machine = ChannelMachine(topic, config, parts.client_machine.context)
        self._machine = _machine
        self._handlers = ChannelHandlers(parts, _machine)
        self._streams = ChannelStreams(parts, _machine, self._handlers)
        self._sender = ChannelSender(parts, _machine)
        self._subscription = ChannelSubscription(
            parts, _machine, self._handlers, self._streams, self
        )
        _machine.owner = self._subscription

    # -- properties ----------------------------------------------------------------------

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
        """The state of the channel: closed, joining, joined, leaving or errored."""
        return self._machine.state

    @property
    def params(self) -> dict[str, Any]:
        """The options in their merged form, ``{"config": {...}}``."""
        return self._machine.config.params

    @property
    def joined_once(self) -> bool:
        """True once ``subscribe`` was called."""
        return self._machine.subscribed_once

    @property
    def private(self) -> bool:
        """True if the policies on ``realtime.messages`` decide who may read and write."""
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
        """The URL that broadcasts are posted to while the channel is not joined."""
        return self._parts.http_client.endpoint.http_url

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

    # -- joining and leaving -------------------------------------------------------------

    def subscribe(
        self, callback: Callable[..., Any] | None = None, timeout: float | None = None
    ) -> Self:
        """Joins the channel, connecting if need be; returns the channel, which is awaitable.

        ``callback(status, error)`` is called for the whole life of the channel. It takes one or two
        arguments and is plain or ``async``. The callback is told ``SUBSCRIBED`` after every join
        and ``CHANNEL_ERROR`` with an exception after every loss or refusal. Its other statuses are
        ``TIMED_OUT`` and ``CLOSED``.

        Awaited, it returns the channel once joined. It raises ``Refused``, ``BindingMismatch``,
        or ``SubscribeError`` if the channel was closed meanwhile. After ``timeout`` seconds (the
        client's by default) it raises ``TimedOut``, whose cause is the last error of the
        connection. An exception does not unsubscribe.

        On a channel that is joined or joining nothing happens, and ``callback`` is ignored.
        Raises ``InvalidState`` on a channel that was closed: make a new one.

        See docs/protocol.md#joins.
        """
        self._subscription.subscribe(callback, timeout)
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        yield from self._subscription.wait_joined().__await__()
        return self

    async def ready(self, timeout: float | None = None) -> None:
        """Waits until database changes flow: the server said "Subscribed to PostgreSQL".

        A channel without postgres_changes is ready when it is joined. One with a backfill is
        ready when the backfill also knows its start. ``timeout`` is in seconds, the client's by
        default. Raises ``TimedOut``, the reason why the server cannot deliver changes
        (``SubscribeError``), or what awaiting ``subscribe`` raises.

        See docs/protocol.md#from-join-to-live.
        """
        await self._subscription.wait_ready(timeout)

    def unsubscribe(self, timeout: float | None = None) -> Outcome[str]:
        """Leaves the channel; starts at the call, and the topic is free from then on.

        The result is ``"ok"``, ``"timed out"`` if the server did not answer within ``timeout``
        seconds (the client's by default), or ``"error"``. The channel is closed in each case.
        Raises ``RuntimeError`` if no event loop runs.

        See docs/protocol.md#leaves.
        """
        return self._subscription.unsubscribe(timeout)

    def teardown(self) -> None:
        """Closes the channel without a message to the server. Pending sends end ``"error"``."""
        self._subscription.teardown()

    def update_join_payload(self, payload: Mapping[str, Any]) -> None:
        """Merges ``payload`` into the payload of the next join or rejoin, over our own keys.

        Raises ``ValueError`` or ``TypeError`` for a payload that no join could carry.
        """
        extra = {**self._machine.join_payload_extra, **payload}
        if self._parts.snapshots and is_too_large(dumps(extra)):
            raise ValueError(f"a join is at most {MAX_FRAME:,} bytes")
        self._machine.join_payload_extra.update(payload)

    # -- handlers ------------------------------------------------------------------------

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
        """Calls ``handler`` for every event that fits; returns the channel for chaining.

        Without ``handler`` it is a decorator. The handler takes one argument (the payload) or
        none, and is a plain or an ``async`` function. Its events come in order, one at a time.

        Args:
            type: ``"postgres_changes"``, ``"broadcast"``, ``"presence"`` or ``"system"``.
            filter: ``{"event": ...}``; for postgres_changes also ``schema``, ``table``,
                ``filter`` (text or a ``postgres_changes_filter()``) and ``select``.
            maxsize: how many events may wait for an ``async`` or ``thread`` handler.
            overflow: what happens when the queue is full: ``"drop_oldest"``, ``"drop_newest"``,
                or ``"close"``, which ends the registration with an error.
            types: how columns are converted: ``"js"``, ``"python"`` or ``"raw"``; the client's
                choice by default.
            model: a dataclass that ``new`` and ``old`` become instances of, instead of dicts.
                A row that does not fit raises where it is read.
            thread: run a plain function in a worker thread instead of on the event loop.
            backfill: for postgres_changes: read missed rows from the table, see ``Backfill``.
            concurrency: how many events an ``async`` or ``thread`` handler is called for at
                once. More than one gives up their order, but see ``key``.
            key: a function from an event to something hashable. Events of one key come in order,
                one at a time.
            maxbytes: how many bytes the frames of the waiting events may have in sum; beyond it
                ``overflow`` decides.

        Raises:
            ValueError: an unknown type, event, key or option.
            TypeError: a handler that cannot be called with one argument.
            InvalidState: presence or postgres_changes on a channel that is joined or joining.
        """
        decorator = self._handlers.on(
            type,
            filter,
            handler,
            types=types,
            model=model,
            maxsize=maxsize,
            overflow=overflow,
            maxbytes=maxbytes,
            concurrency=concurrency,
            key=key,
            backfill=backfill,
            thread=thread,
        )
        return self if decorator is None else decorator

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
        """Calls ``handler`` for the first event that fits, then never again. See ``on``."""
        decorator = self._handlers.once(
            type, filter, handler, types=types, model=model, thread=thread
        )
        return self if decorator is None else decorator

    def off(self, type: str, filter: Any = None, handler: Callable[..., Any] | None = None) -> Self:
        """Removes handlers: all of a type, those of one filter of it, or one function.

        Events that wait for a removed handler are still handled. Raises ``ValueError`` as ``on``.
        """
        self._handlers.off(type, filter, handler)
        return self

    def copy_bindings(self, other: RealtimeChannel) -> None:
        """Registers all handlers of ``other`` here too.

        Raises ``InvalidState`` if this channel was subscribed.
        """
        self._handlers.copy_from(other._handlers)

    # -- streams -------------------------------------------------------------------------

    @overload
    def stream(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        maxsize: int = ...,
        *,
        model: builtins.type[Row],
        backfill: Backfill | None = ...,
        maxbytes: int = ...,
    ) -> Stream[PostgresChange[Row]]: ...

    @overload
    def stream(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        maxsize: int = ...,
        *,
        types: TypesMode | None = ...,
        backfill: Backfill | None = ...,
        maxbytes: int = ...,
    ) -> Stream[PostgresChange[dict[str, Any]]]: ...

    @overload
    def stream(
        self,
        type: Broadcasts,
        filter: BroadcastFilter | Filter,
        maxsize: int = ...,
        *,
        maxbytes: int = ...,
    ) -> Stream[Broadcast]: ...

    @overload
    def stream(
        self,
        type: Presences,
        filter: PresenceSyncFilter,
        maxsize: int = ...,
        *,
        maxbytes: int = ...,
    ) -> Stream[PresenceSync]: ...

    @overload
    def stream(
        self,
        type: Presences,
        filter: PresenceJoinFilter,
        maxsize: int = ...,
        *,
        maxbytes: int = ...,
    ) -> Stream[PresenceJoin]: ...

    @overload
    def stream(
        self,
        type: Presences,
        filter: PresenceLeaveFilter,
        maxsize: int = ...,
        *,
        maxbytes: int = ...,
    ) -> Stream[PresenceLeave]: ...

    @overload
    def stream(
        self,
        type: Presences,
        filter: PresenceFilter | Filter,
        maxsize: int = ...,
        *,
        maxbytes: int = ...,
    ) -> Stream[AnyPresence]: ...

    @overload
    def stream(
        self,
        type: Systems,
        filter: SystemFilter | Filter | None,
        maxsize: int = ...,
        *,
        maxbytes: int = ...,
    ) -> Stream[SystemMessage]: ...

    def stream(
        self,
        type: str,
        filter: Any,
        maxsize: int = 1000,
        *,
        types: str | None = None,
        model: builtins.type[Any] | None = None,
        backfill: Backfill | None = None,
        maxbytes: int = MAXBYTES,
    ) -> Stream[Any]:
        """Returns the same events as an async iterator, from this call on. See ``on``.

        At most ``maxsize`` events wait, of frames of ``maxbytes`` bytes in sum. Beyond that the
        oldest is dropped, counted, and reported by ``gap``. The stream ends when the channel is
        closed. Raises as ``on``, but events that are bound already may be streamed while joined.
        With ``backfill`` an event counts as handled when the next one is asked for, or the loop
        is left.
        """
        return self._streams.stream(
            type,
            filter,
            maxsize=maxsize,
            maxbytes=maxbytes,
            types=types,
            model=model,
            backfill=backfill,
        )

    @overload
    def wait_for(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        check: Callable[[PostgresChange[Row]], Any] | None = ...,
        timeout: float | None = ...,
        *,
        model: builtins.type[Row],
    ) -> Outcome[PostgresChange[Row]]: ...

    @overload
    def wait_for(
        self,
        type: Changes,
        filter: ChangesFilter | Filter,
        check: Callable[[PostgresChange[dict[str, Any]]], Any] | None = ...,
        timeout: float | None = ...,
        *,
        types: TypesMode | None = ...,
    ) -> Outcome[PostgresChange[dict[str, Any]]]: ...

    @overload
    def wait_for(
        self,
        type: Broadcasts,
        filter: BroadcastFilter | Filter,
        check: Callable[[Broadcast], Any] | None = ...,
        timeout: float | None = ...,
    ) -> Outcome[Broadcast]: ...

    @overload
    def wait_for(
        self,
        type: Presences,
        filter: PresenceSyncFilter,
        check: Callable[[PresenceSync], Any] | None = ...,
        timeout: float | None = ...,
    ) -> Outcome[PresenceSync]: ...

    @overload
    def wait_for(
        self,
        type: Presences,
        filter: PresenceJoinFilter,
        check: Callable[[PresenceJoin], Any] | None = ...,
        timeout: float | None = ...,
    ) -> Outcome[PresenceJoin]: ...

    @overload
    def wait_for(
        self,
        type: Presences,
        filter: PresenceLeaveFilter,
        check: Callable[[PresenceLeave], Any] | None = ...,
        timeout: float | None = ...,
    ) -> Outcome[PresenceLeave]: ...

    @overload
    def wait_for(
        self,
        type: Presences,
        filter: PresenceFilter | Filter,
        check: Callable[[AnyPresence], Any] | None = ...,
        timeout: float | None = ...,
    ) -> Outcome[AnyPresence]: ...

    @overload
    def wait_for(
        self,
        type: Systems,
        filter: SystemFilter | Filter | None,
        check: Callable[[SystemMessage], Any] | None = ...,
        timeout: float | None = ...,
    ) -> Outcome[SystemMessage]: ...

    def wait_for(
        self,
        type: str,
        filter: Any,
        check: Callable[[Any], Any] | None = None,
        timeout: float | None = None,
        *,
        types: str | None = None,
        model: builtins.type[Any] | None = None,
    ) -> Outcome[Any]:
        """Returns the next event that fits and passes ``check``, from this call on; await it.

        ``timeout`` is in seconds, None to wait for ever. Raises as ``stream`` at the call. When
        awaited it raises ``TimedOut``, what ``check`` raised, or the error that ended the
        channel.
        """
        return self._streams.wait_for(type, filter, check, timeout, types=types, model=model)

    # -- sending -------------------------------------------------------------------------

    def send(
        self,
        args: BroadcastMessage | Mapping[str, Any],
        opts: SendOptions | None = None,
        *,
        timeout: float | None = None,
        persist: bool | PersistOptions | None = None,
    ) -> Outcome[str]:
        """Sends ``{"type": "broadcast", "event": ..., "payload": ...}``; starts at the call.

        The result is ``"ok"``, ``"error"`` or ``"timed out"``. Without ``broadcast.ack`` it is
        ``"ok"`` when the frame is written; awaiting it keeps the sender at the server's pace.
        While the channel is not joined a broadcast goes over HTTP, with a warning in the log.

        Args:
            args: the message; ``payload`` is any JSON value, or ``bytes`` (vsn 2.0.0).
            opts: ``{"timeout": seconds, "persist": True or {"ttl": seconds}}``, each also a
                keyword.

        Raises:
            ValueError, TypeError: the message cannot be sent, or an option is unknown.
            InvalidState: a presence message before ``subscribe``.
            RuntimeError: no event loop is running.

        See docs/protocol.md#7-broadcast.
        """
        if opts is None and timeout is None and persist is None:
            # This check is here and not in the sender, because it saves most broadcasts a call.
            outcome = self._sender.send_fast(args)
            if outcome is not None:
                return outcome
        return self._sender.send(args, opts, timeout, persist)

    def http_send(
        self,
        event: str,
        payload: Any,
        opts: SendOptions | None = None,
        *,
        timeout: float | None = None,
        persist: bool | PersistOptions | None = None,
    ) -> Outcome[dict[str, bool]]:
        """Broadcasts over HTTP, whether the channel is joined or not; starts at the call.

        ``payload`` is any JSON value but None, or ``bytes``. The result is
        ``{"success": True}``. Awaiting raises ``SendError`` (with the HTTP ``status`` and the
        server's words) or ``TimedOut``. Bad arguments raise ``ValueError`` or ``TypeError`` at
        the call.

        A payload with a top-level key ``private`` or ``persist`` goes to the batch endpoint. The
        endpoint of the event would read these keys as its own flags. The batch endpoint drops a
        private message without an error if the token may not write.

        See docs/protocol.md#one-broadcast-by-http.
        """
        return self._sender.http_send(event, payload, opts, timeout, persist)

    # -- presence ------------------------------------------------------------------------

    def track(
        self,
        payload: Mapping[str, Any],
        opts: SendOptions | None = None,
        *,
        timeout: float | None = None,
    ) -> Outcome[str]:
        """Shows ``payload`` as this client's presence; starts at the call, result as ``send``.

        It is tracked again after every rejoin until ``untrack``. Calls beyond the client's
        ``presence_limit`` wait, and the latest wins. Raises ``InvalidState`` before
        ``subscribe``, ``TypeError`` for a payload that is no dict.

        See docs/protocol.md#tracking.
        """
        return self._sender.track(payload, opts, timeout)

    def untrack(
        self, opts: SendOptions | None = None, *, timeout: float | None = None
    ) -> Outcome[str]:
        """Takes this client's presence back; starts at the call, result as ``send``."""
        return self._sender.untrack(opts, timeout)

    def presence_state(self) -> dict[str, list[dict[str, Any]]]:
        """Returns a copy of the presences: ``{key: [{"presence_ref": ..., ...}]}``.

        Inside a presence handler it is the state that belongs to the event, as in supabase-js.
        """
        return self._handlers.presence_state()

    # -- methods of PyPI's realtime 2.x --------------------------------------------------

    # These methods take the arguments of that package in the same order, so that a program that
    # moves here need not be rewritten at once. The payloads are ours:
    # docs/porting-from-supabase-py.md.

    def on_postgres_changes(
        self,
        event: Literal["*", "INSERT", "UPDATE", "DELETE"] | PostgresChangesEvent,
        callback: Callable[[PostgresChange], Any] | Callable[[], Any],
        table: str | None = None,
        schema: str | None = None,
        filter: str | PostgresChangesFilter | None = None,
        select: Sequence[str] | None = None,
    ) -> Self:
        """``on("postgres_changes", ...)``; without a schema it is ``"public"``."""
        wanted = {"event": event, "schema": schema or "public", "table": table or None}
        found = {**wanted, "filter": filter or None, "select": select or None}
        return self.on(ListenType.POSTGRES_CHANGES, found, callback)

    def on_broadcast(
        self, event: str, callback: Callable[[Broadcast], Any] | Callable[[], Any]
    ) -> Self:
        """``on("broadcast", {"event": event}, callback)``."""
        return self.on(ListenType.BROADCAST, {"event": event}, callback)

    def on_system(self, callback: Callable[[SystemMessage], Any] | Callable[[], Any]) -> Self:
        """``on("system", {}, callback)``."""
        return self.on(ListenType.SYSTEM, {}, callback)

    def on_presence_sync(self, callback: Callable[[], Any] | Callable[[PresenceSync], Any]) -> Self:
        """``on("presence", {"event": "sync"}, callback)``."""
        return self._on_presence(PresenceEvent.SYNC, callback)

    def on_presence_join(
        self,
        callback: Callable[[str, PresenceEntries, PresenceEntries], Any]
        | Callable[[str, PresenceEntries], Any]
        | Callable[[PresenceJoin], Any]
        | Callable[[], Any],
    ) -> Self:
        """``on("presence", {"event": "join"}, ...)``; see ``on_presence_leave``."""
        return self._on_presence(PresenceEvent.JOIN, spread(callback))

    def on_presence_leave(
        self,
        callback: Callable[[str, PresenceEntries, PresenceEntries], Any]
        | Callable[[str, PresenceEntries], Any]
        | Callable[[PresenceLeave], Any]
        | Callable[[], Any],
    ) -> Self:
        """``on("presence", {"event": "leave"}, ...)``.

        A callback of several arguments gets the key, the presences that are left, and those that
        have changed. A callback of one argument gets the payload, as with ``on``.
        """
        return self._on_presence(PresenceEvent.LEAVE, spread(callback))

    def _on_presence(self, event: PresenceEvent, callback: Any) -> Self:
        self.on(ListenType.PRESENCE, {"event": event}, callback)
        return self

    def send_broadcast(self, event: str, data: Any) -> Outcome[str]:
        """``send({"type": "broadcast", "event": event, "payload": data})``."""
        return self.send({"type": ListenType.BROADCAST, "event": event, "payload": data})

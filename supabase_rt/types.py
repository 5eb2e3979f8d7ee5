"""The dicts that calls take, spelled out for type checkers and editors.

A literal in a call needs none of these names; a dict that is made elsewhere may be given one::

    from supabase_rt.types import ChannelOptions

    options: ChannelOptions = {"config": {"broadcast": {"self": True}}}

What is not allowed here raises at the call as well, with the right name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Required, TypeAlias, TypedDict

from ._backfill.options import Backfill
from ._backfill.pages import BackfillPage
from ._handlers.middleware import CallNext, Middleware
from ._protocol.changes_filter import PostgresChangesFilter
from ._protocol.reconnect_policy import ReconnectPolicy
from .enums import ListenType, PostgresChangesEvent, PresenceEvent

if TYPE_CHECKING:
    import ssl as ssl_module

    import aiohttp

__all__ = [
    "AnyFilter",
    "BackfillPage",
    "BroadcastFilter",
    "BroadcastMessage",
    "BroadcastOptions",
    "CallNext",
    "ChangesFilter",
    "ChangesJoinOptions",
    "ChannelConfigOptions",
    "ChannelOptions",
    "ListenOptions",
    "Middleware",
    "OnceOptions",
    "Overflow",
    "PersistOptions",
    "PresenceFilter",
    "PresenceJoinFilter",
    "PresenceLeaveFilter",
    "PresenceOptions",
    "PresenceSyncFilter",
    "RealtimeOptions",
    "ReplayOptions",
    "SendOptions",
    "SystemFilter",
    "TypesMode",
]

TypesMode: TypeAlias = Literal["js", "python", "raw"]
"""How the columns of a database change are converted."""

Overflow: TypeAlias = Literal["drop_oldest", "drop_newest", "close"]
"""What happens when a handler falls ``maxsize`` events behind."""


# -- client.channel(topic, opts) ---------------------------------------------------------


class ReplayOptions(TypedDict, total=False):
    """Broadcasts of the past that a private channel asks for."""

    since: Required[float]
    """Unix time in milliseconds."""
    limit: int
    """1 to 25."""


class BroadcastOptions(TypedDict, total=False):
    """``config.broadcast``."""

    self: bool
    """Whether our own broadcasts come back to us."""
    ack: bool
    """Whether the server answers each broadcast."""
    replay: ReplayOptions
    replication_ready: bool
    """Whether the server tells when broadcasts from the database flow."""


class PresenceOptions(TypedDict, total=False):
    """``config.presence``."""

    key: str
    """Whose presence we track; the server makes one up by default."""
    enabled: bool
    """Whether presence is wanted without a handler for it."""


class ChangesJoinOptions(TypedDict, total=False):
    """``config.postgres_changes_options``."""

    wait: bool
    """Whether the join waits until database changes flow."""
    timeout: int
    """Milliseconds."""


class ChannelConfigOptions(TypedDict, total=False):
    """``config`` of a channel."""

    broadcast: BroadcastOptions
    presence: PresenceOptions
    private: bool
    """Whether policies on ``realtime.messages`` decide who may read and write."""
    postgres_changes_options: ChangesJoinOptions


class ChannelOptions(TypedDict, total=False):
    """The second argument of ``client.channel``."""

    config: ChannelConfigOptions


# -- channel.on(type, filter, handler) ---------------------------------------------------


class ChangesFilter(TypedDict, total=False):
    """Which database changes: ``schema``, ``table`` or both are needed."""

    event: Required[Literal["*", "INSERT", "UPDATE", "DELETE"] | PostgresChangesEvent]
    schema: str
    table: str
    filter: str | PostgresChangesFilter
    """``"room_id=eq.5"``, or what ``postgres_changes_filter()`` builds."""
    select: Sequence[str]
    """Columns; all of them by default."""


class BroadcastFilter(TypedDict):
    """Which broadcasts: ``"*"`` for all of them."""

    event: str


class PresenceSyncFilter(TypedDict):
    """The presence state is up to date."""

    event: Literal["sync", PresenceEvent.SYNC]


class PresenceJoinFilter(TypedDict):
    """Somebody came."""

    event: Literal["join", PresenceEvent.JOIN]


class PresenceLeaveFilter(TypedDict):
    """Somebody left."""

    event: Literal["leave", PresenceEvent.LEAVE]


class PresenceFilter(TypedDict):
    """Which presence events: ``"*"`` for all of them."""

    event: Literal["*", "sync", "join", "leave"] | PresenceEvent


class SystemFilter(TypedDict, total=False):
    """System messages are not filtered: ``{}``."""

    event: str


AnyFilter: TypeAlias = ChangesFilter | BroadcastFilter | PresenceFilter | SystemFilter
"""The filter of whatever listen type."""


class OnceOptions(TypedDict, total=False):
    """Keyword options of ``once``."""

    types: TypesMode | None
    thread: bool


class ListenOptions(OnceOptions, total=False):
    """Keyword options of ``on``."""

    maxsize: int
    overflow: Overflow
    backfill: Backfill | None
    """For ``postgres_changes``: what to read where changes were missed."""
    concurrency: int
    """How many events at once, for an ``async`` or ``thread`` handler; 1 by default."""
    key: Callable[[Any], Hashable] | None
    """The events of one key come in order, one at a time."""
    maxbytes: int
    """How large the frames of the events that wait may be in sum; 64 MiB by default."""


# -- channel.send(args, opts) ------------------------------------------------------------


class PersistOptions(TypedDict, total=False):
    """``persist``: how long the server keeps a broadcast for replay."""

    ttl: int
    """Seconds."""


class BroadcastMessage(TypedDict, total=False):
    """What ``channel.send`` takes; further keys go along."""

    type: Required[Literal["broadcast", ListenType.BROADCAST]]
    event: Required[str]
    payload: Any
    """Any JSON value, or ``bytes``."""
    persist: bool | PersistOptions


class SendOptions(TypedDict, total=False):
    """``opts`` of ``send``, ``http_send``, ``track`` and ``untrack``; each also a keyword."""

    timeout: float
    """Seconds."""
    persist: bool | PersistOptions


# -- create_client(url, key, realtime=...) -----------------------------------------------


class RealtimeOptions(TypedDict, total=False):
    """The keyword options of ``RealtimeClient``, described there."""

    params: Mapping[str, Any] | None
    timeout: float
    heartbeat_interval: float
    heartbeat_timeout: float | None
    heartbeat_callback: Callable[..., Any] | None
    reconnect: ReconnectPolicy | None
    reconnect_after: Callable[[int], float] | None
    vsn: Literal["1.0.0", "2.0.0"]
    access_token: Callable[[], str | Awaitable[str | None] | None] | None
    headers: Mapping[str, str] | None
    session: aiohttp.ClientSession | None
    ssl: ssl_module.SSLContext | aiohttp.Fingerprint | bool | None
    proxy: str | None
    api_key_in: Literal["url", "header"]
    encode: Callable[..., Any] | None
    decode: Callable[..., Any] | None
    logger: Callable[[str, str, Any], Any] | None
    log_level: str | None
    types: TypesMode
    max_message_size: int
    max_outbound: int
    presence_limit: tuple[int, float] | None
    send_limit: tuple[int, float] | None
    disconnect_on_empty_channels_after: float | None
    drain_timeout: float

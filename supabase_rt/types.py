"""The dicts that methods accept, typed for type checkers and editors.

A literal in a call needs none of these names; a dict that is made elsewhere may be given one::

    from supabase_rt.types import ChannelOptions

    options: ChannelOptions = {"config": {"broadcast": {"self": True}}}

Values that these types do not allow also raise at the call, with the right name.
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
"""The conversion of the columns of a database change."""

Overflow: TypeAlias = Literal["drop_oldest", "drop_newest", "close"]
"""The policy for an event that finds the queue of its handler full."""


# -- client.channel(topic, opts) ---------------------------------------------------------


class ReplayOptions(TypedDict, total=False):
    """The request of a private channel for past broadcasts."""

    since: Required[float]
    """Unix time in milliseconds."""
    limit: int
    """1 to 25."""


class BroadcastOptions(TypedDict, total=False):
    """``config.broadcast``."""

    self: bool
    """True if the channel receives its own broadcasts."""
    ack: bool
    """True if the server answers each broadcast."""
    replay: ReplayOptions
    replication_ready: bool
    """True if the server reports when broadcasts from the database flow."""


class PresenceOptions(TypedDict, total=False):
    """``config.presence``."""

    key: str
    """The key of our own presence; the server generates one by default."""
    enabled: bool
    """True if the channel uses presence without a presence handler."""


class ChangesJoinOptions(TypedDict, total=False):
    """``config.postgres_changes_options``."""

    wait: bool
    """True if the join waits until database changes flow."""
    timeout: int
    """Milliseconds."""


class ChannelConfigOptions(TypedDict, total=False):
    """``config`` of a channel."""

    broadcast: BroadcastOptions
    presence: PresenceOptions
    private: bool
    """True if policies on ``realtime.messages`` decide who may read and write."""
    postgres_changes_options: ChangesJoinOptions


class ChannelOptions(TypedDict, total=False):
    """The second argument of ``client.channel``."""

    config: ChannelConfigOptions


# -- channel.on(type, filter, handler) ---------------------------------------------------


class ChangesFilter(TypedDict, total=False):
    """The filter of database changes; ``schema``, ``table`` or both are required."""

    event: Required[Literal["*", "INSERT", "UPDATE", "DELETE"] | PostgresChangesEvent]
    schema: str
    table: str
    filter: str | PostgresChangesFilter
    """A text such as ``"room_id=eq.5"``, or a ``postgres_changes_filter()``."""
    select: Sequence[str]
    """Names of the columns to send; all columns by default."""


class BroadcastFilter(TypedDict):
    """The filter of broadcasts; ``"*"`` for all events."""

    event: str


class PresenceSyncFilter(TypedDict):
    """The presence state is up to date."""

    event: Literal["sync", PresenceEvent.SYNC]


class PresenceJoinFilter(TypedDict):
    """Presences appeared under a key."""

    event: Literal["join", PresenceEvent.JOIN]


class PresenceLeaveFilter(TypedDict):
    """Presences disappeared from a key."""

    event: Literal["leave", PresenceEvent.LEAVE]


class PresenceFilter(TypedDict):
    """The filter of presence events; ``"*"`` for all events."""

    event: Literal["*", "sync", "join", "leave"] | PresenceEvent


class SystemFilter(TypedDict, total=False):
    """The filter of system messages, which is empty: ``{}``."""

    event: str


AnyFilter: TypeAlias = ChangesFilter | BroadcastFilter | PresenceFilter | SystemFilter
"""The filter of any listen type."""


class OnceOptions(TypedDict, total=False):
    """Keyword options of ``once``."""

    types: TypesMode | None
    thread: bool


class ListenOptions(OnceOptions, total=False):
    """Keyword options of ``on``."""

    maxsize: int
    overflow: Overflow
    backfill: Backfill | None
    """The reading of missed ``postgres_changes`` from the table."""
    concurrency: int
    """The number of events that an ``async`` or ``thread`` handler handles at once; 1 by
    default."""
    key: Callable[[Any], Hashable] | None
    """The function that returns an event's key. Events of one key are handled one at a time."""
    maxbytes: int
    """The total size of the frames of waiting events, in bytes; 64 MiB by default."""


# -- channel.send(args, opts) ------------------------------------------------------------


class PersistOptions(TypedDict, total=False):
    """The value of ``persist``: the server keeps the broadcast for replay."""

    ttl: int
    """Seconds."""


class BroadcastMessage(TypedDict, total=False):
    """The message of ``channel.send``; further keys are sent too."""

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
    """The keyword options of ``RealtimeClient``, which describes them."""

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

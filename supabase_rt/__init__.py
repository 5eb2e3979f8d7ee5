"""Supabase Realtime for Python: the supabase-js chain, on asyncio, that does not go silent.

::

    supabase = create_client(url, key)
    supabase.channel("room").on(
        "postgres_changes", {"event": "*", "schema": "public", "table": "messages"}, print
    ).subscribe()
    supabase.realtime.run()
"""

from ._backfill.options import Backfill
from ._client.channel import RealtimeChannel
from ._client.client import RealtimeClient
from ._client.health import Health
from ._client.supabase_client import SupabaseClient, create_client
from ._payloads.broadcast import Broadcast
from ._payloads.postgres_change import PostgresChange
from ._payloads.presence_events import PresenceJoin, PresenceLeave, PresenceSync
from ._payloads.system_message import SystemMessage
from ._protocol.changes_filter import PostgresChangesFilter, postgres_changes_filter
from ._protocol.reconnect_policy import ReconnectPolicy
from ._stores.sqlite_store import SqliteStore
from ._version import __version__
from .enums import (
    REALTIME_CHANNEL_STATES,
    REALTIME_LISTEN_TYPES,
    REALTIME_POSTGRES_CHANGES_LISTEN_EVENT,
    REALTIME_PRESENCE_LISTEN_EVENTS,
    REALTIME_SUBSCRIBE_STATES,
    ChannelState,
    ConnectionState,
    HeartbeatStatus,
    ListenType,
    PostgresChangesEvent,
    PresenceEvent,
    SubscribeStatus,
)
from .errors import (
    AuthError,
    BindingMismatch,
    ConnectionFailed,
    ConnectionLost,
    DecodeError,
    GaveUp,
    InvalidState,
    RealtimeError,
    Refused,
    SendError,
    SubscribeError,
    TimedOut,
)

__all__ = [
    "REALTIME_CHANNEL_STATES",
    "REALTIME_LISTEN_TYPES",
    "REALTIME_POSTGRES_CHANGES_LISTEN_EVENT",
    "REALTIME_PRESENCE_LISTEN_EVENTS",
    "REALTIME_SUBSCRIBE_STATES",
    "AuthError",
    "Backfill",
    "BindingMismatch",
    "Broadcast",
    "ChannelState",
    "ConnectionFailed",
    "ConnectionLost",
    "ConnectionState",
    "DecodeError",
    "GaveUp",
    "Health",
    "HeartbeatStatus",
    "InvalidState",
    "ListenType",
    "PostgresChange",
    "PostgresChangesEvent",
    "PostgresChangesFilter",
    "PresenceEvent",
    "PresenceJoin",
    "PresenceLeave",
    "PresenceSync",
    "RealtimeChannel",
    "RealtimeClient",
    "RealtimeError",
    "ReconnectPolicy",
    "Refused",
    "SendError",
    "SqliteStore",
    "SubscribeError",
    "SubscribeStatus",
    "SupabaseClient",
    "SystemMessage",
    "TimedOut",
    "__version__",
    "create_client",
    "postgres_changes_filter",
]


def _sign() -> None:
    """Makes public classes say ``supabase_rt``: a file that moves breaks no pickle."""
    from typing import get_type_hints

    for name in __all__:
        one = globals()[name]
        if isinstance(one, type) and one.__module__.startswith(f"{__name__}._"):
            # Annotations are text, which is looked up in the module that a class names.
            if "__annotations__" in vars(one):
                hints = get_type_hints(one, include_extras=True)
                one.__annotations__ = {name: hints[name] for name in one.__annotations__}
            one.__module__ = __name__


_sign()


def _no_name(name: str) -> object:
    from ._name_hints import snake_case

    python = snake_case(name)
    if python != name and python in __all__:
        # An AttributeError would lose its text where the name is imported.
        raise ImportError(f"supabase_rt has no {name!r}; in Python it is {python!r}")
    raise AttributeError(f"module 'supabase_rt' has no attribute {name!r}")


# Set by name, because ``def`` would make type checkers accept every unknown name.
globals()["__getattr__"] = _no_name

"""The public enums; their values are the words of supabase-js."""

from __future__ import annotations

import enum

__all__ = [
    "REALTIME_CHANNEL_STATES",
    "REALTIME_LISTEN_TYPES",
    "REALTIME_POSTGRES_CHANGES_LISTEN_EVENT",
    "REALTIME_PRESENCE_LISTEN_EVENTS",
    "REALTIME_SUBSCRIBE_STATES",
    "ChannelState",
    "ConnectionState",
    "HeartbeatStatus",
    "ListenType",
    "PostgresChangesEvent",
    "PresenceEvent",
    "SubscribeStatus",
]


class ListenType(enum.StrEnum):
    """The types of events for ``channel.on``."""

    BROADCAST = "broadcast"
    PRESENCE = "presence"
    POSTGRES_CHANGES = "postgres_changes"
    SYSTEM = "system"


class PostgresChangesEvent(enum.StrEnum):
    """The ``event`` of a postgres_changes filter."""

    ALL = "*"
    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


class PresenceEvent(enum.StrEnum):
    """The ``event`` of a presence filter."""

    SYNC = "sync"
    JOIN = "join"
    LEAVE = "leave"


class SubscribeStatus(enum.StrEnum):
    """The status that the callback of ``channel.subscribe`` receives."""

    SUBSCRIBED = "SUBSCRIBED"
    TIMED_OUT = "TIMED_OUT"
    CLOSED = "CLOSED"
    CHANNEL_ERROR = "CHANNEL_ERROR"


class ChannelState(enum.StrEnum):
    """The state of a channel."""

    CLOSED = "closed"
    ERRORED = "errored"
    JOINED = "joined"
    JOINING = "joining"
    LEAVING = "leaving"
    # supabase-js spells the members in lower case: REALTIME_CHANNEL_STATES.joined
    closed = CLOSED
    errored = ERRORED
    joined = JOINED
    joining = JOINING
    leaving = LEAVING


class ConnectionState(enum.StrEnum):
    """The state of the socket."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class HeartbeatStatus(enum.StrEnum):
    """The status that the heartbeat callback receives."""

    SENT = "sent"
    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"


REALTIME_LISTEN_TYPES = ListenType
REALTIME_SUBSCRIBE_STATES = SubscribeStatus
REALTIME_CHANNEL_STATES = ChannelState
REALTIME_PRESENCE_LISTEN_EVENTS = PresenceEvent
REALTIME_POSTGRES_CHANGES_LISTEN_EVENT = PostgresChangesEvent

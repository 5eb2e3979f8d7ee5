# pyright: strict
"""The exact type of a lambda's argument for pyright; mypy cannot be asked for it."""

from dataclasses import dataclass
from typing import Any, assert_type

from supabase_rt import (
    Broadcast,
    ListenType,
    PostgresChange,
    PresenceEvent,
    PresenceJoin,
    PresenceLeave,
    PresenceSync,
    RealtimeChannel,
    SystemMessage,
    create_client,
)
from supabase_rt.types import ChangesFilter

channel: RealtimeChannel = create_client("https://x.supabase.co", "key").channel("room")

Change = PostgresChange[dict[str, Any]]


@dataclass
class Todo:
    id: int
    text: str


def the_payload_is_known_from_the_first_argument() -> None:
    channel.on(
        "postgres_changes",
        {"event": "*", "schema": "public", "table": "todos"},
        lambda change: assert_type(change, Change),
    )
    channel.on("broadcast", {"event": "x"}, lambda message: assert_type(message, Broadcast))
    channel.on("presence", {"event": "sync"}, lambda event: assert_type(event, PresenceSync))
    channel.on("presence", {"event": "join"}, lambda event: assert_type(event, PresenceJoin))
    channel.on("presence", {"event": "leave"}, lambda event: assert_type(event, PresenceLeave))
    channel.on(
        "presence",
        {"event": "*"},
        lambda event: assert_type(event, PresenceSync | PresenceJoin | PresenceLeave),
    )
    channel.on("system", {}, lambda message: assert_type(message, SystemMessage))
    channel.once("broadcast", {"event": "x"}, lambda message: assert_type(message, Broadcast))


def enum_members_do_as_well() -> None:
    channel.on(
        ListenType.POSTGRES_CHANGES,
        {"event": "INSERT", "schema": "public"},
        lambda change: assert_type(change, Change),
    )
    channel.on(
        ListenType.PRESENCE,
        {"event": PresenceEvent.JOIN},
        lambda event: assert_type(event, PresenceJoin),
    )


def rows_become_the_model() -> None:
    filter: ChangesFilter = {"event": "*", "schema": "public", "table": "todos"}
    channel.on("postgres_changes", filter, lambda todo: assert_type(todo.new, Todo), model=Todo)
    channel.once("postgres_changes", filter, lambda todo: assert_type(todo.old, Todo), model=Todo)

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false
# pyright: reportUnusedVariable=false, reportUnknownLambdaType=false
"""The types of the public API for type checkers: mypy and pyright read this file, and nothing runs
it.

A ``type: ignore`` marks code that must be refused; both checkers complain about an unneeded one.
"""

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
    RealtimeClient,
    SupabaseClient,
    SystemMessage,
    create_client,
    postgres_changes_filter,
)
from supabase_rt.types import CallNext, ChangesFilter, ChannelOptions, Middleware, RealtimeOptions

supabase: SupabaseClient = create_client("https://x.supabase.co", "key")
channel: RealtimeChannel = supabase.channel("room")

Change = PostgresChange[dict[str, Any]]


@dataclass
class Todo:
    id: int
    text: str


def is_change(payload: Change) -> None: ...
def is_broadcast(payload: Broadcast) -> None: ...
def is_sync(payload: PresenceSync) -> None: ...
def is_join(payload: PresenceJoin) -> None: ...
def is_leave(payload: PresenceLeave) -> None: ...
def is_system(payload: SystemMessage) -> None: ...
def is_todo(row: Todo) -> None: ...


def what_a_lambda_is_given_is_known() -> None:
    """mypy reads a lambda twice, the first time without its context; so ``assert_type`` cannot be
    used.
    """
    channel.on(
        "postgres_changes", {"event": "*", "schema": "public"}, lambda found: is_change(found)
    )
    channel.on("broadcast", {"event": "x"}, lambda found: is_broadcast(found))
    channel.on("presence", {"event": "sync"}, lambda found: is_sync(found))
    channel.on("presence", {"event": "join"}, lambda found: is_join(found))
    channel.on(ListenType.PRESENCE, {"event": PresenceEvent.LEAVE}, lambda found: is_leave(found))
    channel.on("system", {}, lambda found: is_system(found))
    channel.once("broadcast", {"event": "x"}, lambda found: is_broadcast(found))
    channel.on("broadcast", {"event": "x"}, lambda found: is_join(found))  # type: ignore[call-overload]
    channel.on("presence", {"event": "join"}, lambda found: is_leave(found))  # type: ignore[call-overload]


def a_chain_stays_a_channel() -> None:
    assert_type(channel.on("broadcast", {"event": "x"}, print), RealtimeChannel)
    assert_type(channel.once("system", {}, print), RealtimeChannel)

    @channel.once("system", {})
    def first(message: SystemMessage) -> None: ...

    first(SystemMessage("system", "ok", "x"))
    assert_type(channel.off("broadcast"), RealtimeChannel)
    assert_type(channel.on_broadcast("x", print).subscribe(print), RealtimeChannel)


def handlers_take_one_argument_or_none_and_may_be_async() -> None:
    async def later(message: Broadcast) -> None: ...
    async def nothing() -> None: ...
    def plain(message: Broadcast) -> int:
        return len(message)

    for_all = channel.on("broadcast", {"event": "x"}, later).on("broadcast", {"event": "x"}, plain)
    for_all.on("broadcast", {"event": "x"}, nothing).on("broadcast", {"event": "x"}, lambda: None)
    channel.on("presence", {"event": "sync"}, lambda: print(channel.presence_state()))
    channel.on("postgres_changes", {"event": "*", "schema": "public"}, nothing)


def the_wrong_handler_is_refused() -> None:
    def on_join(event: PresenceJoin) -> None: ...
    def of_two(one: Broadcast, two: int) -> None: ...

    channel.on("broadcast", {"event": "x"}, on_join)  # type: ignore[call-overload]
    channel.on("presence", {"event": "leave"}, on_join)  # type: ignore[call-overload]
    channel.on("broadcast", {"event": "x"}, of_two)  # type: ignore[call-overload]
    channel.on("brodcast", {"event": "x"}, print)  # type: ignore[call-overload]
    channel.on("broadcast", {"event": "x"}, print, overflow="drop")  # type: ignore[call-overload]
    channel.on("broadcast", {"event": "x"}, print, model=Todo)  # type: ignore[call-overload]


def a_decorated_function_keeps_its_type() -> None:
    @channel.on("postgres_changes", {"event": "INSERT", "schema": "public", "table": "todos"})
    async def on_todo(change: Change) -> str:
        return change.event_type

    @channel.on("broadcast", {"event": "x"})
    def on_cursor() -> int:
        return 1

    assert_type(on_cursor(), int)

    async def both(change: Change) -> None:
        assert_type(await on_todo(change), str)


def the_wrong_function_is_not_decorated() -> None:
    @channel.on("broadcast", {"event": "x"})  # type: ignore[type-var]
    def on_join(event: PresenceJoin) -> None: ...


def rows_become_the_model() -> None:
    filter: ChangesFilter = {"event": "*", "schema": "public", "table": "todos"}
    channel.on("postgres_changes", filter, lambda todo: is_todo(todo.new), model=Todo)
    channel.once("postgres_changes", filter, lambda todo: is_todo(todo.old), model=Todo)

    @channel.on("postgres_changes", filter, model=Todo)
    def on_todo(change: PostgresChange[Todo]) -> None:
        assert_type(change.new.text, str)


async def streams_and_waits_know_it_too() -> None:
    filter: ChangesFilter = {"event": "INSERT", "schema": "public", "table": "todos"}
    async for message in channel.stream("broadcast", {"event": "x"}):
        assert_type(message, Broadcast)
    async for change in channel.stream("postgres_changes", filter):
        assert_type(change.new, dict[str, Any])
    async for todo in channel.stream("postgres_changes", filter, model=Todo):
        assert_type(todo.new, Todo)
    assert_type(await channel.wait_for("presence", {"event": "join"}), PresenceJoin)
    found = await channel.wait_for("broadcast", {"event": "x"}, lambda one: bool(one.event))
    assert_type(found, Broadcast)
    row = await channel.wait_for("postgres_changes", filter, lambda one: one.new.id, model=Todo)
    assert_type(row, PostgresChange[Todo])


def a_filter_may_come_from_a_variable() -> None:
    table = {"schema": "public", "table": "todos"}
    channel.on("postgres_changes", {"event": "INSERT", **table}, lambda change: change.new["id"])
    channel.on("postgres_changes", table, print)
    built = postgres_changes_filter().eq("list", "home").gte("priority", 3)
    channel.on(
        "postgres_changes",
        {"event": "*", "schema": "public", "table": "todos", "filter": built, "select": ["id"]},
        print,
    )


def options_are_known_by_their_keys() -> None:
    supabase.channel("room", {"config": {"broadcast": {"self": True, "ack": True}}})
    supabase.channel("room", {"config": {"presence": {"key": "anna", "enabled": True}}})
    supabase.channel(
        "room", {"config": {"private": True, "broadcast": {"replay": {"since": 1, "limit": 5}}}}
    )
    options: ChannelOptions = {"config": {"private": True}}
    supabase.channel("room", options)
    supabase.channel("room", {"confg": {}})  # type: ignore[arg-type]
    supabase.channel("room", {"config": {"privat": True}})  # type: ignore[arg-type]
    supabase.channel("room", {"config": {"private": "yes"}})  # type: ignore[arg-type]


def options_of_the_client_too() -> None:
    realtime: RealtimeOptions = {"heartbeat_interval": 15.0, "vsn": "2.0.0", "types": "python"}
    create_client("https://x.supabase.co", "key", realtime=realtime)
    create_client("https://x.supabase.co", "key", realtime={"timeout": 5})
    create_client("https://x.supabase.co", "key", realtime={"timeout": "5"})  # type: ignore[arg-type]


async def results_are_known() -> None:
    assert_type(await channel, RealtimeChannel)
    sent = await channel.send({"type": "broadcast", "event": "x", "payload": {"x": 1}})
    assert_type(sent, str)
    assert_type(await channel.track({"mood": "curious"}, {"timeout": 5}), str)
    assert_type(await channel.http_send("x", {}), dict[str, bool])
    assert_type(await channel.unsubscribe(), str)
    client: RealtimeClient = supabase.realtime
    assert_type(await client.remove_all_channels(), list[str])
    assert_type(client.on("open", print), RealtimeClient)
    await channel.send({"type": "broadcast", "event": "x"}, {"timeot": 5})  # type: ignore[arg-type]


def the_methods_of_realtime_2_are_typed() -> None:
    channel.on_postgres_changes("INSERT", lambda change: change.new["id"], "todos", "public")
    channel.on_postgres_changes("*", callback=print, table="todos", filter="id=eq.1")
    channel.on_presence_join(lambda key, current, new: print(key, len(new)))
    channel.on_presence_sync(lambda: print(channel.presence_state()))
    channel.on_broadcast("x", lambda message: print(message.payload))


def a_client_takes_middleware_and_a_listener_for_errors() -> None:
    client: RealtimeClient = supabase.realtime

    @client.use
    async def timed(event: Broadcast, call_next: CallNext) -> None:
        await call_next(event)

    @client.use
    def plain(event: object, call_next: CallNext) -> object:
        return call_next(event)

    @client.on_error
    def on_error(error: BaseException, event: object, handler: object) -> None: ...

    either: Middleware = timed
    client.use(either)
    client.use(lambda event: None)  # type: ignore[type-var]
    on_error(ValueError(), None, None)


def a_handler_may_run_for_several_events_at_once() -> None:
    filter: ChangesFilter = {"event": "*", "schema": "public", "table": "todos"}

    async def on_todo(change: PostgresChange[Todo]) -> None: ...

    by_id = channel.on("postgres_changes", filter, on_todo, model=Todo, concurrency=8)
    by_id.on(
        "broadcast", {"event": "x"}, print, thread=True, concurrency=2, key=lambda one: one.event
    )
    channel.on("broadcast", {"event": "x"}, print, concurrency="2")  # type: ignore[call-overload]

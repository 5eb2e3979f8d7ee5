"""``on``, ``off``, ``once``: which filters are allowed, and which events then arrive."""

from __future__ import annotations

import re
from typing import Any

import pytest

from supabase_rt import (
    Broadcast,
    InvalidState,
    PostgresChange,
    PresenceJoin,
    PresenceLeave,
    PresenceSync,
    RealtimeChannel,
    RealtimeClient,
    SystemMessage,
    postgres_changes_filter,
)
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.recorder import Recorder
from ...support.waiting import until

ANY = {"event": "*"}
TABLE = {"event": "*", "schema": "public", "table": "messages"}


def offline() -> RealtimeChannel:
    client = RealtimeClient("wss://x.supabase.co/realtime/v1", params={"apikey": "key"})
    return client.channel("room")


# -- what arrives ------------------------------------------------------------------------


@pytest.mark.conformance(
    "CM2", "CM3", "CM4", "CM5", "PC51", "PC52", "realtime.subscriptions.broadcast"
)
async def test_broadcasts_by_event_whatever_the_case(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    exact, upper, every = Recorder(), Recorder(), Recorder()
    channel = client.channel("room").on("broadcast", {"event": "cursor"}, exact)
    channel.on("broadcast", {"event": "CURSOR"}, upper).on("broadcast", ANY, every)
    await channel.subscribe()
    server.broadcast("room", "cursor", {"n": 1})
    server.broadcast("room", "other", {"n": 2})
    await every.count(2)
    assert exact.values() == upper.values() == [1]
    assert isinstance(every.seen[0], Broadcast)
    assert every.seen[1]["event"] == "other"


@pytest.mark.conformance("realtime.subscriptions.postgres_changes")
async def test_database_changes_by_event_and_table(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    inserts, all_of_it, other = Recorder(), Recorder(), Recorder()
    channel = client.channel("room").on("postgres_changes", {**TABLE, "event": "INSERT"}, inserts)
    channel.on("postgres_changes", TABLE, all_of_it)
    channel.on("postgres_changes", {**TABLE, "table": "others"}, other)
    await channel.subscribe()
    await channel.ready()
    server.insert("messages", {"id": 1, "text": "a"})
    server.update("messages", {"id": 1, "text": "b"})
    server.delete("messages", {"id": 1})
    await all_of_it.count(3)
    assert [change.event_type for change in all_of_it.seen] == ["INSERT", "UPDATE", "DELETE"]
    assert [change["eventType"] for change in inserts.seen] == ["INSERT"]
    assert isinstance(inserts.seen[0], PostgresChange)
    assert inserts.seen[0].new == {"id": 1, "text": "a"}
    assert other.seen == []


@pytest.mark.conformance("CP37", "CP38", "CP39")
async def test_equal_bindings_share_one_server_binding_and_all_fire(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    first, second = Recorder(), Recorder()
    channel = client.channel("room").on("postgres_changes", TABLE, first)
    channel.on("postgres_changes", dict(TABLE), second).on("postgres_changes", TABLE, first)
    await channel.subscribe()
    await channel.ready()
    server.insert("messages", {"id": 1})
    await first.count(2)
    await second.count(1)
    (join,) = (each for each in server.received if each.event == "phx_join")
    assert join.payload["config"]["postgres_changes"] == [TABLE]
    assert (len(first.seen), len(second.seen)) == (2, 1)


@pytest.mark.conformance("CP31", "CP33")
async def test_a_filter_builder_is_written_out(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got = Recorder()
    wanted = {**TABLE, "filter": postgres_changes_filter().eq("id", 2), "select": ["id"]}
    channel = client.channel("room").on("postgres_changes", wanted, got)
    await channel.subscribe()
    await channel.ready()
    server.insert("messages", {"id": 1})
    server.insert("messages", {"id": 2})
    await got.count(1)
    assert [change.new for change in got.seen] == [{"id": 2}]
    (join,) = (each for each in server.received if each.event == "phx_join")
    assert join.payload["config"]["postgres_changes"][0]["filter"] == "id=eq.2"


async def test_columns_are_converted_as_the_registration_wishes(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    server.table("messages", {"id": "int8", "price": "numeric"})
    client = make_client(types="raw")
    raw, js, python = Recorder(), Recorder(), Recorder()
    channel = client.channel("room").on("postgres_changes", TABLE, raw)
    channel.on("postgres_changes", TABLE, js, types="js")
    channel.on("postgres_changes", TABLE, python, types="python")
    await channel.subscribe()
    await channel.ready()
    server.insert("messages", {"id": 1, "price": 1.5})
    await python.count(1)
    assert type(python.seen[0].new["price"]).__name__ == "Decimal"
    assert js.seen[0].new["price"] == 1.5
    assert raw.seen[0].new["price"] == 1.5


@pytest.mark.conformance("CM14", "CR7", "CR8", "realtime.presence.presence_key")
async def test_presence_by_event(server: LocalRealtime, make_client: MakeClient) -> None:
    one, two = make_client(), make_client()
    syncs, joins, leaves, every = Recorder(), Recorder(), Recorder(), Recorder()
    channel = one.channel("room").on("presence", {"event": "sync"}, syncs)
    channel.on("presence", {"event": "join"}, joins).on("presence", {"event": "leave"}, leaves)
    channel.on("presence", ANY, every)
    await channel.subscribe()
    other = two.channel("room", {"config": {"presence": {"key": "them"}}})
    await other.subscribe()
    await other.track({"name": "x"})
    await joins.count(1)
    await two.remove_channel(other)
    await leaves.count(1)
    await until(lambda: len(syncs.seen) == 3)
    join, leave = joins.seen[0], leaves.seen[0]
    assert isinstance(join, PresenceJoin)
    assert (join.key, join["newPresences"][0]["name"]) == ("them", "x")
    assert isinstance(leave, PresenceLeave)
    assert (leave.key, leave.left_presences[0]["name"]) == ("them", "x")
    assert all(isinstance(sync, PresenceSync) for sync in syncs.seen)
    assert [event.event for event in every.seen] == ["sync", "join", "sync", "leave", "sync"]


async def test_presence_state_in_a_handler_is_the_state_of_its_event(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    seen: list[tuple[str, list[str]]] = []
    channel = client.channel("room", {"config": {"presence": {"key": "me"}}})

    def on_presence(event: Any) -> None:
        seen.append((event.event, list(channel.presence_state())))

    channel.on("presence", ANY, on_presence)
    await channel.subscribe()
    await channel.track({})
    await until(lambda: len(seen) == 3)
    await channel.untrack()
    await until(lambda: len(seen) == 5)
    assert seen[0] == ("sync", [])
    assert seen[2] == ("sync", ["me"])
    assert seen[4] == ("sync", [])


@pytest.mark.conformance("CM6")
async def test_system_messages_go_to_every_system_handler(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    first, second = Recorder(), Recorder()
    channel = client.channel("room").on("system", {}, first).on("system", {"event": "x"}, second)
    channel.on("system", None, first)
    await channel.subscribe()
    server.faults.system("room", "hello", status="ok")
    await first.count(2)
    await second.count(1)
    assert isinstance(first.seen[0], SystemMessage)
    assert first.seen[0].message == "hello"


async def test_the_type_in_any_case(server: LocalRealtime, client: RealtimeClient) -> None:
    got = Recorder()
    shouted: Any = "BROADCAST"
    await client.channel("room").on(shouted, ANY, got).subscribe()
    server.broadcast("room", "x", {"n": 1})
    await got.count(1)


# -- registering -------------------------------------------------------------------------


def test_on_returns_the_channel_or_is_a_decorator() -> None:
    channel = offline()
    assert channel.on("broadcast", ANY, print) is channel

    @channel.on("broadcast", {"event": "cursor"})
    def cursor(event: Any) -> None:
        """Returned as it is."""

    assert cursor.__doc__ == "Returned as it is."
    assert channel.once("system", {}, print) is channel
    assert len(channel._handlers.bound) == 3


async def test_the_decorator_registers(server: LocalRealtime, client: RealtimeClient) -> None:
    got = Recorder()
    channel = client.channel("room")

    @channel.on("broadcast", ANY)
    async def handler(event: Any) -> None:
        got(event)

    await channel.subscribe()
    server.broadcast("room", "x", {"n": 1})
    await got.count(1)


async def test_the_same_function_twice_fires_twice_and_off_removes_both(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got, last = Recorder(), Recorder()
    channel = client.channel("room").on("broadcast", ANY, got).on("broadcast", ANY, got)
    await channel.on("broadcast", ANY, last).subscribe()
    server.broadcast("room", "x", {"n": 1})
    await last.count(1)
    assert got.values() == [1, 1]
    assert channel.off("broadcast", ANY, got) is channel
    server.broadcast("room", "x", {"n": 2})
    await last.count(2)
    assert got.values() == [1, 1]


async def test_once_is_told_once(server: LocalRealtime, client: RealtimeClient) -> None:
    plain, last, slow = Recorder(), Recorder(), Recorder()

    async def later(event: Any) -> None:
        slow(event)

    channel = client.channel("room").once("broadcast", ANY, plain).once("broadcast", ANY, later)
    await channel.on("broadcast", ANY, last).subscribe()
    for n in range(3):
        server.broadcast("room", "x", {"n": n})
    await last.count(3)
    await slow.count(1)
    assert plain.values() == slow.values() == [0]


async def test_once_without_a_handler_is_a_decorator(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel, plain, last = client.channel("room"), Recorder(), Recorder()

    @channel.once("broadcast", ANY)
    def first(event: Any) -> None:
        plain(event)

    await channel.on("broadcast", ANY, last).subscribe()
    for n in range(2):
        server.broadcast("room", "x", {"n": n})
    await last.count(2)
    assert plain.values() == [0]
    assert first.__name__ == "first"
    with pytest.raises(AttributeError, match=r"once\(\) was called without a handler"):
        channel.once("broadcast", ANY).subscribe  # type: ignore[attr-defined]


@pytest.mark.conformance("PC55", "PC56")
def test_off_by_type_by_filter_and_by_function() -> None:
    channel = offline()
    other = {"event": "other"}
    channel.on("broadcast", ANY, print).on("broadcast", other, print).on("broadcast", ANY, len)
    channel.on("system", {}, print)
    channel.off("broadcast", other)
    assert len(channel._handlers.bound) == 3
    channel.off("broadcast", ANY, len)
    assert len(channel._handlers.bound) == 2
    channel.off("broadcast", ANY, len)
    channel.off("broadcast", None, print)
    assert len(channel._handlers.bound) == 1
    channel.off("system")
    assert channel._handlers.bound == {}
    with pytest.raises(ValueError, match="unknown listen type"):
        channel.off("broadcasts")


async def test_handlers_come_and_go_while_events_arrive(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    late, got = Recorder(), Recorder()

    def first(event: Any) -> None:
        channel.off("broadcast", ANY, first)
        channel.on("broadcast", ANY, late)
        got(event)

    await channel.on("broadcast", ANY, first).on("broadcast", ANY, got).subscribe()
    server.broadcast("room", "x", {"n": 1})
    server.broadcast("room", "x", {"n": 2})
    await late.count(1)
    assert got.values() == [1, 1, 2]
    assert late.values() == [2]


@pytest.mark.conformance("CM7")
def test_copy_bindings_copies_handlers_once_there_is_no_join() -> None:
    source, target = offline(), offline()
    source.on("broadcast", ANY, print, maxsize=5, overflow="close", thread=True)
    source.on("postgres_changes", TABLE, len, types="python").once("system", {}, max)
    target.copy_bindings(source)
    assert [each.function for each in target._handlers.bound] == [print, len, max]
    assert [each.options for each in target._handlers.bound] == [
        each.options for each in source._handlers.bound
    ]
    assert [binding.filter for binding in target._handlers.bound.values()] == [ANY, TABLE, {}]
    target.subscribe()
    with pytest.raises(InvalidState, match="cannot copy bindings into joined channel"):
        target.copy_bindings(source)


async def test_broadcast_and_system_may_be_added_after_the_join_others_not(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got = Recorder()
    channel = client.channel("room")
    channel.subscribe()
    kinds: Any = (("presence", ANY), ("postgres_changes", TABLE))
    for listen_type, wanted in kinds:
        text = re.escape(
            f"cannot add `{listen_type}` callbacks for realtime:room after `subscribe()`."
        )
        with pytest.raises(InvalidState, match=text) as caught:
            channel.on(listen_type, wanted, print)
        assert "before subscribe()" in caught.value.hint
        with pytest.raises(InvalidState, match=text):
            channel.on(listen_type, wanted)
        with pytest.raises(InvalidState, match=text):
            channel.once(listen_type, wanted, print)
    await channel
    with pytest.raises(InvalidState):
        channel.on("presence", ANY, print)
    channel.on("broadcast", ANY, got)
    server.broadcast("room", "x", {"n": 1})
    await got.count(1)


# -- bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen_type", "wanted", "message"),
    [
        ("broadcasts", ANY, "did you mean 'broadcast'? known: "),
        ("postgresChanges", TABLE, "did you mean 'postgres_changes'?"),
        ("INSERT", ANY, "unknown listen type 'INSERT'"),
        ("any_event", {}, "unknown listen type 'any_event'"),
        (None, {}, "unknown listen type None"),
        ("broadcast", {}, "needs 'event'"),
        ("broadcast", {"event": None}, "needs 'event'"),
        ("broadcast", None, "is a dict such as"),
        ("broadcast", "cursor", "is a dict such as"),
        ("broadcast", {"event": 5}, "'event' is a string"),
        ("broadcast", {"evnt": "x"}, "did you mean 'event'?"),
        ("broadcast", {"event": "x", "table": "t"}, "unknown key 'table'"),
        ("presence", {}, "needs 'event'"),
        ("presence", {"event": "joined"}, "unknown event 'joined'"),
        ("postgres_changes", {"schema": "public"}, "needs 'event'"),
        ("postgres_changes", {"event": "insertt", "table": "t"}, "unknown event"),
        ("postgres_changes", {"event": "*"}, "needs 'schema', 'table' or both"),
        ("postgres_changes", {**TABLE, "filtre": "x"}, "did you mean 'filter'?"),
        ("postgres_changes", {**TABLE, "filter": 5}, "'filter' is a string"),
        ("postgres_changes", {**TABLE, "select": "id"}, "'select' is a list"),
        ("postgres_changes", {**TABLE, "table": ""}, "'table' is a name"),
    ],
)
def test_a_filter_that_would_never_fire_raises_at_the_call(
    listen_type: Any, wanted: Any, message: str
) -> None:
    channel = offline()
    for call in (
        lambda: channel.on(listen_type, wanted, print),
        lambda: channel.on(listen_type, wanted),
        lambda: channel.once(listen_type, wanted, print),
        lambda: channel.stream(listen_type, wanted),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
    assert channel._handlers.bound == {}


@pytest.mark.parametrize(
    "options",
    [
        {"maxsize": 0},
        {"maxsize": -1},
        {"maxsize": 2.5},
        {"maxsize": True},
        {"maxsize": None},
        {"overflow": "drop"},
        {"overflow": None},
        {"types": "java"},
    ],
)
def test_an_option_that_cannot_work_raises_at_the_call(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        offline().on("broadcast", ANY, print, **options)


def test_an_option_that_is_unknown_raises_at_the_call() -> None:
    with pytest.raises(TypeError):
        offline().on("broadcast", ANY, print, max_size=5)  # type: ignore[call-overload]


@pytest.mark.parametrize("handler", [5, "print", lambda one, two: None, lambda *, key: None])
def test_a_handler_that_could_not_be_called_raises_at_the_call(handler: Any) -> None:
    channel = offline()
    with pytest.raises(TypeError):
        channel.on("broadcast", ANY, handler)
    assert channel._handlers.bound == {}


@pytest.mark.parametrize(
    ("name", "python"),
    [
        ("subTopic", "sub_topic"),
        ("joinedOnce", "joined_once"),
        ("presenceState", "presence_state"),
        ("httpSend", "http_send"),
        ("updateJoinPayload", "update_join_payload"),
        ("copyBindings", "copy_bindings"),
        ("broadcastEndpointURL", "broadcast_endpoint_url"),
    ],
)
def test_a_camel_case_name_is_explained(name: str, python: str) -> None:
    with pytest.raises(AttributeError, match=f"in Python it is '{python}'"):
        getattr(offline(), name)

"""The methods of PyPI's realtime 2.x do what ``on`` and ``send`` do."""

from __future__ import annotations

from typing import Any

import pytest

from supabase_rt import PostgresChange, PresenceJoin, RealtimeClient, postgres_changes_filter
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.recorder import Recorder
from ...support.waiting import until

KEYED: Any = {"config": {"presence": {"key": "anna"}, "broadcast": {"self": True}}}


async def test_database_changes_with_the_arguments_in_their_order(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.table("notes", {"id": "int8", "text": "text"})
    some, all_of_them, urgent = Recorder(), Recorder(), Recorder()
    channel = client.channel("room")
    assert channel.on_postgres_changes("INSERT", some, "notes", "public", "id=eq.1") is channel
    channel.on_postgres_changes("*", all_of_them)
    wanted = postgres_changes_filter().gt("id", 1)
    channel.on_postgres_changes("*", callback=urgent, table="notes", filter=wanted, select=["id"])
    await channel.subscribe()
    await channel.ready()
    server.insert("notes", {"id": 1, "text": "one"})
    server.insert("notes", {"id": 2, "text": "two"})
    await all_of_them.count(2)
    assert [change.new for change in some.seen] == [{"id": 1, "text": "one"}]
    assert [change.new for change in urgent.seen] == [{"id": 2}]
    assert all(isinstance(change, PostgresChange) for change in all_of_them.seen)


async def test_broadcasts_and_system_messages(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got, told = Recorder(), Recorder()
    channel = client.channel("room", KEYED).on_broadcast("x", got).on_system(told)
    await channel.on_postgres_changes("*", print).subscribe()
    assert await channel.send_broadcast("x", {"n": 1}) == "ok"
    await channel.ready()
    await got.count(1)
    await told.count(1)
    assert got.values() == [1]
    assert told.seen[0].status == "ok"


async def test_presence_callbacks_get_three_arguments_or_as_many_as_they_take(
    server: LocalRealtime, client: RealtimeClient, make_client: MakeClient
) -> None:
    joins: list[Any] = []
    leaves: list[Any] = []
    synced: list[int] = []

    async def on_join(key: str, current: list[Any], new: list[Any]) -> None:
        joins.append((key, current, [one["mood"] for one in new]))

    channel = client.channel("room", KEYED)
    channel.on_presence_sync(lambda: synced.append(len(channel.presence_state())))
    channel.on_presence_join(on_join).on_presence_join(lambda joined: joins.append(joined))
    channel.on_presence_leave(lambda key, current: leaves.append((key, current)))
    channel.on_presence_leave(lambda: leaves.append(None))
    channel.on_presence_leave(lambda *args: leaves.append(len(args)))
    await channel.subscribe()
    await channel.track({"mood": "calm"})
    await until(lambda: len(joins) == 2)
    other = joins[0] if isinstance(joins[0], PresenceJoin) else joins[1]
    assert other.key == "anna"
    assert ("anna", [], ["calm"]) in joins
    await channel.untrack()
    await until(lambda: len(leaves) == 3)
    assert leaves == [("anna", []), None, 3]
    assert synced[-1] == 0


def test_off_finds_a_callback_of_three_arguments(make_client: MakeClient) -> None:
    channel = make_client("http://127.0.0.1:9").channel("room")
    seen: list[Any] = []

    def on_join(key: str, current: list[Any], new: list[Any]) -> None:
        seen.append(key)

    channel.on_presence_join(on_join)
    (registration,) = channel._handlers.bound
    assert registration.name.endswith("on_join")
    channel.off("presence", {"event": "join"}, on_join)
    assert not channel._handlers.bound


def test_a_callback_of_four_arguments_is_refused(make_client: MakeClient) -> None:
    channel: Any = make_client("http://127.0.0.1:9").channel("room")
    with pytest.raises(TypeError, match="needs 4 arguments, an event carries 3"):
        channel.on_presence_join(lambda key, current, new, more: None)

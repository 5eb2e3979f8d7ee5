"""Backfills that end, or begin again, while a reading or a handler is in progress."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from supabase_rt import Backfill, PostgresChange, RealtimeChannel, RealtimeClient
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.recorder import ClientEvents
from ...support.waiting import our_tasks, turns, until
from .test_backfill import ALL, INSERTS, Seen, away, flowing, listen, messages, write

__all__ = ["messages"]


class Gate:
    """A ``fetch`` whose first page is empty; later ones wait until the gate is open."""

    def __init__(self) -> None:
        self.asked = 0
        self.opened = asyncio.Event()

    async def __call__(self, page: Any) -> list[Any]:
        self.asked += 1
        if self.asked > 1:
            await self.opened.wait()
        return []


async def reading(
    server: LocalRealtime, client: RealtimeClient, handler: Any, **options: Any
) -> RealtimeChannel:
    """Returns a channel that reads after a loss, with two live changes behind the reading."""
    gate = Gate()
    channel = await listen(client, handler, ALL, backfill=Backfill("id", fetch=gate, **options))
    async with away(server, channel):
        pass
    await until(lambda: gate.asked == 2)
    write(server, 1, 2)
    await until(lambda: client.health().queued_events == 2)
    return channel


async def leave(channel: RealtimeChannel) -> None:
    await channel.unsubscribe()


async def take_off(channel: RealtimeChannel) -> None:
    channel.off("postgres_changes")


@pytest.mark.parametrize("end", [leave, take_off])
async def test_live_changes_behind_a_reading_are_handled_at_the_end(
    messages: LocalRealtime, client: RealtimeClient, end: Any
) -> None:
    seen = Seen()
    channel = await reading(messages, client, seen)
    await end(channel)
    await until(lambda: seen.numbers == [1, 2])
    await until(lambda: not [name for name in our_tasks() if "handler" in name])


async def test_events_not_handled_in_time_at_the_end_are_a_gap(
    messages: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(drain_timeout=0.05)
    events = ClientEvents(client)

    async def hangs(change: PostgresChange) -> None:
        await asyncio.Event().wait()

    channel = await reading(messages, client, hangs)
    await channel.unsubscribe()
    await client.disconnect()
    assert [args[-1] for name, args in events.seen if name == "gap"][-1] == "shutdown"
    assert client.health().dropped_events == 2


class Notes:
    """A store in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.gate: asyncio.Event | None = None
        self.asked = 0

    async def load(self, name: str) -> dict[str, str]:
        return dict(self.kept)

    async def save(self, name: str, put: Any, remove: Any) -> None:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        self.kept.update(put)
        for note in remove:
            self.kept.pop(note, None)


async def test_with_a_store_unhandled_events_are_left_to_the_next_run(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    seen, store = Seen(), Notes()
    channel = await reading(messages, client, seen, store=store)
    await channel.unsubscribe()
    await client.disconnect()
    assert seen.numbers == []
    # A stored row 2 would claim that nothing before it is missing.
    assert not {"[1]", "[2]"} & set(store.kept)


@pytest.mark.parametrize("ends", [True, False])
async def test_a_new_channel_begins_where_the_old_one_ends(
    messages: LocalRealtime, make_client: MakeClient, ends: bool
) -> None:
    """The new channel waits for the old handler, but at most ``drain_timeout`` seconds."""
    client = make_client(drain_timeout=5.0 if ends else 0.05)
    store, gate, inside = Notes(), asyncio.Event(), []
    old, new = Seen(), Seen()

    async def slowly(change: PostgresChange) -> None:
        inside.append(change)
        await gate.wait()
        await old(change)
        inside.remove(change)

    async def next_one(change: PostgresChange) -> None:
        assert not (ends and inside)
        await new(change)

    def listen(handler: Any) -> RealtimeChannel:
        channel = client.channel("room")
        channel.on("postgres_changes", INSERTS, handler, backfill=Backfill("id", store=store))
        return channel

    channel = await listen(slowly).subscribe()
    await channel.ready()
    write(messages, 1, 2, 3)
    await until(lambda: client.health().queued_events == 3)
    await client.remove_channel(channel)
    again = await listen(next_one).subscribe()
    if ends:
        await turns(20)
        gate.set()
    await again.ready()
    write(messages, 4)
    await until(lambda: 4 in new.numbers)
    assert (old.numbers, new.numbers) == (([1, 2, 3], [4]) if ends else ([], [1, 2, 3, 4]))
    await client.disconnect()


async def test_a_handler_that_reconnects_gets_what_was_missed_meanwhile(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    seen: list[int] = []
    handled: list[int] = []
    ending = asyncio.Event()
    channel = client.channel("room")

    async def handler(change: PostgresChange) -> None:
        seen.append(change.new["id"])
        if change.new["id"] == 1:
            await client.disconnect()
            write(messages, 2, 3)
            await client.connect()
            await flowing(channel)
        elif change.new["id"] > 3:
            await ending.wait()
            await turns(500)
            handled.append(change.new["id"])

    channel.on("postgres_changes", INSERTS, handler, backfill=Backfill("id"))
    await flowing(channel)
    write(messages, 1)
    await until(lambda: seen == [1, 2, 3])
    write(messages, 4, 5)
    # By then the reading is over; changes behind it would be left to the next reading.
    await until(lambda: seen[-1] == 4 and client.health().queued_events == 2)
    ending.set()
    await client.disconnect()
    assert handled == [4, 5], "who asked for an end once is waited for at the next"
    assert our_tasks() == []


async def test_a_reading_that_somebody_cancels_is_a_reading_that_failed(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    asked = 0

    async def fetch(page: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise asyncio.CancelledError
        return []

    events = ClientEvents(client)
    await listen(client, Seen(), backfill=Backfill("id", fetch=fetch))
    assert asked == 2
    assert [getattr(error, "code", None) for error in events.errors] == ["Cancelled"]


async def test_the_update_of_a_cancelled_save_is_saved_by_the_next(
    messages: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(drain_timeout=0.05)
    seen, store = Seen(), Notes()
    channel = await listen(client, seen, backfill=Backfill("id", store=store))
    await until(lambda: "heard" in store.kept)
    store.gate = asyncio.Event()
    saved = store.asked
    write(messages, 1)
    await until(lambda: store.asked == saved + 1)
    await client.disconnect()
    assert "[1]" not in store.kept
    store.gate = None
    await client.connect()
    await flowing(channel)
    write(messages, 2)
    await until(lambda: {"[1]", "[2]"} <= set(store.kept))
    assert seen.numbers == [1, 2]

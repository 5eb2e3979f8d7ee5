"""``stream(..., backfill=Backfill(...))``: missed rows and live changes as an iterator."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

from supabase_rt import Backfill, RealtimeChannel, RealtimeClient, SqliteStore
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.waiting import our_tasks, until
from .test_backfill import INSERTS, away, flowing, messages, write

__all__ = ["messages"]


async def open_stream(client: RealtimeClient, **options: Any) -> tuple[RealtimeChannel, Any]:
    """Returns a channel whose changes flow, and a stream of them with a backfill."""
    channel = client.channel("room")
    options = {"backfill": Backfill("id"), **options}
    stream = channel.stream("postgres_changes", INSERTS, **options)
    return await flowing(channel), stream


async def take(stream: Any, count: int) -> list[int]:
    found = []
    async for change in stream:
        found.append(change.new["id"])
        if len(found) == count:
            break
    return found


async def test_a_stream_gives_missed_rows_between_live_changes(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    channel, stream = await open_stream(client)
    write(messages, 1, 2)
    await until(lambda: client.health().frames_in >= 4)
    async with away(messages, channel):
        write(messages, 3, 4)
    await flowing(channel)
    write(messages, 5)
    assert await take(stream, 5) == [1, 2, 3, 4, 5]
    await stream.aclose()


async def test_rows_that_a_slow_reader_has_no_room_for_are_read_again(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    _, stream = await open_stream(client, maxsize=2)
    write(messages, *range(1, 101))
    await until(lambda: client.health().dropped_events > 50)
    assert await take(stream, 100) == list(range(1, 101))
    await stream.aclose()


async def test_an_event_is_handled_when_the_next_is_asked_for_or_the_loop_is_left(
    messages: LocalRealtime, make_client: MakeClient, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "handled.db")

    async def life(count: int, *numbers: int) -> list[int]:
        client = make_client()
        _, stream = await open_stream(client, backfill=Backfill("id", store=store))
        write(messages, *numbers)
        found = await take(stream, count)
        del stream
        gc.collect()
        await client.disconnect()
        return found

    assert await life(2, 1, 2, 3) == [1, 2]
    assert await life(1) == [3]
    assert await life(1, 4) == [4]
    store.close()


async def test_the_client_closes_though_nobody_reads_the_stream(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    _, stream = await open_stream(client)
    write(messages, 1, 2)
    await until(lambda: client.health().frames_in >= 4)
    async with asyncio.timeout(4.0):
        await client.disconnect()
    assert our_tasks() == []
    # The events that waited are not lost: the next connection reads them.
    await client.connect()
    assert await take(stream, 2) == [1, 2]
    await stream.aclose()


async def test_a_stream_ends_with_its_channel(
    messages: LocalRealtime, client: RealtimeClient
) -> None:
    channel, stream = await open_stream(client)
    write(messages, 1)
    assert (await anext(stream)).new["id"] == 1
    reading = asyncio.create_task(take(stream, 5), name="reading")
    await asyncio.sleep(0)
    await channel.unsubscribe()
    assert await reading == []


async def test_a_stream_dropped_in_another_thread_ends_in_the_loop(
    messages: LocalRealtime, make_client: MakeClient, tmp_path: Path
) -> None:
    """The last reference goes, or the garbage collector runs, in any thread."""
    asyncio.get_running_loop().set_debug(True)
    store = SqliteStore(tmp_path / "handled.db")
    client = make_client()
    channel = client.channel("room")
    backfill = Backfill("id", store=store, name="room")
    held: list[Any] = [channel.stream("postgres_changes", INSERTS, backfill=backfill)]
    held.append(channel.stream("broadcast", {"event": "x"}))
    await channel.subscribe()
    await channel.ready()
    held.append(channel.wait_for("broadcast", {"event": "y"}, timeout=1000.0))
    write(messages, 1)
    assert (await anext(held[0])).new["id"] == 1
    await asyncio.to_thread(held.clear)
    await until(lambda: not channel._handlers.bound)
    await until(lambda: not [name for name in our_tasks() if "handler" in name])
    assert "[1]" in await store.load("room")
    store.close()

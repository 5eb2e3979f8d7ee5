"""The events of a channel as an iterator, and the next event that fits."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from supabase_rt import (
    GaveUp,
    InvalidState,
    RealtimeClient,
    ReconnectPolicy,
    Refused,
    TimedOut,
)
from supabase_rt._handlers.dispatcher import Dispatcher
from supabase_rt._handlers.event_stream import Stream, weak_handler
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.recorder import ClientEvents, Recorder
from ...support.waiting import turns, until

ANY = {"event": "*"}
TABLE = {"event": "*", "schema": "public", "table": "messages"}


def send(server: LocalRealtime, *numbers: int) -> None:
    for n in numbers:
        server.broadcast("room", "x", {"n": n})


async def take(stream: Any, count: int) -> list[int]:
    found = []
    async for event in stream:
        found.append(event.payload["n"])
        if len(found) == count:
            break
    return found


# -- streams -----------------------------------------------------------------------------


async def test_several_streams_at_once_each_see_every_event(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    streams = [channel.stream("broadcast", ANY) for _ in range(3)]
    send(server, 1, 2, 3)
    for stream in streams:
        assert await take(stream, 3) == [1, 2, 3]
        await stream.aclose()


async def test_events_count_from_the_call_not_from_the_first_await(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    stream = channel.stream("broadcast", ANY)
    await channel.subscribe()
    send(server, 1, 2)
    await until(lambda: client.health().frames_in == 3)
    assert await take(stream, 2) == [1, 2]


async def test_a_break_releases_the_stream(server: LocalRealtime, client: RealtimeClient) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    reading = asyncio.create_task(take(channel.stream("broadcast", ANY), 1))
    await turns()
    send(server, 1)
    assert await reading == [1]
    gc.collect()
    assert channel._handlers.bound == {}


async def test_collection_releases_the_stream(client: RealtimeClient) -> None:
    channel = client.channel("room")
    stream = channel.stream("broadcast", ANY)
    assert len(channel._handlers.bound) == 1
    del stream
    gc.collect()
    assert channel._handlers.bound == {}


async def test_aclose_and_async_with_release_the_stream(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    async with channel.stream("broadcast", ANY) as stream:
        send(server, 1, 2)
        assert await anext(stream) is not None
    assert channel._handlers.bound == {}
    assert [event async for event in stream] == []
    await stream.aclose()


async def test_aclose_ends_a_reader_that_waits(client: RealtimeClient) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    stream = channel.stream("broadcast", ANY)
    reading = asyncio.create_task(take(stream, 1))
    await turns()
    await stream.aclose()
    assert await reading == []


async def test_a_cancelled_read_loses_nothing(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    stream = channel.stream("broadcast", ANY)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.01)
    send(server, 1, 2)
    assert await take(stream, 2) == [1, 2]


async def test_two_readers_of_one_stream_are_a_mistake(client: RealtimeClient) -> None:
    channel = client.channel("room")
    stream = channel.stream("broadcast", ANY)
    first = asyncio.create_task(anext(stream))
    await turns()
    with pytest.raises(RuntimeError, match="being read already"):
        await anext(stream)
    first.cancel()
    await asyncio.wait([first])


async def test_a_closed_channel_ends_the_iteration_after_queued_events(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    stream = channel.stream("broadcast", ANY)
    reading = asyncio.create_task(take(channel.stream("broadcast", ANY), 5))
    send(server, 1, 2)
    await until(lambda: client.health().frames_in == 3)
    await client.remove_channel(channel)
    assert await take(stream, 5) == [1, 2]
    assert await reading == [1, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_final_refusal_is_raised_from_the_stream(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room", {"config": {"private": True}})
    stream = channel.stream("broadcast", ANY)
    reading = asyncio.create_task(take(stream, 1))
    channel.subscribe()
    with pytest.raises(Refused) as caught:
        await reading
    assert caught.value.code == "Unauthorized"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    with pytest.raises(Refused):
        await take(channel.stream("broadcast", ANY), 1)
    with pytest.raises(Refused):
        await channel.wait_for("broadcast", ANY)


async def test_giving_up_is_raised_from_the_stream(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(reconnect=ReconnectPolicy.disabled())
    channel = client.channel("room")
    await channel.subscribe()
    stream = channel.stream("broadcast", ANY)
    waiting = channel.wait_for("broadcast", ANY)
    server.faults.cut()
    with pytest.raises(GaveUp):
        await take(stream, 1)
    with pytest.raises(GaveUp):
        await waiting


async def test_a_stream_survives_a_lost_link(server: LocalRealtime, client: RealtimeClient) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    stream = channel.stream("broadcast", ANY)
    send(server, 1)
    await until(lambda: client.health().frames_in == 2)
    server.faults.cut()
    await until(lambda: server.joins == 2)
    send(server, 2)
    assert await take(stream, 2) == [1, 2]


async def test_a_full_stream_drops_the_oldest_and_tells_of_it(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    events = ClientEvents(client)
    channel = client.channel("room")
    await channel.subscribe()
    stream = channel.stream("broadcast", ANY, maxsize=2)
    send(server, 1, 2, 3, 4, 5)
    await until(lambda: client.health().frames_in == 6)
    assert await take(stream, 2) == [4, 5]
    # The drop is reported in the next turn of the loop.
    await until(lambda: client.health().dropped_events == 3)
    gaps = events.of("gap")
    assert {(topic, reason) for topic, _, _, reason in gaps} == {("realtime:room", "overflow")}


async def test_events_dropped_in_one_turn_are_reported_once() -> None:
    dispatch, told = Dispatcher(), []
    dispatch.listen("gap", lambda *gap: told.append(gap))
    stream: Stream[int] = Stream(dispatch, "realtime:room", maxsize=2)
    feed = weak_handler(stream)
    for number in range(5):
        feed(number)
    await turns()
    assert [(topic, reason) for topic, _, _, reason in told] == [("realtime:room", "overflow")]
    assert dispatch.tally.dropped_events == 3
    feed(5)
    await turns()
    assert len(told) == 2


async def test_changes_and_presence_stream_what_the_join_asked_for(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    before = channel.stream("postgres_changes", TABLE)
    presence = channel.stream("presence", {"event": "sync"})
    await channel.subscribe()
    await channel.ready()
    after = channel.stream("postgres_changes", dict(TABLE))
    joined = channel.stream("presence", {"event": "join"})
    server.insert("messages", {"id": 1})
    for stream in (before, after):
        change = await anext(stream)
        assert change.new == {"id": 1}
    await channel.track({"me": 1})
    assert (await anext(presence)).event == "sync"
    assert (await anext(joined)).new_presences[0]["me"] == 1


async def test_a_filter_that_the_join_did_not_ask_for_cannot_be_streamed_afterwards(
    client: RealtimeClient,
) -> None:
    channel = client.channel("room").on("postgres_changes", TABLE, print)
    await channel.subscribe()
    other = {**TABLE, "table": "others"}
    for call in (
        lambda: channel.stream("postgres_changes", other),
        lambda: channel.wait_for("postgres_changes", other),
        lambda: channel.stream("presence", {"event": "sync"}),
        lambda: channel.wait_for("presence", {"event": "sync"}),
    ):
        with pytest.raises(InvalidState, match=r"after `subscribe\(\)`"):
            call()


@pytest.mark.parametrize("maxsize", [0, -1, 1.5, True, None])
def test_a_maxsize_that_is_no_number_of_events_is_refused(maxsize: Any) -> None:
    client = RealtimeClient("wss://x.supabase.co/realtime/v1", params={"apikey": "key"})
    with pytest.raises(ValueError, match="maxsize"):
        client.channel("room").stream("broadcast", ANY, maxsize)


async def test_a_closed_channel_cannot_be_streamed(client: RealtimeClient) -> None:
    channel = client.channel("room").subscribe()
    await channel
    await channel.unsubscribe()
    with pytest.raises(InvalidState, match="was closed"):
        channel.stream("broadcast", ANY)
    with pytest.raises(InvalidState, match="was closed"):
        channel.wait_for("broadcast", ANY)


# -- wait_for ----------------------------------------------------------------------------


async def test_wait_for_gives_the_next_event_from_the_call_on(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    waiting = channel.wait_for("broadcast", {"event": "x"})
    send(server, 1, 2)
    await until(lambda: client.health().frames_in == 3)
    assert (await waiting).payload["n"] == 1
    assert (await waiting).payload["n"] == 1
    assert channel._handlers.bound == {}


async def test_wait_for_asks_the_check(server: LocalRealtime, client: RealtimeClient) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    waiting = channel.wait_for("broadcast", ANY, lambda event: event.payload["n"] > 2)
    both = asyncio.gather(waiting, channel.wait_for("broadcast", ANY, timeout=5))
    send(server, 1, 2, 3)
    third, first = await both
    assert (third.payload["n"], first.payload["n"]) == (3, 1)


async def test_an_error_of_the_check_is_raised_from_the_await(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    waiting = channel.wait_for("broadcast", ANY, lambda event: event.payload["missing"])
    send(server, 1)
    with pytest.raises(KeyError, match="missing"):
        await waiting
    assert client.health().handler_errors == 0
    assert channel._handlers.bound == {}


async def later(event: Any) -> bool:
    return False


@pytest.mark.parametrize("check", [later, 3, lambda: True])
async def test_a_check_that_cannot_answer_at_once_is_refused(
    client: RealtimeClient, check: Any
) -> None:
    channel = await client.channel("room").subscribe()
    with pytest.raises(TypeError):
        channel.wait_for("broadcast", ANY, check)
    assert channel._handlers.bound == {}


async def test_wait_for_ends_at_its_timeout(client: RealtimeClient) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    waiting = channel.wait_for("broadcast", ANY, timeout=0.01)
    with pytest.raises(TimedOut, match=r"no such broadcast event within 0\.01 s"):
        await waiting
    assert channel._handlers.bound == {}


@pytest.mark.parametrize("timeout", [0, -1, "1", True])
async def test_a_timeout_that_is_no_time_is_refused(client: RealtimeClient, timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        client.channel("room").wait_for("broadcast", ANY, timeout=timeout)


async def test_wait_for_ends_with_the_channel(client: RealtimeClient) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    waiting = channel.wait_for("broadcast", ANY)
    await client.remove_channel(channel)
    with pytest.raises(InvalidState, match="was closed"):
        await waiting


async def test_a_cancelled_await_of_wait_for_may_be_awaited_again(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    waiting = channel.wait_for("broadcast", ANY)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(waiting, 0.01)
    send(server, 1)
    assert (await waiting).payload["n"] == 1


async def test_streams_and_handlers_do_not_disturb_each_other(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got = Recorder()
    channel = client.channel("room").on("broadcast", ANY, got)
    await channel.subscribe()
    async with channel.stream("broadcast", {"event": "X"}) as stream:
        send(server, 1, 2)
        assert await take(stream, 2) == [1, 2]
    send(server, 3)
    await got.count(3)
    assert got.values() == [1, 2, 3]

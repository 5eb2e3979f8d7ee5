"""Cancelling at any await leaves nothing behind, and the client either goes on or is closed.

Every public awaitable is begun, and its task is cancelled after n turns of the loop. This is
repeated for every n until the awaitable finishes first. Here every third n is tried; ``make soak``
tries all.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from supabase_rt import RealtimeChannel, RealtimeClient
from supabase_rt.server import LocalRealtime
from supabase_rt.types import ChannelOptions

from ...support.waiting import our_tasks
from .virtual import VirtualLoop, run_virtual

LAST = 400
"""More turns than any of these awaitables takes."""
STRIDE = 3
BROADCAST = {"type": "broadcast", "event": "x", "payload": {"n": 1}}
CONFIG: ChannelOptions = {"config": {"broadcast": {"self": True, "ack": True}}}

Work = Callable[[LocalRealtime, RealtimeClient, RealtimeChannel], Awaitable[Any]]


async def connect(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    await client.connect()


async def subscribe(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    await room.subscribe()


async def ready(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    room.on("postgres_changes", {"event": "*", "schema": "public"}, lambda payload: None)
    await room.subscribe()
    await room.ready()


async def send(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    await room.subscribe()
    assert await room.send(BROADCAST) == "ok"


async def over_http(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    await room.http_send("x", {"n": 1})


async def presence(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    await room.subscribe()
    await room.track({"here": True})
    await room.untrack()


async def leave(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    await room.subscribe()
    await room.unsubscribe()


async def leave_all(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    await room.subscribe()
    await client.channel("other").subscribe()
    await client.remove_all_channels()


async def disconnect(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    await client.connect()
    await client.disconnect()


async def set_auth(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    await client.set_auth()
    await room.subscribe()
    await client.set_auth()


async def wait_for(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    await room.subscribe()
    waiting = room.wait_for("broadcast", {"event": "x"})
    await room.send(BROADCAST)
    await waiting


async def stream(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    await room.subscribe()
    async with room.stream("broadcast", {"event": "x"}) as events:
        await room.send(BROADCAST)
        await anext(events)


async def context(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    async with client:
        await room.subscribe()


async def run_forever(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    room.subscribe(lambda status: client.disconnect() if status == "SUBSCRIBED" else None)
    await client.run_forever()


async def wait_closed(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    await client.connect()
    client.disconnect()
    await client.wait_closed()


async def recover(server: LocalRealtime, client: RealtimeClient, room: RealtimeChannel) -> None:
    await room.subscribe()
    server.faults.cut()
    await asyncio.sleep(0.001)
    await room
    server.faults.phx_close("room")
    await asyncio.sleep(0.001)
    await room


WORKS: tuple[Work, ...] = (
    connect,
    subscribe,
    ready,
    send,
    over_http,
    presence,
    leave,
    leave_all,
    disconnect,
    set_auth,
    wait_for,
    stream,
    context,
    run_forever,
    wait_closed,
    recover,
)


@asynccontextmanager
async def fresh_client(server: LocalRealtime) -> AsyncIterator[RealtimeClient]:
    async def token() -> str:
        await asyncio.sleep(0)
        return server.anon_key

    client = RealtimeClient(
        server.ws_url, params={"apikey": server.anon_key}, access_token=token, timeout=5.0
    )
    try:
        yield client
    finally:
        await client.disconnect()


async def check_usable(server: LocalRealtime, client: RealtimeClient) -> None:
    """A new call after the cancelled one works fully."""
    async with asyncio.timeout(60):
        channel = client.channel("afterwards", CONFIG)
        got = channel.wait_for("broadcast", {"event": "x"})
        await channel.subscribe()
        assert await channel.send(BROADCAST) == "ok"
        assert (await got).payload == {"n": 1}
    assert client.health().pending_replies == 0


async def cancel_after(turns: int, work: Work, server: LocalRealtime) -> bool:
    """Returns True if ``work`` was done before it could be cancelled."""
    async with fresh_client(server) as client:
        room = client.channel("room", CONFIG)
        task = asyncio.ensure_future(work(server, client, room))
        hits: list[bool] = []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.after_turns(turns, lambda: hits.append(task.cancel()))
        await asyncio.wait([task], timeout=60)
        loop.after_turns(0, None)
        assert task.done(), "the cancellation was swallowed"
        is_done = not any(hits)
        assert task.cancelled() or task.exception() is None, task.exception()
        try:
            await check_usable(server, client)
        except BaseException as exc:
            raise AssertionError(f"after {turns} turns: {exc!r}") from exc
    assert our_tasks() == [], turns
    return is_done


async def sweep(work: Work, first: int = 0, stride: int = 1) -> int:
    """Cancel it after ``first`` turns, then after ``stride`` more, and so on; returns the count."""
    async with LocalRealtime() as server:
        turns, count = first, 0
        while not await cancel_after(turns, work, server):
            turns, count = turns + stride, count + 1
            assert turns < LAST
    return count


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_cancelled_at_any_turn_it_leaves_nothing_and_the_client_goes_on(work: Work) -> None:
    first = random.randrange(STRIDE)
    assert run_virtual(sweep(work, first, STRIDE), debug=False) > 0, f"first {first}"

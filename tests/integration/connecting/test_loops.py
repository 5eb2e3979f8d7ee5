"""A client is bound to the loop it runs in, and can be used in another loop later."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import Any

import pytest

from supabase_rt import (
    Broadcast,
    ConnectionFailed,
    InvalidState,
    RealtimeChannel,
    RealtimeClient,
    ReconnectPolicy,
)
from supabase_rt._runtime.outcome import Outcome
from supabase_rt._runtime.timer import Timer
from supabase_rt.server import LocalRealtime

from ...support.clients import QUICK, MakeClient
from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.threads import threaded_server
from ...support.waiting import our_tasks, turns, until

# -- loops -------------------------------------------------------------------------------


async def test_two_clients_in_one_loop_do_not_meet(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    one, two = make_client(), make_client()
    got_one, got_two = Recorder(), Recorder()
    await one.channel("room").on("broadcast", {"event": "*"}, got_one).subscribe()
    await two.channel("room").on("broadcast", {"event": "*"}, got_two).subscribe()
    await one.disconnect()
    server.broadcast("room", "x", {"n": 1})
    await got_two.count(1)
    assert got_one.seen == []
    assert two.is_connected()


async def test_a_client_at_work_cannot_be_used_in_another_thread(
    client: RealtimeClient,
) -> None:
    await client.connect()

    async def elsewhere() -> None:
        client.connect()

    with pytest.raises(InvalidState) as caught:
        await asyncio.to_thread(asyncio.run, elsewhere())
    assert "another event loop" in str(caught.value)
    assert "call_soon_threadsafe" in caught.value.hint
    with pytest.raises(InvalidState, match="another thread") as caught:
        await asyncio.to_thread(client.connect)
    assert client.is_connected()


def test_a_client_lives_on_in_the_next_loop() -> None:
    seen: list[str] = []

    async def main(client: RealtimeClient) -> None:
        client.connect()
        await client.channel("room")
        await client.disconnect()

    with threaded_server() as server:
        client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key})
        client.channel("room").subscribe(lambda status: seen.append(str(status)))
        asyncio.run(main(client))
        asyncio.run(main(client))
    assert seen == ["SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED", "CHANNEL_ERROR"]


def test_a_client_whose_loop_ended_under_it_is_used_again() -> None:
    statuses, got = Statuses(), Recorder()

    async def first(client: RealtimeClient) -> None:
        channel = client.channel("room", {"config": {"broadcast": {"self": True}}})
        await channel.on("broadcast", {"event": "*"}, got).subscribe(statuses)

    async def second(client: RealtimeClient) -> None:
        await client.connect()
        channel = await client.channel("room").subscribe()
        await channel.send({"type": "broadcast", "event": "x", "payload": {"n": 1}})
        await got.count(1)
        await client.disconnect()
        assert our_tasks() == []

    with threaded_server() as server:
        client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key})
        asyncio.run(first(client))
        asyncio.run(second(client))
        gc.collect()
        assert server.connections == 2
    assert statuses.names == ["SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED", "CHANNEL_ERROR"]
    assert "event loop" in str(statuses.errors[1])


def test_a_connect_that_was_only_written_down_begins_when_it_is_awaited() -> None:
    async def main(client: RealtimeClient, connecting: Outcome[None]) -> None:
        await connecting
        assert client.is_connected()
        await client.disconnect()
        await connecting

    async def refused(connecting: Outcome[None]) -> None:
        with pytest.raises(ConnectionFailed, match="HTTP 401"):
            await connecting
        assert our_tasks() == []

    with threaded_server() as server:
        client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key})
        asyncio.run(main(client, client.connect()))
        server.faults.refuse(401)
        asyncio.run(refused(client.connect()))


def test_a_disconnect_that_nobody_awaits_closes_all_though_the_loop_ends_with_it() -> None:
    """Otherwise aiohttp and asyncio complain, which fails a test."""

    async def main(client: RealtimeClient) -> None:
        await client.channel("room").subscribe()
        client.disconnect()

    with threaded_server() as server:
        client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key})
        asyncio.run(main(client))
        gc.collect()
        assert client._parts.connection.http is None
        asyncio.run(client.wait_closed())
        assert client.connection_state() == "closed"


def test_a_client_whose_loop_ended_between_two_attempts_is_used_again() -> None:
    async def first(client: RealtimeClient) -> None:
        events = ClientEvents(client)
        client.channel("room").subscribe()
        await events.some("reconnecting")
        # Between two attempts no task of ours runs that could close the session.
        own = client._parts.connection.http
        assert own is not None
        await own.close()

    async def second(client: RealtimeClient) -> None:
        await client.channel("room")
        await client.disconnect()

    policy = ReconnectPolicy(initial_backoff=0.05, jitter=0)
    with threaded_server() as server:
        server.faults.refuse(503)
        client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key}, reconnect=policy)
        asyncio.run(first(client))
        server.faults.refuse(None)
        asyncio.run(second(client))
        assert server.connections == 1


def test_a_handler_whose_worker_died_with_its_loop_hears_in_the_next_one() -> None:
    """A notebook or another framework may close its loop while tasks are pending."""
    got: list[int] = []

    async def handler(broadcast: Broadcast) -> None:
        got.append(broadcast.payload["n"])

    async def hear(channel: RealtimeChannel, number: int) -> None:
        await channel.subscribe()
        await channel.send({"type": "broadcast", "event": "x", "payload": {"n": number}})
        await until(lambda: number in got)

    async def cancel_all_but(name: str) -> list[asyncio.Task[Any]]:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        kept = [task for task in tasks if name in task.get_name()]
        gone = tasks.difference(kept)
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
        return kept

    async def hear_and_leave(client: RealtimeClient, channel: RealtimeChannel) -> None:
        async with client:
            await hear(channel, 2)

    with threaded_server() as server:
        client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key}, reconnect=QUICK)
        channel = client.channel("room", {"config": {"broadcast": {"self": True}}})
        channel.on("broadcast", {"event": "x"}, handler)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(hear(channel, 1))
        left = loop.run_until_complete(cancel_all_but("handler"))
        loop.close()
        assert len(left) == 1
        channel.off("system")
        asyncio.run(hear_and_leave(client, channel))
        assert got == [1, 2]
        assert client.health().reconnects == 1
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


# -- the one timer -----------------------------------------------------------------------


async def test_a_timer_never_fires_late_and_is_only_moved_forward() -> None:
    loop = asyncio.get_running_loop()
    fired: list[float] = []
    timer = Timer(lambda: fired.append(loop.time()))
    start, context = loop.time(), contextvars.copy_context()
    timer.set(loop, start + 3600, context)
    timer.set(loop, start + 0.002, context)
    timer.set(
        loop, start + 3600, context
    )  # fires earlier; the owner would find nothing due and set it anew
    await until(lambda: fired)
    assert fired[0] >= start + 0.002
    timer.set(loop, start, context)
    timer.set(loop, None, context)
    await turns()
    assert len(fired) == 1

"""Calls that cross each other: in handlers and listeners, during a close, and after a
cancellation.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from supabase_rt import (
    ConnectionFailed,
    InvalidState,
    RealtimeChannel,
    RealtimeClient,
    ReconnectPolicy,
)
from supabase_rt._runtime.outcome import Outcome
from supabase_rt.server import LocalRealtime
from supabase_rt.types import ChannelOptions

from ...robustness.faults.virtual import VirtualLoop, run_virtual
from ...support.clients import QUICK, MakeClient
from ...support.recorder import ClientEvents, Statuses
from ...support.threads import threaded_server
from ...support.waiting import our_tasks, turns, until

ECHO: ChannelOptions = {"config": {"broadcast": {"self": True}}}
EVENT = {"type": "broadcast", "event": "x", "payload": {}}


async def echo_channel(client: RealtimeClient, handler: Any, **options: Any) -> RealtimeChannel:
    channel = client.channel("room", ECHO)
    channel.on("broadcast", {"event": "x"}, handler, **options)
    return await channel.subscribe()


def outside_of_the_loop(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# -- connect and disconnect in one turn ------------------------------------------------------


async def test_connect_and_disconnect_in_one_handler_leave_no_link(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    def handler() -> None:
        client.disconnect()
        client.connect()
        client.disconnect()

    channel = await echo_channel(client, handler)
    await channel.send(EVENT)
    await until(lambda: server.open_connections == 0)
    await client.disconnect()
    assert server.connections == 1
    assert our_tasks() == []


async def test_a_connect_recorded_before_the_loop_is_taken_back_by_disconnect(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    outside_of_the_loop(client.connect)
    await client.disconnect()
    await asyncio.sleep(0.05)
    assert server.connections == 0
    assert our_tasks() == []


async def test_an_error_listener_that_connects_anew_gets_one_link(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.faults.refuse(503)

    def again() -> None:
        client.off("error")
        client.disconnect()
        server.faults.refuse(None)
        client.connect()

    client.on("error", again)
    client.connect()
    await until(client.is_connected)
    await asyncio.sleep(0.05)
    assert our_tasks() == ["supabase_rt:link"]
    await client.channel("room").subscribe()
    assert server.connections == 1


@pytest.mark.parametrize("count", range(16))
async def test_wait_closed_waits_for_the_new_connection(client: RealtimeClient, count: int) -> None:
    await client.connect()
    client.disconnect()
    await turns(count)
    await client.connect()
    waiting = asyncio.ensure_future(client.wait_closed())
    await asyncio.sleep(0.01)
    assert not client._parts.connection.shutdown.is_closed
    await client.disconnect()
    await waiting


async def test_a_callback_that_connects_anew_is_not_told_of_the_end_before(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(reconnect=ReconnectPolicy.disabled())
    connecting: list[Any] = []

    def told(status: str) -> None:
        if status == "CLOSED" and not connecting:
            server.faults.refuse(None)
            connecting.append(client.connect())

    await client.channel("room").subscribe(told)
    server.faults.refuse(503)
    server.faults.cut()
    await until(lambda: connecting)
    await connecting[0]
    assert client.is_connected()
    await client.disconnect()
    await client.wait_closed()


def test_a_channel_made_in_the_moment_in_which_the_socket_was_idle_too_long_is_joined() -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        async with LocalRealtime() as server:
            client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key})
            statuses = Statuses()
            await client.remove_channel(await client.channel("room").subscribe())
            client.on("heartbeat", lambda: client.channel("next").subscribe(statuses))
            # The next heartbeat and the end of an idle socket are due in one turn.
            loop.lag(1000.0)
            await until(lambda: statuses.names)
            await turns(20)
            assert statuses.names == ["SUBSCRIBED"]
            assert client.is_connected()
            await client.disconnect()

    run_virtual(play())


def test_a_client_that_a_callback_ended_in_that_moment_is_closed_for_good() -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        async with LocalRealtime() as server:
            client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key})
            await client.remove_channel(await client.channel("room").subscribe())
            client.on("heartbeat", lambda: client.disconnect())
            loop.lag(1000.0)
            await client.wait_closed()
            assert client.connection_state() == "closed"

    run_virtual(play())


@pytest.mark.parametrize("is_awaited", [True, False])
def test_who_asked_for_a_connection_hears_of_one_though_nobody_has_a_channel(
    is_awaited: bool,
) -> None:
    async def play() -> None:
        async with LocalRealtime() as server:
            client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key})
            await client.remove_channel(await client.channel("room").subscribe())
            server.faults.refuse(503)
            server.faults.cut()
            await until(lambda: not client.is_connected())
            asked = client.connect()
            if is_awaited:
                asyncio.get_running_loop().call_later(100.0, server.faults.reset)
                await asked
                assert client.is_connected()
                # No call waits any more, so the client is idle again.
                await until(lambda: not client.is_connected(), 200.0)
            else:
                await until(asked.done, 200.0)
                with pytest.raises(ConnectionFailed, match="the last channel was left"):
                    await asked
            await client.disconnect()

    run_virtual(play())


# -- cancelled -------------------------------------------------------------------------------


async def test_leaving_a_client_that_is_cancelled_still_disconnects(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    entered = asyncio.Event()

    async def main() -> None:
        async with client:
            await client.channel("room").subscribe()
            server.faults.stall()
            entered.set()

    task = asyncio.ensure_future(main())
    await entered.wait()
    await turns()
    task.cancel()
    await turns()
    server.faults.resume()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert our_tasks() == []


async def test_a_cancelled_wait_for_lets_go_of_its_registration(client: RealtimeClient) -> None:
    channel = await client.channel("room").subscribe()

    async def wait() -> bool:
        # pytest.raises would keep the traceback, and its frames the awaited outcome.
        try:
            await asyncio.wait_for(channel.wait_for("broadcast", {"event": "x"}), 0.001)
        except TimeoutError:
            return True
        return False

    # Each in its own task: Python 3.13.0 keeps the last cancellation of a task that goes on.
    waits = [asyncio.create_task(wait()) for _ in range(3)]
    assert await asyncio.gather(*waits) == [True] * 3
    waits.clear()
    gc.collect()
    assert len(channel._handlers.bound) == channel._streams.waiting == 0


async def test_disconnect_ends_every_token_callback(make_client: MakeClient) -> None:
    started: list[int] = []

    async def hang() -> None:
        started.append(1)
        await asyncio.sleep(3600)

    client = make_client(access_token=hang)
    for number in (1, 2, 3):
        client.set_auth()
        while len(started) < number:
            await asyncio.sleep(0)
    await client.disconnect()
    assert our_tasks() == []


async def test_a_frame_is_settled_though_disconnect_meets_the_loss(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    await client.connect()
    link = client._parts.connection.links.current
    assert link is not None
    server.faults.close(1000)
    while link.transport is not None:
        await asyncio.sleep(0)
    outcome: Outcome[str] = Outcome()
    link.put("frame", outcome)
    await client.disconnect()
    assert outcome.done()


# -- loops and threads -----------------------------------------------------------------------


def test_a_subscribe_between_two_loops_is_no_loss() -> None:
    with threaded_server() as server:
        client = RealtimeClient(
            server.ws_url, params={"apikey": server.anon_key}, timeout=2.0, reconnect=QUICK
        )

        async def first() -> None:
            await client.connect()
            await client.disconnect()

        asyncio.run(first())
        statuses, events = Statuses(), ClientEvents(client)
        channel = client.channel("room").subscribe(statuses)
        client.set_auth(server.anon_key)

        async def second() -> None:
            await channel
            assert statuses.names == ["SUBSCRIBED"]
            assert events.names() == ["open"]
            await client.disconnect()

        asyncio.run(second())


async def test_set_auth_from_another_thread_says_so(client: RealtimeClient) -> None:
    await client.connect()
    with pytest.raises(InvalidState, match="another thread"):
        await asyncio.to_thread(client.set_auth, "token")
    assert client.access_token_value is None


def test_a_send_over_http_in_a_loop_that_ends_leaves_no_coroutine() -> None:
    client = RealtimeClient("ws://127.0.0.1:9", params={"apikey": "key"})

    async def main() -> None:
        client.channel("room").send(EVENT)

    asyncio.run(main())
    gc.collect()


# -- exceptions ------------------------------------------------------------------------------


async def test_an_error_raised_many_times_does_not_grow(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.faults.refuse_next_join("Unauthorized: You do not have permissions to read from here")
    channel = client.channel("room", {"config": {"private": True}}).subscribe()
    depths = []
    for _ in range(5):
        with pytest.raises(Exception, match="Unauthorized") as found:
            await channel
        depths.append(len(found.traceback))
    assert depths[1:] == depths[1:2] * 4


async def test_a_threaded_handler_may_raise_stop_iteration(client: RealtimeClient) -> None:
    seen: list[int] = []

    def handler() -> None:
        seen.append(1)
        next(iter(()))

    channel = await echo_channel(client, handler, thread=True)
    await channel.send(EVENT)
    await channel.send(EVENT)
    await until(lambda: len(seen) == 2)
    await until(lambda: client.health().handler_errors == 2)


# -- a listener that changes its mind ----------------------------------------------------------


async def test_a_connect_in_an_open_listener_is_told_of_its_own_link(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    begun: list[Outcome[None]] = []

    def again() -> None:
        client.off("open")
        client.disconnect()
        begun.append(client.connect())

    client.on("open", again).connect()
    await until(lambda: begun)
    await begun[0]
    assert client.is_connected()
    assert server.connections == 2


async def test_a_request_begun_by_a_handler_while_closing_is_waited_for(
    client: RealtimeClient,
) -> None:
    begun: list[Outcome[Any]] = []
    started = asyncio.Event()

    async def handler() -> None:
        started.set()
        await asyncio.sleep(0.05)
        begun.append(channel.http_send("late", {}))

    channel = await echo_channel(client, handler)
    await channel.send(EVENT)
    await started.wait()
    await client.disconnect()
    assert begun[0].done()
    assert await begun[0] == {"success": True}

"""Connecting, giving up, and closing when idle."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from supabase_rt import (
    ConnectionFailed,
    GaveUp,
    RealtimeClient,
    ReconnectPolicy,
)
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.recorder import ClientEvents, Statuses
from ...support.waiting import our_tasks, turns, until

# -- connect -----------------------------------------------------------------------------


@pytest.mark.conformance("LC11", "PS13", "realtime.client.connect")
async def test_connect_starts_at_the_call_and_is_awaited_any_number_of_times(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    outcome = client.connect()
    assert client.connection_state() == "connecting"
    assert client.is_connecting()
    await until(lambda: server.connections == 1)
    await outcome
    await outcome
    assert client.is_connected()


@pytest.mark.conformance("LC22", "PS15")
async def test_a_second_connect_changes_nothing(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    await asyncio.gather(client.connect(), client.connect())
    await client.connect()
    client.connect()
    await turns()
    assert server.connections == 1


async def test_an_awaited_failure_is_raised_and_nothing_keeps_running(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    events = ClientEvents(client)
    server.faults.refuse(503)
    with pytest.raises(ConnectionFailed) as caught:
        await client.connect()
    assert caught.value.status == 503
    assert our_tasks() == []
    assert client.connection_state() == "closed"
    assert events.seen == []  # only the awaiting caller gets the error
    server.faults.refuse(None)
    await client.connect()
    assert client.is_connected()


@pytest.mark.conformance("PS14")
async def test_an_unawaited_failure_is_told_and_tried_again(
    server: LocalRealtime, client: RealtimeClient, caplog: pytest.LogCaptureFixture
) -> None:
    events = ClientEvents(client)
    server.faults.refuse(503)
    outcome = client.connect()
    await events.some("error", 2)
    assert client.is_connecting()
    server.faults.refuse(None)
    await outcome
    assert client.is_connected()
    assert {error.status for error in events.errors if isinstance(error, ConnectionFailed)} == {503}
    assert "HTTP 503" in caplog.text


async def test_a_first_failure_with_a_subscribed_channel_is_told_and_tried_again(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    events, statuses = ClientEvents(client), Statuses()
    server.faults.refuse(503)
    client.channel("room").subscribe(statuses)
    connecting = asyncio.create_task(asyncio.wait_for(client.connect(), 5))
    await events.some("error", 2)
    assert not connecting.done()
    server.faults.refuse(None)
    await connecting
    await statuses.are("CHANNEL_ERROR", "SUBSCRIBED")


async def test_cancelling_the_await_leaves_the_attempt_alone(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.faults.stall(handshakes=True)
    outcome = client.connect()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(outcome, 0.01)
    assert client.is_connecting()
    server.faults.resume()
    await outcome
    assert client.is_connected()


async def test_a_final_failure_that_nobody_awaits_gives_up(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(params={"apikey": "nobody"})
    events = ClientEvents(client)
    client.connect()
    await events.some("gave_up")
    with pytest.raises(GaveUp) as caught:
        await client.wait_closed()
    assert isinstance(caught.value.__cause__, ConnectionFailed)
    assert caught.value.__cause__.status == 401
    assert our_tasks() == []
    assert client.connection_state() == "closed"


async def test_what_nobody_foresaw_in_an_attempt_is_logged_and_tried_again(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    trace = aiohttp.TraceConfig()
    calls: list[int] = []

    async def on_start(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a hook of the user's")

    trace.on_request_start.append(on_start)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        client = make_client(session=session)
        events = ClientEvents(client)
        client.connect()
        await events.some("open")
        await client.disconnect()
    assert str(events.errors[0]) == "internal error: RuntimeError"
    assert "the connection attempt failed" in caplog.text


# -- the end for good --------------------------------------------------------------------


async def test_wait_closed_returns_after_disconnect(client: RealtimeClient) -> None:
    await client.connect()
    waiting = [asyncio.create_task(client.wait_closed()) for _ in range(2)]
    await turns()
    assert not any(task.done() for task in waiting)
    await client.disconnect()
    await asyncio.wait_for(asyncio.gather(*waiting), 1)


async def test_when_it_gives_up_every_channel_is_closed_with_the_reason(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(reconnect=ReconnectPolicy(initial_backoff=0.01, jitter=0, max_attempts=2))
    events, first, second = ClientEvents(client), Statuses(), Statuses()
    joined = client.channel("one").subscribe(first)
    await joined
    await client.channel("two").subscribe(second)
    server.faults.refuse(503)
    server.faults.cut()
    with pytest.raises(GaveUp, match="after 2 attempts") as caught:
        await client.wait_closed()
    assert caught.value.attempts == 2
    for statuses in (first, second):
        assert statuses.names == ["SUBSCRIBED", "CHANNEL_ERROR", "CLOSED"]
        assert statuses.errors[-1] is caught.value
    assert events.of("gave_up") == [(caught.value,)]
    assert client.get_channels() == []
    assert joined.state == "closed"
    with pytest.raises(GaveUp):
        await joined
    assert our_tasks() == []
    assert "gave up after 2 attempts" in caplog.text


async def test_with_reconnecting_switched_off_a_loss_is_final(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(reconnect=ReconnectPolicy.disabled())
    statuses = Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.cut()
    with pytest.raises(GaveUp, match="switched off"):
        await client.wait_closed()
    assert statuses.names == ["SUBSCRIBED", "CHANNEL_ERROR", "CLOSED"]
    await client.connect()  # the next attempt is up to the user
    assert client.is_connected()
    await client.disconnect()
    await client.wait_closed()


async def test_awaiting_connect_when_the_policy_ends(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(reconnect=ReconnectPolicy(initial_backoff=0.01, jitter=0, max_attempts=2))
    server.faults.refuse(503)
    client.channel("room").subscribe()
    with pytest.raises(ConnectionFailed) as caught:
        await client.connect()
    assert caught.value.status == 503
    assert our_tasks() == []


async def test_reconnect_after_of_supabase_js_wins_over_the_policy(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    tries: list[int] = []

    def after(number: int) -> float:
        tries.append(number)
        return 0.01 * number

    client = make_client(reconnect_after=after)
    events = ClientEvents(client)
    await client.connect()
    server.faults.refuse(503)
    server.faults.cut()
    await until(lambda: len(tries) >= 3)
    server.faults.refuse(None)
    await events.some("reconnected")
    assert tries[:3] == [1, 2, 3]
    assert [delay for _, delay, _ in events.of("reconnecting")][:3] == [0.01, 0.02, 0.03]


async def test_a_link_that_proved_itself_starts_the_count_anew(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(
        reconnect=ReconnectPolicy(initial_backoff=0.01, jitter=0, stable_after=0.0)
    )
    events = ClientEvents(client)
    await client.connect()
    for number in range(3):
        server.faults.cut()
        await events.some("reconnected", number + 1)
    assert [attempt for attempt, _, _ in events.of("reconnecting")] == [0, 0, 0]


async def test_a_link_that_flaps_is_slowed_down(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    policy = ReconnectPolicy(initial_backoff=0.01, jitter=0, stable_after=60, outage_share=None)
    client = make_client(reconnect=policy)
    events = ClientEvents(client)
    await client.connect()
    for number in range(3):
        server.faults.cut()
        await events.some("reconnected", number + 1)
    assert [delay for _, delay, _ in events.of("reconnecting")] == [0.0, 0.01, 0.02]


# -- deferred disconnect -----------------------------------------------------------------


@pytest.mark.conformance("CC12", "CC13", "SI3", "realtime.configuration.deferred_disconnect")
async def test_without_channels_the_socket_goes_after_a_while(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(disconnect_on_empty_channels_after=0.05)
    await client.remove_channel(await client.channel("room").subscribe())
    assert client.is_connected()
    await until(lambda: client.connection_state() == "closed")
    await until(lambda: our_tasks() == [])
    await client.channel("room").subscribe()
    assert client.is_connected()
    assert server.connections == 2


@pytest.mark.conformance("CC16")
async def test_without_channels_the_socket_goes_at_once_if_so_wished(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(disconnect_on_empty_channels_after=0)
    await client.remove_channel(await client.channel("room").subscribe())
    await until(lambda: client.connection_state() == "closed")


@pytest.mark.conformance("CC14")
async def test_a_new_channel_keeps_the_socket(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(disconnect_on_empty_channels_after=0.05)
    await client.remove_channel(await client.channel("room").subscribe())
    client.channel("other")
    with pytest.raises(AssertionError):
        await until(lambda: not client.is_connected(), timeout=0.15)
    assert server.connections == 1


async def test_a_client_at_rest_is_not_closed_for_good(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(disconnect_on_empty_channels_after=0)
    channel = client.channel("room").subscribe()
    await channel
    waiting = asyncio.create_task(client.wait_closed())
    await client.remove_channel(channel)
    await until(lambda: client.connection_state() == "closed")
    await turns(20)
    assert not waiting.done()
    await client.channel("room").subscribe()
    await client.disconnect()
    await asyncio.wait_for(waiting, 1)


async def test_a_client_at_rest_is_closed_for_good_by_disconnect(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(disconnect_on_empty_channels_after=0)
    await client.remove_channel(await client.channel("room").subscribe())
    await until(lambda: client.connection_state() == "closed")
    await client.disconnect()
    await asyncio.wait_for(client.wait_closed(), 1)

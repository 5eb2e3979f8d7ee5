"""The loss of a channel, its rejoin, and leaving it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from supabase_rt import (
    RealtimeChannel,
    RealtimeClient,
    ReconnectPolicy,
    TimedOut,
)
from supabase_rt.server import LocalRealtime
from supabase_rt.types import ChannelOptions

from ...support.clients import MakeClient
from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import our_tasks, turns, until

TABLE = {"event": "*", "schema": "public", "table": "messages"}


def events_of(server: LocalRealtime) -> list[str]:
    return [each.event for each in server.received]


# -- losing ------------------------------------------------------------------------------


async def test_a_crashed_channel_rejoins_with_its_payload(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses, got = Statuses(), Recorder()
    channel = client.channel("room", {"config": {"broadcast": {"self": True}}})
    channel.on("postgres_changes", TABLE, got)
    await channel.subscribe(statuses)
    server.faults.phx_error("room")
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    first, second = (each.payload for each in server.received if each.event == "phx_join")
    assert first == second
    assert server.connections == 1
    await channel.ready()
    server.insert("messages", {"id": 1})
    await got.count(1)


async def test_a_replaced_status_callback_leaves_no_task(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(reconnect=ReconnectPolicy(enabled=False))
    first, second = Statuses(), Statuses()

    async def before(status: Any, error: Any) -> None:
        first(status, error)

    async def after(status: Any, error: Any) -> None:
        second(status, error)

    channel = client.channel("room")
    await channel.subscribe(before)
    server.faults.phx_error("room")
    await first.are("SUBSCRIBED", "CHANNEL_ERROR")
    await channel.subscribe(after)
    await second.are("SUBSCRIBED")
    await turns()
    handlers = [name for name in our_tasks() if name.startswith("supabase_rt:handler")]
    assert [name.rpartition(".")[2] for name in handlers] == ["after"]


async def test_an_unasked_close_is_a_loss(server: LocalRealtime, client: RealtimeClient) -> None:
    statuses = Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.phx_close("room")
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    assert "closed by the server" in str(statuses.errors[1])


async def test_an_unasked_close_names_the_system_message_before_it(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses = Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.phx_close("room", "Something moved")
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    assert "Something moved" in str(statuses.errors[1])


@pytest.mark.conformance("PC44")
async def test_an_unasked_close_is_the_end_as_in_supabase_js_if_so_wished(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(reconnect=ReconnectPolicy(rejoin_closed=False))
    statuses = Statuses()
    channel = await client.channel("room").subscribe(statuses)
    server.faults.phx_close("room")
    await statuses.are("SUBSCRIBED", "CLOSED")
    assert channel.state == "closed"
    assert client.get_channels() == []


@pytest.mark.conformance("CE2")
async def test_a_loss_is_told_once_however_often_reconnecting_fails(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses, events = Statuses(), ClientEvents(client)
    await client.channel("room").subscribe(statuses)
    server.faults.refuse(503)
    server.faults.cut()
    await until(lambda: len(events.of("reconnecting")) >= 4)
    assert statuses.names == ["SUBSCRIBED", "CHANNEL_ERROR"]
    server.faults.refuse(None)
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    assert events.of("resumed")[0][0] == "realtime:room"
    downtime = client.channel("room").last_downtime
    assert downtime is not None
    assert downtime == pytest.approx(events.of("resumed")[0][1])


async def test_many_channels_come_back(server: LocalRealtime, client: RealtimeClient) -> None:
    statuses = [Statuses() for _ in range(50)]
    for number, callback in enumerate(statuses):
        client.channel(f"room-{number}").subscribe(callback)
    for callback in statuses:
        await callback.are("SUBSCRIBED")
    server.faults.cut()
    for callback in statuses:
        await callback.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")


# -- leaving -----------------------------------------------------------------------------


@pytest.mark.conformance("CI1", "CL19")
async def test_unsubscribe_waits_for_the_server_and_frees_the_topic(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses = Statuses()
    channel = await client.channel("room").subscribe(statuses)
    leaving = channel.unsubscribe()
    assert channel.state == "leaving"
    assert client.get_channels() == []
    assert client.channel("room") is not channel
    assert await leaving == "ok"
    assert channel.state == "closed"
    assert statuses.names == ["SUBSCRIBED", "CLOSED"]
    assert await channel.unsubscribe() == "ok"
    assert statuses.names == ["SUBSCRIBED", "CLOSED"]


async def test_unsubscribe_twice_at_once(server: LocalRealtime, client: RealtimeClient) -> None:
    channel = await client.channel("room").subscribe()
    assert list(await asyncio.gather(channel.unsubscribe(), channel.unsubscribe())) == ["ok"] * 2
    assert events_of(server) == ["phx_join", "phx_leave"]


@pytest.mark.conformance("PU12", "PU13")
async def test_unsubscribe_without_answer_times_out_and_closes(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses = Statuses()
    channel = await client.channel("room").subscribe(statuses)
    server.faults.stall()
    assert await channel.unsubscribe(timeout=0.02) == "timed out"
    assert channel.state == "closed"
    assert statuses.names == ["SUBSCRIBED", "CLOSED"]
    server.faults.resume()


@pytest.mark.parametrize("state", ["never", "connecting", "joining", "errored"])
async def test_unsubscribe_from_every_state(
    server: LocalRealtime, client: RealtimeClient, state: str
) -> None:
    statuses = Statuses()
    channel = client.channel("room")
    if state == "joining":
        await client.connect()
        server.faults.drop_next("phx_reply")
    if state != "never":
        channel.subscribe(statuses)
    if state == "joining":
        await until(lambda: server.received)
    if state == "errored":
        await channel
        await client.disconnect()
    assert await channel.unsubscribe() == "ok"
    assert channel.state == "closed"
    assert client.get_channels() == []
    expected = {"never": [], "errored": ["SUBSCRIBED", "CHANNEL_ERROR", "CLOSED"]}
    assert statuses.names == expected.get(state, ["CLOSED"])


async def test_leaving_when_the_link_is_lost_is_left(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = await client.channel("room").subscribe()
    server.faults.stall()
    leaving = channel.unsubscribe()
    server.faults.cut()
    assert await leaving == "ok"
    assert channel.state == "closed"


async def test_a_pending_send_ends_with_the_channel(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = await client.channel("room", {"config": {"broadcast": {"ack": True}}}).subscribe()
    server.faults.drop_next("phx_reply")
    sending = channel.send({"type": "broadcast", "event": "x"})
    await channel.unsubscribe()
    assert await asyncio.wait_for(sending, 1) == "error"


async def test_teardown_is_a_local_end(server: LocalRealtime, client: RealtimeClient) -> None:
    statuses = Statuses()
    channel = await client.channel("room", {"config": {"broadcast": {"ack": True}}}).subscribe(
        statuses
    )
    server.faults.drop_next("phx_reply")
    sending = channel.send({"type": "broadcast", "event": "x"})
    channel.teardown()
    channel.teardown()
    assert channel.state == "closed"
    assert await asyncio.wait_for(sending, 1) == "error"
    await turns()
    assert events_of(server).count("phx_leave") == 0
    assert client.get_channels() == []
    assert statuses.names == ["SUBSCRIBED", "CLOSED"]


@pytest.mark.conformance("AD4", "PC6")
async def test_update_join_payload_is_in_the_next_join(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses = Statuses()
    channel = client.channel("room")
    channel.update_join_payload({"mine": 1})
    await channel.subscribe(statuses)
    channel.update_join_payload({"mine": 2, "more": 3})
    server.faults.phx_error("room")
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    first, second = (each.payload for each in server.received if each.event == "phx_join")
    assert (first["mine"], second["mine"], second["more"]) == (1, 2, 3)


# -- made by hand ------------------------------------------------------------------------


@pytest.mark.conformance("IX3")
async def test_a_channel_made_by_hand_enters_the_list_when_subscribed(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    old = await client.channel("room").subscribe()
    channel = RealtimeChannel("realtime:room", {"config": {"private": False}}, client)
    assert client.get_channels() == [old]
    await channel.subscribe()
    assert client.get_channels() == [channel]
    await until(lambda: old.state == "closed")
    with pytest.raises(TypeError, match=r"use client\.channel\(topic\)"):
        RealtimeChannel("realtime:room")


@pytest.mark.conformance("NX18", "realtime.subscriptions.broadcast_replay")
async def test_replay_is_asked_for_and_advanced(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    client.set_auth(server.token())
    got, statuses = Recorder(), Statuses()
    server.broadcast("room", "x", {"n": 0}, private=True)
    options: ChannelOptions = {
        "config": {"private": True, "broadcast": {"replay": {"since": 0, "limit": 5}}}
    }
    channel = client.channel("room", options).on("broadcast", {"event": "*"}, got)
    await channel.subscribe(statuses)
    await got.count(1)
    assert got.seen[0].meta["replayed"] is True
    server.faults.cut()
    server.broadcast("room", "x", {"n": 1}, private=True)
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    await got.count(2)
    server.broadcast("room", "x", {"n": 2}, private=True)
    await got.count(3)
    assert got.values() == [0, 1, 2]
    joins = [each.payload for each in server.received if each.event == "phx_join"]
    since = [join["config"]["broadcast"]["replay"]["since"] for join in joins]
    assert since[0] == 0
    assert since[1] > 0


async def test_nothing_is_left_after_all_of_it(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room").on("broadcast", {"event": "*"}, _slow)
    await channel.subscribe(_slow)
    server.broadcast("room", "x", {})
    await until(lambda: client.health().frames_in == 2)
    await channel.unsubscribe()
    await until(lambda: our_tasks() == ["supabase_rt:link"])


async def _slow(*args: Any) -> None:
    await asyncio.sleep(0)


async def test_an_end_that_nobody_could_read_is_found_out(
    server: LocalRealtime, client: RealtimeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supabase_rt._protocol.channel.join_probe.PROBE_PAUSE", 0.01)
    statuses, got = Statuses(), Recorder()
    channel = client.channel("room").on("broadcast", {"event": "*"}, got).subscribe(statuses)
    await channel
    server.faults.corrupt_next("phx_close")
    server.faults.phx_close("room")
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    server.broadcast("room", "x", {})
    await got.count(1)


async def test_one_whose_turn_to_join_has_not_come_is_told_so_and_joins_later(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of many channels wait longer than one join may take; this is not a failure."""
    monkeypatch.setattr("supabase_rt._protocol.join_queue.JOIN_BURST", 1.0)
    monkeypatch.setattr("supabase_rt._protocol.join_queue.JOIN_RATE", 1.0)
    client, statuses = make_client(), Statuses()
    first = client.channel("first").subscribe()
    second = client.channel("second").subscribe(statuses, timeout=0.05)
    await first
    with pytest.raises(TimedOut) as caught:
        await second
    assert "its turn has not come" in str(caught.value.hint)
    assert (second.state, statuses.names) == ("joining", [])
    await second
    assert statuses.names == ["SUBSCRIBED"]

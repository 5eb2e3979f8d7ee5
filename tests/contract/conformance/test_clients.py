"""Rows about a whole client that no other test covers; against the local server."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from supabase_rt import RealtimeChannel, RealtimeClient
from supabase_rt.server import LocalRealtime
from supabase_rt.types import ChannelOptions, ReplayOptions

from ...support.clients import MakeClient
from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import turns, until

ANY = {"event": "*"}
TABLE = {"event": "*", "schema": "public", "table": "messages"}


def logging_to(lines: list[tuple[str, str, Any]]) -> Any:
    return lambda kind, text, data: lines.append((kind, text, data))


# -- a new client ------------------------------------------------------------------------


@pytest.mark.conformance("LC1", "PS1", "LC14")
async def test_a_new_client_is_empty_and_has_the_default_times() -> None:
    client = RealtimeClient("wss://x.supabase.co/realtime/v1", params={"apikey": "key"})
    assert client.get_channels() == []
    assert client.connection_state() == "closed"
    assert (client.timeout, client.heartbeat_interval) == (10.0, 25.0)
    assert client.endpoint_url().partition("?")[0].endswith("/realtime/v1/websocket")
    assert (client.health().pending_replies, client.health().frames_out) == (0, 0)
    assert inspect.signature(RealtimeClient).parameters["vsn"].default == "2.0.0"


@pytest.mark.conformance("LC2", "PS3")
async def test_times_that_are_given_hold(make_client: MakeClient) -> None:
    client = make_client(timeout=40, heartbeat_interval=60)
    assert (client.timeout, client.heartbeat_interval) == (40.0, 60.0)
    assert client.channel("room").timeout == 40.0


@pytest.mark.conformance("LC3", "realtime.configuration.heartbeat_interval")
async def test_the_heartbeat_callback_of_the_options_hears_of_every_interval(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    seen: list[str] = []
    client = make_client(
        heartbeat_interval=0.05,
        heartbeat_timeout=5,
        heartbeat_callback=lambda status: seen.append(str(status)),
    )
    await client.connect()
    await until(lambda: len(seen) >= 4)
    assert seen[:4] == ["sent", "ok"] * 2


@pytest.mark.conformance("LC20", "SA4", "SA5", "realtime.client.connection_state")
async def test_the_walk_of_a_connection(server: LocalRealtime, client: RealtimeClient) -> None:
    def states() -> tuple[Any, ...]:
        return (
            str(client.connection_state()),
            client.is_connecting(),
            client.is_connected(),
            client.is_disconnecting(),
        )

    seen = [states()]
    connecting = client.connect()
    seen.append(states())
    await connecting
    seen.append(states())
    closing = client.disconnect()
    seen.append(states())
    await closing
    seen.append(states())
    assert seen == [
        ("closed", False, False, False),
        ("connecting", True, False, False),
        ("open", False, True, False),
        ("closing", False, False, True),
        ("closed", False, False, False),
    ]


@pytest.mark.conformance("LC21")
async def test_a_close_by_the_server_is_no_disconnecting(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    seen: list[bool] = []
    client.on("close", lambda: seen.append(client.is_disconnecting()))
    await client.connect()
    server.faults.close(1000)
    await until(lambda: seen)
    assert seen == [False]
    await until(client.is_connected)


# -- losses ------------------------------------------------------------------------------


@pytest.mark.conformance("CE22", "NE4")
async def test_the_end_of_a_link_is_told_with_code_and_reason(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses = Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.close(4001, "Network Failure")
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    error: Any = statuses.errors[1]
    assert str(error) == "socket closed: 4001 (Network Failure)"
    assert (error.close_code, error.reason) == (4001, "Network Failure")


@pytest.mark.conformance("CE24", "NE8", "NE9")
async def test_a_crash_without_a_payload(server: LocalRealtime, client: RealtimeClient) -> None:
    statuses = Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.send_raw('[null,null,"realtime:room","phx_error",null]')
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    assert str(statuses.errors[1]) == "channel error: connection lost"


@pytest.mark.conformance("CP14")
async def test_a_refusal_without_a_callback_raises_nowhere(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.faults.refuse_next_join("Unauthorized: no")
    events = ClientEvents(client)
    channel = client.channel("room").subscribe()
    await until(lambda: channel.state == "errored")
    assert client.is_connected()
    assert [str(error) for error in events.errors] == ["Unauthorized: no"]


@pytest.mark.conformance("PC33")
async def test_the_callback_of_a_refusal_may_remove_the_channel(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.faults.refuse_next_join("Unauthorized: no")
    seen: list[str] = []

    def callback(status: str) -> None:
        seen.append(str(status))
        if status == "CHANNEL_ERROR":
            client.remove_channel(channel)

    channel = client.channel("room")
    channel.subscribe(callback)
    await until(lambda: len(seen) == 2)
    assert (seen, client.get_channels()) == (["CHANNEL_ERROR", "CLOSED"], [])


# -- what the logger hears ---------------------------------------------------------------


@pytest.mark.conformance("CE9", "CE12", "realtime.configuration.custom_logger")
async def test_the_logger_hears_how_channels_fare(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    lines: list[tuple[str, str, Any]] = []
    client = make_client(logger=logging_to(lines))
    await client.connect()
    statuses = Statuses()
    server.faults.refuse_next_join("InitializingProjectConnection: not yet")
    channel = client.channel("one").subscribe(statuses)
    await statuses.are("CHANNEL_ERROR", "SUBSCRIBED")
    await channel.unsubscribe()
    server.faults.drop_next("phx_reply")
    late = Statuses()
    client.channel("two").subscribe(late, timeout=0.6)
    await late.are("TIMED_OUT", "SUBSCRIBED")
    told = [line for line in lines if line[0] == "channel"]
    assert told == [
        ("channel", "error realtime:one", statuses.errors[0]),
        ("channel", "close realtime:one", None),
        ("channel", "timeout realtime:two", 0.6),
    ]


async def test_the_logger_hears_how_the_socket_fares_and_not_the_key(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    lines: list[tuple[str, str, Any]] = []
    client = make_client(logger=logging_to(lines), heartbeat_timeout=0.05)
    events = ClientEvents(client)
    await client.connect()
    server.faults.refuse(503)
    server.faults.close(4001, "bye")
    await events.some("error")
    server.faults.refuse(None)
    await events.some("reconnected")
    server.faults.heartbeat_replies = False
    await client.send_heartbeat()
    await events.some("reconnected", 2)
    told = [line for line in lines if line[0] == "transport"]
    opened = ("transport", f"connected to {server.ws_url}", None)
    assert told[:2] == [opened, ("transport", "close", {"code": 4001, "reason": "bye"})]
    assert ("transport", "error", events.errors[0]) in told
    assert told.count(opened) == 3
    assert "heartbeat timeout. Attempting to re-establish connection" in [line[1] for line in told]
    assert server.anon_key not in repr(lines)


@pytest.mark.conformance("CC18")
async def test_a_second_object_of_a_topic_makes_the_first_one_leave(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    lines: list[tuple[str, str, Any]] = []
    client = make_client(logger=logging_to(lines))
    first = await client.channel("topic").subscribe()
    second = RealtimeChannel("realtime:topic", None, client)
    await second.subscribe()
    await until(lambda: first.state == "closed")
    assert client.get_channels() == [second]
    assert ("transport", 'leaving duplicate topic "realtime:topic"', None) in lines


@pytest.mark.conformance("RT11")
async def test_the_logger_sees_topic_and_event_of_a_message_without_a_ref(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    lines: list[tuple[str, str, Any]] = []
    client = make_client(logger=logging_to(lines))
    await client.connect()
    server.faults.send_raw('[null,null,"test-topic","test-event",{"n":1}]')
    await until(lambda: len(lines) == 2)
    assert lines[1:] == [("receive", "test-topic test-event", {"n": 1})]


# -- channels ----------------------------------------------------------------------------


@pytest.mark.conformance("CI5")
async def test_the_walk_of_a_channel(server: LocalRealtime, client: RealtimeClient) -> None:
    channel = client.channel("room")
    seen: list[Any] = [str(channel.state), channel.joined_once]
    channel.subscribe()
    seen += [str(channel.state), channel.joined_once]
    await channel
    channel.on("broadcast", ANY, print)
    seen.append(str(channel.state))
    await channel.unsubscribe()
    seen += [str(channel.state), client.health().pending_replies]
    assert seen == ["closed", False, "joining", True, "joined", "closed", 0]


@pytest.mark.conformance("CC5", "CC9", "PS34", "realtime.client.remove_channel")
async def test_a_removed_channel_is_out_of_every_list(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = await client.channel("room").subscribe()
    assert client.get_channels() == [channel]
    assert await client.remove_channel(channel) == "ok"
    assert client.get_channels() == client.channels == []
    assert client._parts.client_machine.channels == {}
    assert client.is_connected()


@pytest.mark.conformance("CC10")
async def test_a_removal_without_an_answer_times_out_and_is_one(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(timeout=1)
    channel = await client.channel("room").subscribe(timeout=10)
    server.faults.stall()
    assert await client.remove_channel(channel) == "timed out"
    assert (client.get_channels(), channel.state) == ([], "closed")
    server.faults.resume()


@pytest.mark.conformance("CC17", "SI5")
async def test_removing_all_channels_disconnects_once_and_at_once(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    events = ClientEvents(client)
    await client.channel("one").subscribe()
    await client.channel("two").subscribe()
    assert await client.remove_all_channels() == ["ok", "ok"]
    assert client.connection_state() == "closed"
    assert events.of("close") == [(1000, "")]


@pytest.mark.conformance("CC2", "CC3")
def test_the_options_of_a_private_channel_with_replay() -> None:
    client = RealtimeClient("wss://x.supabase.co/realtime/v1", params={"apikey": "key"})
    replay: ReplayOptions = {"since": 5, "limit": 3}
    channel = client.channel("room", {"config": {"private": True, "broadcast": {"replay": replay}}})
    assert channel.topic == "realtime:room"
    assert channel.private
    assert channel.params["config"] == {
        "broadcast": {"replay": replay},
        "presence": {"key": "", "enabled": False},
        "private": True,
    }


@pytest.mark.conformance("CC1")
def test_replay_on_a_public_channel_raises_in_the_words_of_supabase_js() -> None:
    client = RealtimeClient("wss://x.supabase.co/realtime/v1", params={"apikey": "key"})
    with pytest.raises(ValueError) as caught:
        client.channel("room", {"config": {"broadcast": {"replay": {"since": 0}}}})
    assert str(caught.value) == (
        "tried to use replay on public channel 'realtime:room'. It must be a private channel."
    )
    assert client.get_channels() == []


@pytest.mark.conformance("SI2")
async def test_the_socket_stays_from_one_channel_to_the_next(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    for name in ("one", "two"):
        await client.remove_channel(await client.channel(name).subscribe())
    assert (client.is_connected(), server.connections) == (True, 1)


@pytest.mark.conformance("AD5")
async def test_what_was_merged_into_the_join_before_stays(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    channel.update_join_payload({"one": 1})
    channel.update_join_payload({"two": 2})
    await channel.subscribe()
    (join,) = (each.payload for each in server.received if each.event == "phx_join")
    assert (join["one"], join["two"]) == (1, 2)
    assert join["config"]["private"] is False


# -- handlers that are copied ------------------------------------------------------------


@pytest.mark.conformance("CM8", "CM9", "CM10", "CM11", "CM12")
async def test_the_handlers_of_a_channel_that_was_left_work_on_a_new_one(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got = {kind: Recorder() for kind in ("broadcast", "presence", "postgres_changes", "system")}
    old = client.channel("room")
    old.on("broadcast", {"event": "x"}, got["broadcast"])
    old.on("presence", {"event": "join"}, got["presence"])
    old.on("postgres_changes", TABLE, got["postgres_changes"])
    old.on("system", {}, got["system"])
    await old.subscribe()
    await old.unsubscribe()
    new = client.channel("room")
    new.copy_bindings(old)
    for recorder in got.values():
        recorder.seen.clear()
    await new.subscribe()
    await new.ready()
    server.broadcast("room", "x", {"n": 1})
    await new.track({"me": 1})
    server.insert("messages", {"id": 1})
    server.faults.system("room", "hello", status="ok")
    await until(lambda: all(recorder.seen for recorder in got.values()))
    assert got["broadcast"].values() == [1]
    assert got["presence"].seen[0].new_presences[0]["me"] == 1
    assert got["postgres_changes"].seen[0].new == {"id": 1}
    assert got["system"].seen[-1].message == "hello"


# -- presence and replication ------------------------------------------------------------


@pytest.mark.conformance("NX17")
async def test_without_presence_enabled_no_presence_comes(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    one, two = make_client(), make_client()
    quiet = await one.channel("room").subscribe()
    loud = two.channel("room", {"config": {"presence": {"enabled": True}}})
    await loud.subscribe()
    await loud.track({"n": 1})
    await until(loud.presence_state)
    await one.send_heartbeat()
    await until(lambda: one.health().last_heartbeat_latency is not None)
    assert quiet.presence_state() == {}


@pytest.mark.conformance("NX12")
async def test_the_server_says_when_replication_is_ready(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got = Recorder()
    options: ChannelOptions = {"config": {"broadcast": {"replication_ready": True}}}
    await client.channel("room", options).on("system", {}, got).subscribe()
    await got.count(1)
    assert (got.seen[0].status, got.seen[0].message) == (
        "ok",
        "Replication connection established",
    )


@pytest.mark.conformance("NX13")
async def test_a_replication_that_fails_is_a_loss_with_the_servers_words(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    text = "Replication connection was not established in time"
    statuses = Statuses()
    options: ChannelOptions = {"config": {"broadcast": {"replication_ready": True}}}
    await client.channel("room", options).subscribe(statuses)
    server.faults.phx_close("room", text)
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    assert text in str(statuses.errors[1])


@pytest.mark.conformance("CL20", "CL21", "CL22", "CL23")
async def test_what_may_be_listened_to_after_subscribe(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got = Recorder()
    channel = await client.channel("room").subscribe()
    kinds: Any = (("presence", ANY), ("postgres_changes", TABLE))
    for kind, wanted in kinds:
        with pytest.raises(Exception, match=f"cannot add `{kind}` callbacks for realtime:room"):
            channel.on(kind, wanted, got)
    channel.on("broadcast", ANY, got).on("system", {}, got)
    server.broadcast("room", "x", {"n": 1})
    server.faults.system("room", "hello", status="ok")
    await got.count(2)
    assert [type(event).__name__ for event in got.seen] == ["Broadcast", "SystemMessage"]


@pytest.mark.conformance("CM1")
async def test_a_handler_gets_what_comes_after_its_registration(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got = Recorder()
    channel = await client.channel("room").subscribe()
    server.broadcast("room", "x", {"n": 1})
    await until(lambda: client.health().frames_in == 2)
    await turns()
    channel.on("broadcast", ANY, got)
    server.broadcast("room", "x", {"n": 2})
    await got.count(1)
    assert got.values() == [2]


@pytest.mark.conformance("SJ4", "SJ5", "realtime.client.get_channels")
async def test_the_list_of_channels(server: LocalRealtime, client: RealtimeClient) -> None:
    channels = [client.channel(name) for name in ("one", "two", "three")]
    assert client.get_channels() == channels
    assert await client.remove_channel(channels[0]) == "ok"
    assert client.get_channels() == channels[1:]
    assert await client.remove_all_channels() == ["ok", "ok"]
    assert client.get_channels() == []


@pytest.mark.conformance("PC43", "PC46")
async def test_losses_and_ends_are_told_to_the_callback_and_losses_to_listeners(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.faults.refuse_next_join("Unauthorized: no")
    statuses, events = Statuses(), ClientEvents(client)
    channel = client.channel("room").subscribe(statuses)
    await statuses.are("CHANNEL_ERROR")
    await channel.unsubscribe()
    await statuses.are("CHANNEL_ERROR", "CLOSED")
    assert events.errors == [statuses.errors[0]]


@pytest.mark.conformance("PU15", "PU16", "PC18", "PC19", "PC31", "PC35", "PC36")
async def test_who_asks_for_an_outcome_later_is_told_at_once(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    good = client.channel("good").subscribe()
    assert await good is good
    assert await asyncio.wait_for(_again(good), 1) is good
    server.faults.refuse_next_join("Unauthorized: no")
    bad = client.channel("bad").subscribe()
    for _ in range(2):
        with pytest.raises(Exception, match="Unauthorized: no") as caught:
            await bad
        assert getattr(caught.value, "response", None) == {"reason": "Unauthorized: no"}


async def _again(channel: RealtimeChannel) -> RealtimeChannel:
    return await channel

"""The public client: before a loop, ``async with``, channels, names of supabase-js."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from supabase_rt import (
    ConnectionFailed,
    RealtimeClient,
)
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.peers import closed_port
from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import our_tasks, turns, until

OFFLINE = "wss://x.supabase.co/realtime/v1"


def offline(**options: Any) -> RealtimeClient:
    return RealtimeClient(OFFLINE, params={"apikey": "key"}, **options)


# -- before a loop runs ------------------------------------------------------------------


def test_creating_and_chaining_need_no_loop() -> None:
    client = offline()
    channel = client.channel("room").on("broadcast", {"event": "x"}, print)
    assert channel.subscribe() is channel
    client.connect()
    client.set_auth("token")
    assert channel.state == "joining"
    assert client.connection_state() == "connecting"
    assert client.get_channels() == [channel]


@pytest.mark.parametrize(
    "name",
    ["disconnect", "send_heartbeat", "remove_all_channels"],
)
def test_what_needs_a_loop_says_so(name: str) -> None:
    with pytest.raises(RuntimeError, match="needs a running event loop"):
        getattr(offline(), name)()


def test_what_needs_a_loop_on_a_channel_says_so() -> None:
    client = offline()
    channel = client.channel("room").subscribe()
    message = {"type": "broadcast", "event": "x"}
    for call in (
        lambda: channel.send(message),
        lambda: channel.http_send("x", {}),
        lambda: channel.track({}),
        lambda: channel.untrack(),
        lambda: channel.unsubscribe(),
        lambda: channel.teardown(),
        lambda: channel.wait_for("broadcast", {"event": "*"}),
        lambda: client.remove_channel(channel),
        lambda: client.push({"topic": "t", "event": "e"}),
    ):
        with pytest.raises(RuntimeError, match=r"\(\) needs a running event loop"):
            call()


async def test_a_chain_of_before_joins_when_the_client_starts(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    got, statuses = Recorder(), Statuses()

    def module_level() -> RealtimeClient:
        client = make_client()
        client.channel("room").on("broadcast", {"event": "*"}, got).subscribe(statuses)
        return client

    client = await asyncio.to_thread(module_level)
    await turns()
    assert server.connections == 0
    client.connect()
    await statuses.are("SUBSCRIBED")
    server.broadcast("room", "x", {"n": 1})
    await got.count(1)


# -- async with --------------------------------------------------------------------------


async def test_async_with_connects_and_leaves_every_channel(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses = Statuses()
    async with client as found:
        assert found is client
        assert client.is_connected()
        channel = await client.channel("room").subscribe(statuses)
    assert statuses.names == ["SUBSCRIBED", "CLOSED"]
    assert channel.state == "closed"
    assert client.connection_state() == "closed"
    assert client.get_channels() == []
    assert our_tasks() == []


async def test_async_with_cleans_up_after_an_exception(client: RealtimeClient) -> None:
    async def use() -> None:
        async with client:
            client.channel("room").subscribe()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await use()
    assert our_tasks() == []


async def test_async_with_raises_final_errors(make_client: MakeClient) -> None:
    client = make_client(params={"apikey": "nobody"})
    client.channel("room").subscribe()
    with pytest.raises(ConnectionFailed) as caught:
        async with client:
            raise AssertionError("not reached")
    assert caught.value.status == 401
    assert our_tasks() == []


async def test_async_with_tries_again_within_the_timeout(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    events = ClientEvents(client)
    server.faults.refuse(503)

    async def recover() -> None:
        await events.some("error", 2)
        server.faults.refuse(None)

    recovering = asyncio.create_task(recover())
    async with client:
        assert client.is_connected()
    await recovering


async def test_async_with_raises_the_last_error_after_the_timeout(
    make_client: MakeClient,
) -> None:
    client = make_client(f"ws://127.0.0.1:{closed_port()}", timeout=0.5)
    with pytest.raises(ConnectionFailed, match="cannot connect"):
        async with client:
            raise AssertionError("not reached")
    assert our_tasks() == []


async def test_async_with_raises_a_timeout_of_its_own_where_nothing_failed_yet(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    server.faults.stall(handshakes=True)
    client = make_client(timeout=0.05)
    with pytest.raises(ConnectionFailed, match=r"within 0\.05 s"):
        async with client:
            raise AssertionError("not reached")
    server.faults.resume()


async def test_async_with_is_cancelled_cleanly(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.faults.stall(handshakes=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02), client:
            raise AssertionError("not reached")
    assert our_tasks() == []
    server.faults.resume()


async def test_async_with_twice(server: LocalRealtime, client: RealtimeClient) -> None:
    for _ in range(2):
        async with client:
            await client.channel("room").subscribe()
    assert server.connections == 2


async def test_the_end_is_bounded_where_the_server_is_silent(
    server: LocalRealtime, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supabase_rt._connection.transport.CLOSE_TIMEOUT", 0.05)
    monkeypatch.setattr("supabase_rt._client.client.LEAVE_TIMEOUT", 0.05)
    client = make_client()
    statuses = Statuses()
    async with client:
        await client.channel("room").subscribe(statuses)
        server.faults.stall()
        started = time.monotonic()
    assert time.monotonic() - started < 2
    assert statuses.names == ["SUBSCRIBED", "CLOSED"]
    server.faults.resume()


# -- channels ----------------------------------------------------------------------------


@pytest.mark.conformance("CC4", "PS32-PS33", "realtime.client.channel")
def test_the_same_topic_is_the_same_channel() -> None:
    client = offline()
    channel = client.channel("room", {"config": {"broadcast": {"self": True}}})
    assert channel.topic == "realtime:room"
    assert client.channel("room") is channel
    assert client.channel("room", {}) is channel
    assert client.channel("room", {"config": {}}) is channel
    assert client.channel("room", {"config": {"broadcast": {"self": True}}}) is channel
    assert client.channels == [channel]


@pytest.mark.parametrize(
    "config",
    [
        {"broadcast": {"self": False}},
        {"broadcast": {"ack": True}},
        {"private": True},
        {"presence": {"key": "me"}},
    ],
)
def test_the_same_topic_with_other_options_says_what_differs(config: Any) -> None:
    client = offline()
    client.channel("room", {"config": {"broadcast": {"self": True}}})
    with pytest.raises(ValueError, match="open with other options") as caught:
        client.channel("room", {"config": config})
    assert next(iter(config)) in str(caught.value)
    assert "remove_channel" in str(caught.value)


@pytest.mark.parametrize("topic", ["", None, 5, "a\nb", "x" * 247, "ä" * 124])
def test_a_topic_that_cannot_be_one(topic: Any) -> None:
    with pytest.raises(ValueError, match="topic"):
        offline().channel(topic)


@pytest.mark.parametrize("topic", ["x" * 246, "room:1:*", "realtime:room", "ü"])
def test_a_topic_that_can(topic: str) -> None:
    channel = offline().channel(topic)
    assert (channel.topic, channel.sub_topic) == (f"realtime:{topic}", topic)


@pytest.mark.conformance("CC8")
async def test_remove_channel_frees_the_topic_ten_times_without_await(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got, statuses = Recorder(), [Statuses() for _ in range(11)]
    channel = client.channel("room").on("broadcast", {"event": "*"}, got)
    channel.subscribe(statuses[0])
    for number in range(1, 11):
        client.remove_channel(channel)
        channel = client.channel("room").on("broadcast", {"event": "*"}, got)
        channel.subscribe(statuses[number])
    await channel
    server.broadcast("room", "x", {"n": 1})
    await got.count(1)
    await statuses[10].are("SUBSCRIBED")
    for before in statuses[:10]:
        assert before.names == ["CLOSED"]
    assert client.get_channels() == [channel]
    assert got.values() == [1]


async def test_remove_channel_of_joined_channels_ten_times_without_await(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got = Recorder()
    removals = []
    channel = client.channel("room")
    for _ in range(10):
        await channel.on("broadcast", {"event": "*"}, got).subscribe()
        removals.append(client.remove_channel(channel))
        channel = client.channel("room")
    await channel.on("broadcast", {"event": "*"}, got).subscribe()
    assert [await removal for removal in removals] == ["ok"] * 10
    server.broadcast("room", "x", {"n": 1})
    await got.count(1)
    events = [each.event for each in server.received]
    assert events == ["phx_join", *["phx_leave", "phx_join"] * 10]


@pytest.mark.parametrize("what", [None, "room", 5])
def test_remove_channel_takes_a_channel(what: Any) -> None:
    with pytest.raises(TypeError, match="takes a channel"):
        offline().remove_channel(what)


@pytest.mark.conformance("CC6", "realtime.client.remove_all_channels")
async def test_remove_all_channels_leaves_and_disconnects(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses = Statuses()
    for name in ("one", "two"):
        await client.channel(name).subscribe(statuses)
    client.channel("never")
    assert await client.remove_all_channels() == ["ok", "ok", "ok"]
    assert client.get_channels() == []
    assert statuses.names == ["SUBSCRIBED", "SUBSCRIBED", "CLOSED", "CLOSED"]
    assert client.connection_state() == "closed"
    assert await client.remove_all_channels() == []


@pytest.mark.conformance("CC7")
async def test_remove_all_channels_from_inside_a_handler(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    results: list[Any] = []

    async def leave() -> None:
        results.append(await client.remove_all_channels())

    channel = client.channel("room").on("broadcast", {"event": "*"}, leave)
    await channel.subscribe()
    server.broadcast("room", "x", {})
    await client.wait_closed()
    await until(lambda: results == [["ok"]])
    await until(lambda: our_tasks() == [])


# -- names of supabase-js ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "python"),
    [
        ("getChannels", "get_channels"),
        ("removeChannel", "remove_channel"),
        ("removeAllChannels", "remove_all_channels"),
        ("setAuth", "set_auth"),
        ("sendHeartbeat", "send_heartbeat"),
        ("onHeartbeat", "on_heartbeat"),
        ("isConnected", "is_connected"),
        ("isConnecting", "is_connecting"),
        ("isDisconnecting", "is_disconnecting"),
        ("connectionState", "connection_state"),
        ("endpointURL", "endpoint_url"),
        ("accessTokenValue", "access_token_value"),
        ("hasLogger", "has_logger"),
    ],
)
def test_a_camel_case_name_is_explained(name: str, python: str) -> None:
    client = offline()
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; in Python it is '{python}'"):
        getattr(client, name)
    assert not hasattr(client, "somethingElse")


@pytest.mark.conformance("CF1", "LG2", "LG3")
def test_the_endpoint_and_the_repr() -> None:
    client = RealtimeClient(
        "https://user:letmein@x.supabase.co/realtime/v1",
        params={"apikey": "the-key", "extra": 1},
        log_level="info",
    )
    assert client.endpoint_url() == (
        "wss://user:letmein@x.supabase.co/realtime/v1/websocket"
        "?apikey=the-key&extra=1&log_level=info&vsn=2.0.0"
    )
    assert repr(client) == "<RealtimeClient wss://***@x.supabase.co/realtime/v1 closed>"


def test_no_part_of_a_client_shows_a_secret_to_a_crash_report() -> None:
    client = RealtimeClient(
        OFFLINE,
        params={"apikey": "the-key"},
        headers={"X-Mine": "the-header"},
        proxy="http://user:letmein@127.0.0.1:3128",
        api_key_in="header",
    )
    client.set_auth("the-token")
    parts = client._parts
    connection, machine = parts.connection, parts.client_machine
    every = (client, parts, parts.http_client, machine, machine.context, connection)
    shown = repr((*every, connection._options, connection.tokens, client._endpoint))
    for secret in ("the-key", "the-token", "the-header", "letmein"):
        assert secret not in shown

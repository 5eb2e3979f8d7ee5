"""The public client: channels, ``async with``, events, health, names of supabase-js."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from supabase_rt import (
    ConnectionFailed,
    ConnectionState,
    Health,
    RealtimeClient,
    ReconnectPolicy,
)
from supabase_rt.dispatch import CLIENT_EVENTS
from supabase_rt.server import LocalRealtime

from .support.clients import MakeClient
from .support.peers import RawPeer, closed_port, raw_peer
from .support.recorder import ClientEvents, Recorder, Statuses
from .support.waiting import our_tasks, turns, until

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
    monkeypatch.setattr("supabase_rt.transport.CLOSE_TIMEOUT", 0.05)
    monkeypatch.setattr("supabase_rt.client.LEAVE_TIMEOUT", 0.05)
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
def test_the_same_topic_with_other_options_says_what_differs(config: dict[str, Any]) -> None:
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
    core = client._core
    connection = core.connection
    parts = (client, core, core.rest, core.session, core.session.context, connection)
    shown = repr((*parts, connection._options, connection.tokens, client._endpoint))
    for secret in ("the-key", "the-token", "the-header", "letmein"):
        assert secret not in shown


# -- events ------------------------------------------------------------------------------


async def test_every_event_has_the_arguments_it_promises(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(
        heartbeat_interval=0.3,
        reconnect=ReconnectPolicy(initial_backoff=0.01, jitter=0, max_attempts=1),
    )
    events = ClientEvents(client)
    await client.channel("room").subscribe()
    await events.some("heartbeat", 2)
    server.faults.cut()
    await events.some("resumed")
    server.faults.refuse(503)
    server.faults.cut()
    await events.some("gave_up")
    assert {name for name, _ in events.seen} == set(CLIENT_EVENTS) - {"error"}
    assert all(len(args) == CLIENT_EVENTS[name] for name, args in events.seen)
    topic, since, until_, reason = events.of("gap")[0]
    assert (topic, reason) == ("realtime:room", "lost")
    assert since <= until_ <= time.time() + 1
    names = events.names()
    assert names.index("reconnecting") < names.index("reconnected") < names.index("resumed")
    assert names.index("gap") < names.index("resumed")
    attempt, delay, cause = events.of("reconnecting")[0]
    assert (attempt, delay) == (0, 0.0)
    assert isinstance(cause, Exception)


async def test_resumed_comes_just_before_the_status(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    order: list[str] = []
    client.on("resumed", lambda topic, downtime: order.append(f"resumed {topic}"))
    await client.channel("room").subscribe(lambda status: order.append(str(status)))
    server.faults.cut()
    await until(lambda: len(order) == 4)
    assert order == ["SUBSCRIBED", "CHANNEL_ERROR", "resumed realtime:room", "SUBSCRIBED"]


async def test_a_listener_gets_as_many_arguments_as_it_takes(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    seen: list[Any] = []
    client.on("close", lambda: seen.append(()))
    client.on("close", lambda code: seen.append((code,)))
    client.on("close", lambda *args: seen.append(args))

    async def listener(code: int, reason: str) -> None:
        seen.append(("async", code, reason))

    client.on("close", listener)
    await client.connect()
    await client.disconnect(3000, "x")
    assert seen == [(), (3000,), (3000, "x"), ("async", 3000, "x")]


async def test_on_once_off_and_the_decorator(server: LocalRealtime, client: RealtimeClient) -> None:
    seen: list[str] = []

    @client.on("open")
    def always() -> None:
        seen.append("always")

    @client.once("open")
    def first() -> None:
        seen.append("first")

    assert client.once("open", lambda: seen.append("chained")) is client
    assert client.on("open", always) is client
    for _ in range(2):
        await client.connect()
        await client.disconnect()
    assert seen == ["always", "first", "chained", "always", "always", "always"]
    assert client.off("open", always) is client
    await client.connect()
    await client.disconnect()
    assert len(seen) == 6
    client.on("open", always).off("open").off("open", print)
    await client.connect()
    assert len(seen) == 6


@pytest.mark.parametrize("name", ["message", "OPEN", "", None])
def test_an_unknown_event_is_refused_with_the_known_ones(name: Any) -> None:
    client = offline()
    for call in (client.on, client.once, client.off):
        with pytest.raises(ValueError, match=r"unknown client event .*; known: open, close"):
            call(name, print)


def test_a_listener_that_cannot_take_the_arguments() -> None:
    client = offline()
    with pytest.raises(TypeError, match="needs 1 arguments, an event carries 0"):
        client.on("open", lambda one: None)
    with pytest.raises(TypeError, match="a handler is a function"):
        client.on("open", 5)  # type: ignore[call-overload]


# -- heartbeats --------------------------------------------------------------------------


async def test_the_heartbeat_callback_is_told_and_replaced(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    first: list[Any] = []
    second: list[Any] = []
    client.on_heartbeat(lambda status, latency: first.append((str(status), latency)))
    await client.send_heartbeat()
    assert first == [("disconnected", None)]
    await client.connect()
    await client.send_heartbeat()
    await until(lambda: len(first) == 3)
    assert first[1] == ("sent", None)
    assert first[2][0] == "ok"
    assert client.health().last_heartbeat_latency == first[2][1] > 0
    client.on_heartbeat(lambda status: second.append(str(status)))
    await client.send_heartbeat()
    await until(lambda: second == ["sent", "ok"])
    client.on_heartbeat(None)
    await client.send_heartbeat()
    await until(lambda: client.health().pending_replies == 0)
    assert (len(first), len(second)) == (3, 2)
    with pytest.raises(TypeError):
        client.on_heartbeat(5)  # type: ignore[arg-type]


async def test_a_raising_heartbeat_callback_harms_nothing(
    server: LocalRealtime, client: RealtimeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(status: str) -> None:
        raise RuntimeError("no")

    client.on_heartbeat(broken)
    await client.connect()
    await client.send_heartbeat()
    await until(lambda: client.health().handler_errors == 2)
    assert client.is_connected()
    assert "broken" in caplog.text


# -- the rest ----------------------------------------------------------------------------


async def test_push_sends_a_message_as_it_is(server: LocalRealtime, client: RealtimeClient) -> None:
    client.push({"topic": "realtime:x", "event": "early", "payload": {"n": 0}, "ref": "77"})
    await client.connect()
    client.push({"topic": "realtime:x", "event": "e", "payload": {"n": 1}, "ref": "78"})
    await until(lambda: len(server.received) == 2)
    assert [(each.event, each.ref, each.payload) for each in server.received] == [
        ("early", "77", {"n": 0}),
        ("e", "78", {"n": 1}),
    ]


async def test_push_refuses_what_is_no_message(client: RealtimeClient) -> None:
    with pytest.raises(ValueError):
        client.push({"event": "e"})
    with pytest.raises(TypeError):
        client.push({"topic": "t", "event": "e", "payload": {"x": object()}})


async def test_log_and_has_logger(make_client: MakeClient) -> None:
    lines: list[Any] = []
    client = make_client(logger=lambda *args: lines.append(args))
    assert client.has_logger()
    client.log("kind", "text", 5)
    assert lines == [("kind", "text", 5)]
    silent = make_client()
    assert not silent.has_logger()
    silent.log("kind", "text")


async def test_health_tells_how_it_is(server: LocalRealtime, client: RealtimeClient) -> None:
    before = client.health()
    assert before == Health(
        state=ConnectionState.CLOSED,
        connected_since=None,
        last_message_at=None,
        last_heartbeat_latency=None,
        reconnects=0,
        frames_in=0,
        frames_out=0,
        decode_errors=0,
        stale_frames=0,
        unknown_frames=0,
        handler_errors=0,
        dropped_events=0,
        refused_sends=0,
        pending_replies=0,
    )
    started = time.time()
    await client.channel("one").subscribe()
    client.channel("two")
    health = client.health()
    assert health.state == "open"
    assert health.channels == {"joined": 1, "closed": 1}
    assert health.connected_since == pytest.approx(started, abs=2)
    assert health.last_message_at == pytest.approx(started, abs=2)
    assert (health.frames_in, health.frames_out) == (1, 1)
    server.faults.system("one", "something is wrong")
    await until(lambda: client.health().last_system_error == "something is wrong")
    await client.disconnect()
    assert client.health().connected_since is None
    assert client.health().state == "closed"


async def test_a_key_in_the_header_opens_the_socket(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(api_key_in="header")
    await client.channel("room").subscribe()
    assert server.anon_key not in client.endpoint_url()


async def test_a_server_time_far_off_is_used_for_tokens(make_client: MakeClient) -> None:
    async def serve(peer: RawPeer) -> None:
        await peer.handshake(b"Date: Thu, 01 Jan 2099 00:00:00 GMT\r\n")
        await peer.eof()

    async with raw_peer(serve) as url:
        client = make_client(url)
        await client.connect()
        context = client._core.session.context
        assert context.epoch(asyncio.get_running_loop().time()) > 4e9
        await client.disconnect()

"""The events of the client itself, its heartbeats and its health."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from supabase_rt import (
    ConnectionState,
    Health,
    RealtimeClient,
    ReconnectPolicy,
)
from supabase_rt._handlers.dispatcher import CLIENT_EVENTS
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.peers import RawPeer, raw_peer
from ...support.recorder import ClientEvents
from ...support.waiting import our_tasks, turns, until

OFFLINE = "wss://x.supabase.co/realtime/v1"


def offline(**options: Any) -> RealtimeClient:
    return RealtimeClient(OFFLINE, params={"apikey": "key"}, **options)


# -- events ------------------------------------------------------------------------------


@pytest.mark.conformance("PS14", "PS46")
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


@pytest.mark.conformance("RT3")
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


@pytest.mark.conformance("LC6", "TR3", "realtime.client.listen_heartbeats")
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


async def test_a_replaced_heartbeat_callback_leaves_no_task(client: RealtimeClient) -> None:
    called: list[int] = []

    def numbered(number: int) -> Any:
        async def callback(status: Any) -> None:
            called.append(number)

        return callback

    await client.connect()
    for number in range(5):
        client.on_heartbeat(numbered(number))
        await client.send_heartbeat()
        await until(lambda: client.health().pending_replies == 0)
        while called.count(number) < 2:
            await asyncio.sleep(0.001)
    await turns()
    assert len([name for name in our_tasks() if name.startswith("supabase_rt:handler")]) == 1
    client.on_heartbeat(None)
    await turns()
    assert not [name for name in our_tasks() if name.startswith("supabase_rt:handler")]


@pytest.mark.conformance("LC5")
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


@pytest.mark.conformance("TR1", "TR2", "PS35", "PS36")
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


@pytest.mark.conformance("LG1", "NX9")
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
        queued_events=0,
        joins=0,
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
    assert (health.joins, health.queued_events) == (1, 0)
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
        context = client._parts.client_machine.context
        assert context.unix_time(asyncio.get_running_loop().time()) > 4e9
        await client.disconnect()

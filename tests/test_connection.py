"""Connect, disconnect, give up, and that nothing is left running after any of it."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from typing import Any

import aiohttp
import pytest

from supabase_rt import (
    ConnectionFailed,
    ConnectionLost,
    GaveUp,
    InvalidState,
    RealtimeClient,
    ReconnectPolicy,
)
from supabase_rt.server import LocalRealtime

from .support.clients import MakeClient
from .support.peers import RawPeer, raw_peer
from .support.recorder import ClientEvents, Recorder, Statuses
from .support.threads import threaded_server
from .support.waiting import our_tasks, turns, until

KEYS = ("join_ref", "ref", "topic", "event", "payload")

# -- connect -----------------------------------------------------------------------------


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
    assert events.seen == []  # told to the one who awaits, and to nobody else
    server.faults.refuse(None)
    await client.connect()
    assert client.is_connected()


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


# -- disconnect --------------------------------------------------------------------------


async def test_disconnect_leaves_nothing_running_and_says_why(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    events, statuses = ClientEvents(client), Statuses()
    channel = client.channel("room").subscribe(statuses)
    await channel
    outcome = client.disconnect()
    assert client.is_disconnecting()
    assert await outcome == "ok"
    assert our_tasks() == []
    assert statuses.names == ["SUBSCRIBED", "CHANNEL_ERROR"]
    assert str(statuses.errors[1]) == "socket closed: 1000"
    assert channel.state == "errored"
    assert client.get_channels() == [channel]
    assert events.of("close") == [(1000, "")]
    await until(lambda: server.open_connections == 0)


async def test_code_and_reason_of_disconnect_reach_the_server() -> None:
    closes: list[bytes] = []

    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        closes.append((await peer.receive())[1])
        peer.frame(0x88, b"")

    async with raw_peer(serve) as url:
        client = RealtimeClient(url, params={"apikey": "key"})
        events = ClientEvents(client)
        await client.connect()
        await client.disconnect(3001, "lunch")
    assert closes == [(3001).to_bytes(2, "big") + b"lunch"]
    assert events.of("close") == [(3001, "lunch")]


@pytest.mark.parametrize("code", [1006, 0, 5000, 999, True, "1000", 1001])
async def test_a_close_code_that_may_not_be_sent_raises_at_the_call(
    client: RealtimeClient, code: Any
) -> None:
    with pytest.raises(ValueError, match="close code"):
        client.disconnect(code)


async def test_disconnect_then_connect_rejoins(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses, got = Statuses(), Recorder()
    channel = client.channel("room").on("broadcast", {"event": "*"}, got).subscribe(statuses)
    await channel
    for _ in range(2):
        await client.disconnect()
        await client.connect()
        await channel
    assert statuses.names == ["SUBSCRIBED", *["CHANNEL_ERROR", "SUBSCRIBED"] * 2]
    server.broadcast("room", "x", {})
    await got.count(1)


async def test_connect_while_closing_opens_a_new_socket_after_the_old_one(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses = Statuses()
    channel = client.channel("room").subscribe(statuses)
    await channel
    closing = client.disconnect()
    opening = client.connect()
    await closing
    await opening
    await channel
    assert client.is_connected()
    assert server.connections == 2
    assert statuses.names == ["SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED"]
    await until(lambda: server.open_connections == 1)


async def test_subscribe_while_closing_joins_on_the_next_socket(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    await client.connect()
    closing = client.disconnect()
    await client.channel("room").subscribe()
    await closing
    assert server.connections == 2


async def test_disconnect_while_connecting(server: LocalRealtime, client: RealtimeClient) -> None:
    server.faults.stall(handshakes=True)
    statuses = Statuses()
    channel = client.channel("room").subscribe(statuses)
    connecting = asyncio.ensure_future(asyncio.wait_for(client.connect(), 5))
    await turns()
    await client.disconnect()
    assert our_tasks() == []
    with pytest.raises(ConnectionFailed, match=r"disconnect\(\) was called"):
        await connecting
    assert statuses.names == ["CHANNEL_ERROR"]
    assert channel.state == "errored"
    server.faults.resume()


async def test_disconnect_while_the_socket_opens_closes_that_socket(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    client.connect()
    for _ in range(200):
        if server.connections:
            break
        await asyncio.sleep(0)
    await client.disconnect()
    assert our_tasks() == []
    await until(lambda: server.open_connections == 0)


async def test_connect_and_disconnect_without_a_turn_between_them(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    for _ in range(3):
        client.connect()
        client.disconnect()
    await client.disconnect()
    assert our_tasks() == []
    await client.connect()
    assert server.connections == 1


async def test_disconnect_while_the_next_link_waits_for_the_end_of_the_last(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    await client.connect()
    client.disconnect()
    client.connect()
    await turns(2)
    await client.disconnect()
    assert our_tasks() == []
    assert server.connections == 1


async def test_disconnect_while_the_token_is_asked_for(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    async def fetch() -> str:
        asked.set()
        await release.wait()
        return server.token()

    client = make_client(access_token=fetch)
    client.connect()
    await asked.wait()
    closing = client.disconnect()
    release.set()
    await closing
    assert our_tasks() == []
    assert server.connections == 0


async def test_disconnect_while_a_join_waits_for_its_token(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    async def fetch() -> str | None:
        if server.connections:
            asked.set()
            await release.wait()
        return None

    client = make_client(access_token=fetch)
    await client.connect()
    client.channel("room").subscribe()
    await asked.wait()
    await client.disconnect()
    assert our_tasks() == []
    assert server.joins == 0


async def test_disconnect_while_waiting_for_the_next_attempt(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(reconnect=ReconnectPolicy(initial_backoff=30, jitter=0))
    events = ClientEvents(client)
    server.faults.refuse(503)
    client.connect()
    await events.some("reconnecting")
    assert client.is_connecting()
    await client.disconnect()
    assert our_tasks() == []
    assert client.connection_state() == "closed"
    await client.wait_closed()


async def test_disconnect_during_a_join(server: LocalRealtime, client: RealtimeClient) -> None:
    await client.connect()
    server.faults.drop_next("phx_reply")
    statuses = Statuses()
    channel = client.channel("room").subscribe(statuses)
    await until(lambda: any(each.event == "phx_join" for each in server.received))
    await client.disconnect()
    assert our_tasks() == []
    assert statuses.names == ["CHANNEL_ERROR"]
    await client.connect()
    await channel
    assert statuses.names == ["CHANNEL_ERROR", "SUBSCRIBED"]


async def test_disconnect_of_a_client_that_never_ran(client: RealtimeClient) -> None:
    assert await client.disconnect() == "ok"
    assert await client.disconnect() == "ok"
    await client.wait_closed()
    assert client.connection_state() == "closed"


async def test_many_disconnects_at_once(server: LocalRealtime, client: RealtimeClient) -> None:
    await client.connect()
    assert list(await asyncio.gather(*(client.disconnect() for _ in range(5)))) == ["ok"] * 5
    assert our_tasks() == []


async def test_disconnect_from_inside_handlers(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    ended: list[str] = []
    client = make_client()

    async def leave(payload: Any) -> None:
        ended.append(await client.disconnect())

    for register in (lambda payload: client.disconnect(), leave):
        channel = client.channel("room").on("broadcast", {"event": "*"}, register)
        await channel.subscribe()
        server.broadcast("room", "x", {})
        await client.wait_closed()
        await until(lambda: our_tasks() == [])
        assert client.connection_state() == "closed"
        await client.connect()
        await client.remove_channel(channel)
        await client.disconnect()
    assert ended == ["ok"]


async def test_disconnect_from_two_handlers_that_both_wait_for_it(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    ended: list[int] = []

    def leaver(number: int) -> Any:
        async def leave() -> None:
            await client.disconnect()
            ended.append(number)

        return leave

    channel = client.channel("room")
    for number in range(2):
        channel.on("broadcast", {"event": "*"}, leaver(number))
    await channel.subscribe()
    server.broadcast("room", "x", {})
    await until(lambda: len(ended) == 2, timeout=2)
    await until(lambda: our_tasks() == [])


async def test_disconnect_from_inside_a_status_callback(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    names: list[str] = []

    async def callback(status: str) -> None:
        names.append(str(status))
        if status == "SUBSCRIBED":
            await client.disconnect()

    client.channel("room").subscribe(callback)
    await client.wait_closed()
    await until(lambda: our_tasks() == [])
    assert names[0] == "SUBSCRIBED"


async def test_handlers_under_way_are_drained_by_disconnect(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    handled: list[int] = []
    release = asyncio.Event()

    async def slow(event: Any) -> None:
        await release.wait()
        handled.append(event.payload["n"])

    await client.channel("room").on("broadcast", {"event": "*"}, slow).subscribe()
    for n in range(5):
        server.broadcast("room", "x", {"n": n})
    await until(lambda: client.health().frames_in >= 6)
    closing = client.disconnect()
    await turns()
    assert not closing.done()
    release.set()
    await closing
    assert handled == [0, 1, 2, 3, 4]


async def test_a_handler_that_does_not_end_is_cut_off(
    server: LocalRealtime,
    client: RealtimeClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("supabase_rt.dispatch.DRAIN_TIMEOUT", 0.05)
    started = asyncio.Event()

    async def stuck(event: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    await client.channel("room").on("broadcast", {"event": "*"}, stuck).subscribe()
    server.broadcast("room", "x", {})
    server.broadcast("room", "x", {})
    await started.wait()
    await until(lambda: client.health().frames_in >= 3)
    await client.disconnect()
    assert our_tasks() == []
    assert "stuck did not end in time; cancelled, 1 events unhandled" in caplog.text


async def test_http_requests_under_way_are_cut_off_at_the_end(
    server: LocalRealtime, client: RealtimeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supabase_rt.connection.HELPER_TIMEOUT", 0.05)
    async with raw_peer(_silent) as url:
        lonely = RealtimeClient(url, params={"apikey": "key"}, timeout=30)
        sending = lonely.channel("room").http_send("x", {})
        await turns()
        await lonely.disconnect()
        assert our_tasks() == []
        del sending


async def _silent(peer: RawPeer) -> None:
    await asyncio.Event().wait()


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
    await client.connect()  # another try is the user's to make
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
    client = make_client(reconnect=ReconnectPolicy(initial_backoff=0.01, jitter=0, stable_after=60))
    events = ClientEvents(client)
    await client.connect()
    for number in range(3):
        server.faults.cut()
        await events.some("reconnected", number + 1)
    assert [delay for _, delay, _ in events.of("reconnecting")] == [0.0, 0.01, 0.02]


# -- deferred disconnect -----------------------------------------------------------------


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


async def test_without_channels_the_socket_goes_at_once_if_so_wished(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(disconnect_on_empty_channels_after=0)
    await client.remove_channel(await client.channel("room").subscribe())
    await until(lambda: client.connection_state() == "closed")


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


# -- frames that cannot be read ----------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        "no json",
        "{}",
        "[1,2]",
        '["1","2","realtime:room","phx_reply",null]',
        '["1","2","realtime:room","phx_reply",{"status":1}]',
        '[null,null,"realtime:room","broadcast",null]',
        '[null,null,"realtime:room","postgres_changes",{"ids":1}]',
        '[null,null,"realtime:room","presence_state",17]',
        '[null,null,"realtime:room","presence_diff",[]]',
        '[null,null,"realtime:room","system",17]',
        "[" * 2000,
        b"",
        b"\x00\x01",
        b"\x09whatever",
    ],
)
async def test_a_frame_that_cannot_be_read_is_counted_and_skipped(
    server: LocalRealtime,
    make_client: MakeClient,
    frame: str | bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = make_client()
    events, got = ClientEvents(client), Recorder()
    channel = client.channel("room").on("broadcast", {"event": "*"}, got)
    channel.on("presence", {"event": "*"}, got)
    channel.on("system", {}, got)
    await channel.subscribe()
    await until(lambda: client.health().frames_in >= 2)  # the presence state
    before = len(got.seen)
    server.faults.send_raw(frame)
    server.broadcast("room", "x", {"n": 1})
    await got.count(before + 1)
    assert got.seen[before].payload["n"] == 1
    health = client.health()
    assert health.decode_errors == 1
    assert len(events.errors) == 1
    assert "skipped a frame" in caplog.text
    assert client.is_connected()
    assert channel.state == "joined"


async def test_invalid_utf8_costs_one_frame(make_client: MakeClient) -> None:
    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        peer.text(b'[null,null,"realtime:room","broadcast",{"event":"\xff\xfe"}]')
        peer.text(b'[null,null,"phoenix","phx_reply",{"status":"ok","response":{}}]')
        await peer.eof()

    async with raw_peer(serve) as url:
        client = make_client(url)
        await client.connect()
        await until(lambda: client.health().frames_in == 2)
        assert client.health().decode_errors == 1
        assert client.is_connected()
        await client.disconnect()


async def test_unknown_and_stale_frames_are_counted_and_dropped(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got, statuses = Recorder(), Statuses()
    await client.channel("room").on("broadcast", {"event": "*"}, got).subscribe(statuses)
    for frame in (
        '[null,null,"realtime:elsewhere","broadcast",{"event":"x","payload":{}}]',
        '[null,null,"realtime:room","surprise",{}]',
        '["999",null,"realtime:room","broadcast",{"event":"x","payload":{}}]',
        '["999","998","realtime:room","phx_reply",{"status":"ok","response":{}}]',
        '["999","999","realtime:room","phx_close",{}]',
        '["999","999","realtime:room","phx_error",{}]',
    ):
        server.faults.send_raw(frame)
    server.broadcast("room", "x", {"n": 1})
    await got.count(1)
    assert got.values() == [1]
    assert statuses.names == ["SUBSCRIBED"]
    health = client.health()
    assert (health.unknown_frames, health.stale_frames, health.decode_errors) == (2, 4, 0)


async def test_a_corrupted_frame_costs_itself_only(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got, other = Recorder(), Recorder()
    await client.channel("room").on("broadcast", {"event": "*"}, got).subscribe()
    await client.channel("other").on("broadcast", {"event": "*"}, other).subscribe()
    server.faults.corrupt_next("broadcast")
    for n in range(3):
        server.broadcast("room", "x", {"n": n})
        server.broadcast("other", "x", {"n": n})
    await other.count(3)
    await got.count(2)
    assert (got.values(), other.values()) == ([1, 2], [0, 1, 2])
    assert client.health().decode_errors == 1


async def test_a_raising_logger_costs_no_frame(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def logger(kind: str, message: str, data: Any) -> None:
        raise RuntimeError("no disk")

    got = Recorder()
    client = make_client(logger=logger)
    await client.channel("room").on("broadcast", {"event": "*"}, got).subscribe()
    server.broadcast("room", "x", {"n": 1})
    await got.count(1)
    assert "logger= raised" in caplog.text


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


def test_a_client_whose_loop_ended_between_two_attempts_is_used_again() -> None:
    async def first(client: RealtimeClient) -> None:
        events = ClientEvents(client)
        client.channel("room").subscribe()
        await events.some("reconnecting")
        # Between two attempts there is no task that would close it, and aiohttp complains.
        own = client._core.connection.http
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


# -- a peer that does not read -----------------------------------------------------------


async def test_frames_beyond_max_outbound_are_refused_and_told_once(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    reading = asyncio.Event()

    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        join = (await peer.receive())[1]
        assert b"phx_join" in join
        peer.text(
            b'["1","1","realtime:room","phx_reply",'
            b'{"status":"ok","response":{"postgres_changes":[]}}]'
        )
        await reading.wait()
        await peer.eof()

    async with raw_peer(serve) as url:
        client = make_client(url, max_outbound=10, timeout=5)
        channel = client.channel("room")
        await channel.subscribe()
        message = {"type": "broadcast", "event": "x", "payload": "y" * 2**20}
        sends = [channel.send(message) for _ in range(40)]
        await turns()
        sends += [channel.send(message) for _ in range(10)]
        assert not sends[9].done()  # it waits for the peer
        refused = [send for send in sends if send.done() and await send == "error"]
        assert len(refused) >= 30
        assert client.health().refused_sends == len(refused)
        assert sum("frames wait to be written" in text for text in caplog.messages) == 1
        assert await channel.track({"a": 1}) == "error"
        reading.set()
        assert await sends[9] == "ok"
        assert await channel.send({**message, "payload": 1}) == "ok"
        await client.disconnect()


async def test_frames_that_were_not_written_before_a_loss_are_errors(
    make_client: MakeClient,
) -> None:
    peers: list[RawPeer] = []

    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        await peer.receive()
        peer.text(b'["1","1","realtime:room","phx_reply",{"status":"ok","response":{}}]')
        peers.append(peer)
        await asyncio.Event().wait()

    async with raw_peer(serve) as url:
        client = make_client(url)
        channel = client.channel("room")
        await channel.subscribe()
        message = {"type": "broadcast", "event": "x", "payload": "y" * 2**22}
        sends = [channel.send(message) for _ in range(10)]
        await turns()
        peers[0].writer.transport.abort()
        assert await asyncio.wait_for(sends[-1], 2) == "error"
        await client.disconnect()


async def test_frames_that_the_peer_does_not_take_are_left_at_the_close(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "supabase_rt")
    monkeypatch.setattr("supabase_rt.link.DRAIN_TIMEOUT", 0.05)
    monkeypatch.setattr("supabase_rt.transport.CLOSE_TIMEOUT", 0.05)

    async def serve(peer: RawPeer) -> None:
        await peer.handshake()
        await asyncio.Event().wait()

    async with raw_peer(serve) as url:
        client = make_client(url)
        await client.connect()
        for _ in range(40):
            client.push({"topic": "t", "event": "e", "payload": "x" * 2**20})
        await client.disconnect()
        assert our_tasks() == []
    assert "frames were left unwritten at the close" in caplog.text


async def test_a_payload_that_a_users_encoder_cannot_take_is_an_error(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def encode(message: dict[str, Any]) -> str:
        if message["event"] == "broadcast":
            raise RuntimeError("cannot")
        return json.dumps([message.get(key) for key in KEYS])

    client = make_client(encode=encode)
    channel = client.channel("room")
    await channel.subscribe()
    assert await channel.send({"type": "broadcast", "event": "x", "payload": {}}) == "error"
    assert "cannot encode a broadcast frame" in caplog.text
    assert client.is_connected()


async def test_accepted_frames_leave_before_the_close(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    await channel.subscribe()
    for n in range(50):
        channel.send({"type": "broadcast", "event": "x", "payload": {"n": n}})
    await client.disconnect()
    sent = [each.payload["payload"]["n"] for each in server.received if each.event == "broadcast"]
    assert sent == list(range(50))


async def test_a_frame_that_aiohttp_will_not_write_ends_the_link_and_not_the_client(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def encode(message: dict[str, Any]) -> str:
        if message["event"] == "e":
            return "half a pair: \ud800"
        return json.dumps([message.get(key) for key in KEYS])

    client = make_client(encode=encode)
    statuses = Statuses()
    await client.channel("room").subscribe(statuses)
    client.push({"topic": "t", "event": "e"})
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    assert str(statuses.errors[1]) == "the writer failed"
    assert "the writer failed" in caplog.text


async def test_the_session_of_our_own_is_closed_at_the_end(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    await client.connect()
    own = client._core.connection.http
    assert isinstance(own, aiohttp.ClientSession)
    await client.disconnect()
    assert own.closed


async def test_a_lost_connection_is_logged_with_its_reason(
    server: LocalRealtime, client: RealtimeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "supabase_rt")
    events = ClientEvents(client)
    await client.connect()
    server.faults.close(1011)
    await events.some("reconnected")
    assert "lost: socket closed: 1011" in caplog.text
    cause = events.of("reconnecting")[0][2]
    assert isinstance(cause, ConnectionLost)

"""Closing: at every moment, from every place, and nothing is left running."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Any

import pytest

from supabase_rt import (
    ConnectionFailed,
    RealtimeClient,
    RealtimeError,
    ReconnectPolicy,
)
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.peers import RawPeer, raw_peer
from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import our_tasks, turns, until

# -- disconnect --------------------------------------------------------------------------


@pytest.mark.conformance("LC13", "SA2", "SA3", "PS21", "realtime.client.disconnect")
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


async def test_an_end_that_a_second_one_overtakes_is_told_when_both_are_over(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    await client.channel("room").subscribe()
    first, second = client.disconnect(), client.disconnect()
    assert await first == "ok"
    assert our_tasks() == []
    assert not client.is_disconnecting()
    assert await second == "ok"


@pytest.mark.conformance("RT2", "PS22")
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


@pytest.mark.conformance("LC23", "RS4", "PS24")
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


@pytest.mark.conformance("PS20", "PS23")
async def test_disconnect_of_a_client_that_never_ran(client: RealtimeClient) -> None:
    assert await client.disconnect() == "ok"
    assert await client.disconnect() == "ok"
    await client.wait_closed()
    assert client.connection_state() == "closed"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 brought eager tasks")
async def test_a_loop_with_eager_tasks_closes_what_never_ran(client: RealtimeClient) -> None:
    loop = asyncio.get_running_loop()
    factory: Any = getattr(asyncio, "eager_task_factory", None)
    loop.set_task_factory(factory)
    try:
        await client.disconnect()
        async with asyncio.timeout(5.0):
            await client.wait_closed()
    finally:
        loop.set_task_factory(None)


@pytest.mark.conformance("PS25")
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


async def test_a_handler_that_waits_for_a_connection_hears_that_there_is_none(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    """The disconnect that reports the handler does not wait for it."""
    policy = ReconnectPolicy(initial_backoff=0.01, jitter=0, max_attempts=1)
    client = make_client(reconnect=policy)
    heard: list[BaseException] = []

    async def again() -> None:
        for _ in range(2):
            try:
                await client.connect()
            except ConnectionFailed as exc:
                heard.append(exc)

    client.once("close", again)
    await client.connect()
    server.faults.refuse(503)
    server.faults.cut()
    await until(lambda: len(heard) == 2)
    await client.disconnect()
    assert our_tasks() == []


async def test_a_handler_that_waits_for_the_end_hears_of_it(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client, ended = make_client(), []

    async def stay(payload: Any) -> None:
        try:
            await client.wait_closed()
        finally:
            ended.append(client.connection_state())

    await client.channel("room").on("broadcast", {"event": "*"}, stay).subscribe()
    server.broadcast("room", "x", {})
    await until(lambda: any("stay" in name for name in our_tasks()))
    await client.disconnect()
    await until(lambda: ended == ["closed"])


async def test_the_last_words_of_a_handler_that_is_cut_off_may_be_disconnect(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client, ended = make_client(drain_timeout=0.01), []

    async def stay(payload: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(await client.disconnect())

    await client.channel("room").on("broadcast", {"event": "*"}, stay).subscribe()
    server.broadcast("room", "x", {})
    await until(lambda: any("stay" in name for name in our_tasks()))
    async with asyncio.timeout(10):
        await client.disconnect()
    await until(lambda: our_tasks() == [])
    assert ended == ["ok"]


@pytest.mark.parametrize("event", ["status", "close"])
async def test_the_main_line_in_a_handler_ends_with_the_client(
    server: LocalRealtime, make_client: MakeClient, event: str
) -> None:
    """It waits for a link and for the end of the client at once, in either order."""
    client, ended, begun = make_client(), [], asyncio.Event()

    async def main() -> None:
        if not begun.is_set():
            begun.set()
            await client.run_forever()
            ended.append(client.connection_state())

    async def told(status: str) -> None:
        if event == "status" and status == "CHANNEL_ERROR":
            await main()

    if event == "close":
        client.on("close", main)
    await client.channel("room").subscribe(told)
    server.faults.cut()
    await begun.wait()
    await client.disconnect()
    await until(lambda: ended == ["closed"])


async def test_a_handler_that_asks_for_a_connection_and_then_for_the_end(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client, ended = make_client(), []

    async def leave() -> None:
        server.faults.stall(handshakes=True)
        client.connect()
        ended.append(await client.disconnect())

    client.once("close", leave)
    await client.connect()
    server.faults.cut()
    await until(lambda: ended == ["ok"])


@pytest.mark.parametrize("thread", [False, True])
async def test_disconnect_from_what_a_handler_started(
    client: RealtimeClient, caplog: pytest.LogCaptureFixture, thread: bool
) -> None:
    """The handler waits for its task or thread; the disconnect does not wait for the handler."""
    loop = asyncio.get_running_loop()
    done: list[str] = []

    async def shut_down() -> None:
        await asyncio.sleep(0)
        done.append(await client.disconnect())

    async def in_a_task() -> None:
        await asyncio.create_task(shut_down())
        done.append("handler")

    def in_the_loop() -> None:
        asyncio.run_coroutine_threadsafe(shut_down(), loop).result(10)
        done.append("handler")

    channel = client.channel("room", {"config": {"broadcast": {"self": True}}})
    handler = in_the_loop if thread else in_a_task
    await channel.on("broadcast", {"event": "x"}, handler, thread=thread).subscribe()
    await channel.send({"type": "broadcast", "event": "x", "payload": {}})
    await until(lambda: len(done) == 2)
    assert done == ["ok", "handler"]
    assert "did not end in time" not in caplog.text
    await until(lambda: our_tasks() == [])


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


async def test_a_handler_that_disconnected_once_is_waited_for_at_the_next_end(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    handled: list[int] = []
    ending = asyncio.Event()

    async def work(message: Any) -> None:
        if message.payload["n"] == 0:
            await client.disconnect()
            await client.connect()
            await channel.subscribe()
            await ending.wait()
            await turns(500)
        handled.append(message.payload["n"])

    channel = client.channel("room").on("broadcast", {"event": "x"}, work)
    await channel.subscribe()
    server.broadcast("room", "x", {"n": 0})
    await until(lambda: client.health().joins == 2)
    server.broadcast("room", "x", {"n": 1})
    await until(lambda: client.health().queued_events == 1)
    ending.set()
    await client.disconnect()
    assert handled == [0, 1]
    assert our_tasks() == []


async def test_disconnect_from_a_listener_that_a_timer_calls_waits_for_the_handler_that_set_it(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    """A timer or a link that a handler started is not part of that handler."""
    client = make_client(heartbeat_interval=0.2)
    handled: list[int] = []
    is_told = asyncio.Event()

    async def work(message: Any) -> None:
        if message.payload["n"] == 0:
            # Its deadline is the next one, so this handler sets the client's timer.
            await channel.send({"type": "broadcast", "event": "x", "payload": {}}, timeout=0.05)
        else:
            await is_told.wait()
            await turns(20)
        handled.append(message.payload["n"])

    def stop(status: str) -> None:
        if handled and status == "sent":
            client.disconnect()
            is_told.set()

    client.on("heartbeat", stop)
    channel = client.channel("room", {"config": {"broadcast": {"ack": True}}})
    await channel.on("broadcast", {"event": "work"}, work).subscribe()
    for number in range(3):
        server.broadcast("room", "work", {"n": number})
    await client.wait_closed()
    assert handled == [0, 1, 2]
    assert our_tasks() == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 brought eager tasks")
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_disconnect_from_a_handler_that_a_loop_with_eager_tasks_ran_at_once(
    server: LocalRealtime, client: RealtimeClient, concurrency: int
) -> None:
    factory: Any = getattr(asyncio, "eager_task_factory", None)
    ended: list[str] = []

    async def leave(message: Any) -> None:
        ended.append(await client.disconnect())

    channel = client.channel("room")
    channel.on("broadcast", {"event": "*"}, leave, concurrency=concurrency)
    await channel.subscribe()
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(factory)
    try:
        server.broadcast("room", "x", {})
        await until(lambda: ended == ["ok"], timeout=3.0)
        await until(lambda: our_tasks() == [])
    finally:
        loop.set_task_factory(before)


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
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(drain_timeout=0.05)
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
    monkeypatch.setattr("supabase_rt._runtime.background_tasks.REQUEST_TIMEOUT", 0.05)
    async with raw_peer(_silent) as url:
        lonely = RealtimeClient(url, params={"apikey": "key"}, timeout=30)
        sending = lonely.channel("room").http_send("x", {})
        await turns()
        await lonely.disconnect()
        assert our_tasks() == []
        del sending


async def _silent(peer: RawPeer) -> None:
    await asyncio.Event().wait()


# -- tasks of ours that somebody else cancels --------------------------------------------


def _closing() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "supabase_rt:close"]


async def test_a_disconnect_whose_task_is_cancelled_settles_when_all_is_closed(
    server: LocalRealtime, client: RealtimeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supabase_rt._connection.shutdown.CANCEL_GRACE", 0.05)

    started = asyncio.Event()

    async def slow(_: Any) -> None:
        started.set()
        await asyncio.sleep(0.02)

    channel = client.channel("room").on("broadcast", {"event": "*"}, slow)
    await channel.subscribe()
    server.broadcast("room", "x", {})
    await started.wait()
    outcome = client.disconnect()
    await turns(3)
    (closing,) = _closing()
    closing.cancel()
    assert await outcome == "ok"
    assert our_tasks() == []
    assert not client.is_disconnecting()


async def test_a_disconnect_whose_task_is_cancelled_settles_after_a_newer_one(
    client: RealtimeClient,
) -> None:
    await client.connect()
    first = client.disconnect()
    await turns(3)
    (closing,) = _closing()
    closing.cancel()
    await turns(2)
    assert await client.disconnect() == "ok"
    assert await first == "ok"
    assert our_tasks() == []


def test_a_disconnect_whose_task_is_cancelled_with_its_loop_settles_in_the_next_loop() -> None:
    client = RealtimeClient("ws://127.0.0.1:1/realtime/v1", params={"apikey": "key"})
    outcomes = []

    async def leave_early() -> None:
        client.connect()
        await turns(2)
        outcomes.append(client.disconnect())
        await turns(2)

    async def again() -> None:
        assert await client.disconnect() == "ok"
        assert outcomes[0].done()

    asyncio.run(leave_early())
    gc.collect()  # aiohttp complains of a session that was left open
    asyncio.run(again())


async def test_a_shutdown_that_replaces_a_cancelled_one_waits_for_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supabase_rt._connection.shutdown.CANCEL_GRACE", 0.05)
    monkeypatch.setattr("supabase_rt._connection.transport.CLOSE_TIMEOUT", 0.3)

    async def never_closes(peer: RawPeer) -> None:
        await peer.handshake()
        await asyncio.Event().wait()

    async with raw_peer(never_closes) as url:
        client = RealtimeClient(url, params={"apikey": "key"})
        await client.connect()
        first = client.disconnect()
        await turns(3)
        second = client.disconnect()
        await turns(2)
        assert len(_closing()) == 2
        newest = client.__client_parts__.connection.shutdown.task
        assert newest is not None
        newest.cancel()
        assert await first == await second == "ok"
        assert our_tasks() == []
        async with asyncio.timeout(1):
            await client.wait_closed()


async def test_remove_all_channels_whose_task_is_cancelled_raises_instead_of_hanging(
    client: RealtimeClient,
) -> None:
    await client.channel("room").subscribe()
    outcome = client.remove_all_channels()
    await turns(2)
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "supabase_rt:remove_all"]
    task.cancel()
    with pytest.raises(RealtimeError, match="cancelled by somebody else") as caught:
        async with asyncio.timeout(2):
            await outcome
    assert caught.value.code == "Cancelled"

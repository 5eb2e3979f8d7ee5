"""The boundary between the machines and user code."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from supabase_rt import RealtimeClient
from supabase_rt._handlers.dispatcher import CLIENT_EVENTS, Dispatch
from supabase_rt._handlers.handler import Registration
from supabase_rt._protocol import events
from supabase_rt.server import LocalRealtime

from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import our_tasks, turns, until

ANY = {"event": "*"}


def test_every_event_of_the_machines_is_told_or_acted_upon() -> None:
    acted_upon = {"ConnectDue", "LinkDied", "TokenWanted", "IdleReached"}
    known = {kind.__name__ for kind in Dispatch()._tellers}
    assert known.isdisjoint(acted_upon)
    not_events = {"Delivery", "ChannelOwner", "EventListener", "EventSink"}
    assert known | acted_upon >= set(events.__all__) - not_events


def test_a_mistake_of_ours_costs_one_event_and_not_the_reader(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dispatch = Dispatch()
    seen: list[Any] = []
    dispatch.listen("reconnected", seen.append)
    dispatch.tell(object())
    dispatch.tell(events.Reconnected(1.5))
    assert seen == [1.5]
    assert "could not tell object" in caplog.text


async def test_a_mistake_of_ours_in_a_worker_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Registration):
        async def work(self) -> None:
            raise RuntimeError("ours")

    async def handler() -> None: ...

    dispatch = Dispatch()
    registration = Broken(handler, dispatch, source="test")
    registration("event")
    await until(lambda: "a handler's worker failed" in caplog.text)
    assert registration.discard_queue() == 1


@pytest.mark.parametrize("name", CLIENT_EVENTS)
async def test_a_raising_listener_of_any_event_is_logged_counted_and_told(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    dispatch = Dispatch()
    seen, errors = [], []

    def broken(*args: Any) -> None:
        raise RuntimeError(name)

    dispatch.listen(name, broken)
    dispatch.listen(name, lambda *args: seen.append(args))
    if name != "error":
        dispatch.listen("error", lambda error, event, handler: errors.append((error, handler)))
    dispatch.client_event(name, *range(CLIENT_EVENTS[name]))
    assert seen == [tuple(range(CLIENT_EVENTS[name]))]
    assert dispatch.tally.handler_errors == 1
    assert "broken failed: RuntimeError" in caplog.text
    if name != "error":
        assert [(str(error), handler) for error, handler in errors] == [(name, broken)]


async def test_a_handler_may_remove_itself_and_others_while_being_told(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    order: list[str] = []

    def first(event: Any) -> None:
        order.append("first")
        channel.off("broadcast", ANY)

    channel = client.channel("room").on("broadcast", ANY, first)
    channel.on("broadcast", ANY, lambda event: order.append("second"))
    await channel.subscribe()
    server.broadcast("room", "x", {})
    server.broadcast("room", "x", {})
    await until(lambda: client.health().frames_in == 3)
    await turns()
    assert order == ["first"]


async def test_reentrant_calls_tell_events_in_the_order_in_which_they_happened(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    order: list[str] = []

    def one(status: str) -> None:
        order.append(f"one {status}")
        if status == "SUBSCRIBED":
            client.remove_channel(client.channel("two"))
            order.append("one goes on")

    client.channel("two").subscribe(lambda status: order.append(f"two {status}"))
    await client.channel("two")
    await client.channel("one").subscribe(one)
    await until(lambda: len(order) == 4)
    assert order == ["two SUBSCRIBED", "one SUBSCRIBED", "one goes on", "two CLOSED"]


async def test_a_raising_handler_on_one_channel_harms_no_other_channel(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    def broken(event: Any) -> None:
        raise RuntimeError("no")

    def broken_status(status: str) -> None:
        raise RuntimeError("no status either")

    statuses, got = Statuses(), Recorder()
    await client.channel("bad").on("broadcast", ANY, broken).subscribe(broken_status)
    await client.channel("good").on("broadcast", ANY, got).subscribe(statuses)
    server.broadcast("bad", "x", {})
    server.faults.cut()
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    server.broadcast("bad", "x", {})
    server.broadcast("good", "x", {"n": 1})
    await got.count(1)
    assert client.channel("bad").state == "joined"


async def test_disconnect_in_the_middle_of_an_error_listener(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    def stop(error: BaseException) -> None:
        client.disconnect()

    client.on("error", stop)
    server.faults.refuse(503)
    client.channel("room").subscribe()
    await client.wait_closed()
    await until(lambda: our_tasks() == [])
    assert client.connection_state() == "closed"


async def test_disconnect_and_connect_in_an_error_listener(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    def again(error: BaseException) -> None:
        server.faults.refuse(None)
        client.disconnect()
        client.connect()

    client.on("error", again)
    server.faults.refuse(503)
    await client.channel("room").subscribe()
    assert client.is_connected()
    assert server.connections == 1


async def test_the_log_speaks_of_reconnecting(
    server: LocalRealtime, client: RealtimeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "supabase_rt")
    events_seen = ClientEvents(client)
    await client.connect()
    server.faults.cut()
    await events_seen.some("reconnected")
    assert "socket closed: 1006; trying again in 0.0 s (attempt 0)" in caplog.text


async def test_a_worker_that_leaves_is_not_waited_for() -> None:
    dispatch = Dispatch()
    ended: list[str] = []

    async def handler() -> None:
        dispatch.leaves()
        await dispatch.drain()
        ended.append("handler")

    registration = Registration(handler, dispatch, source="test")
    registration()
    await until(lambda: ended == ["handler"])
    dispatch.leaves()
    await dispatch.drain()

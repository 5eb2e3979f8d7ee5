"""``client.run()``: the main line of a bot, from the first packet to the signal."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from supabase_rt import Broadcast, ConnectionFailed, GaveUp, RealtimeClient, ReconnectPolicy
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.programs import run_program
from ...support.recorder import ClientEvents, Statuses
from ...support.threads import threaded_server
from ...support.waiting import our_tasks, until

BOT = """
import sys
from supabase_rt import create_client

supabase = create_client(sys.argv[1], sys.argv[2])

def on_insert(payload):
    print(payload["eventType"], payload["new"]["text"], flush=True)

def on_status(status, error):
    print(status, flush=True)

supabase.channel("room").on(
    "postgres_changes", {"event": "*", "schema": "public", "table": "messages"}, on_insert
).subscribe(on_status)
supabase.realtime.run()
print("over", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_chain_at_module_level_runs_until_a_signal_and_leaves_cleanly(
    server: LocalRealtime, number: signal.Signals
) -> None:
    async def insert() -> None:
        await until(lambda: server.joins == 1, timeout=15)
        await server.insert("messages", {"text": "hello"})

    inserting = asyncio.create_task(insert())
    program = await run_program(BOT, server.url, server.anon_key, until="INSERT hello", send=number)
    await inserting
    assert program.err == ""
    assert program.out.split("\n") == ["SUBSCRIBED", "INSERT hello", "CLOSED", "over", ""]
    assert program.code == 0
    assert [each.event for each in server.received][-1] == "phx_leave"
    await until(lambda: server.open_connections == 0)


async def test_a_second_signal_does_what_it_always_did(server: LocalRealtime) -> None:
    text = """
import asyncio, os, signal, sys
from supabase_rt import create_client

supabase = create_client(sys.argv[1], sys.argv[2])

async def stuck(status):
    if status == "CLOSED":
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
    else:
        print(status, flush=True)

supabase.channel("room").subscribe(stuck)
supabase.realtime.run()
"""
    program = await run_program(
        text, server.url, server.anon_key, until="SUBSCRIBED", send=signal.SIGTERM
    )
    assert program.code == -signal.SIGTERM


async def test_a_wrong_key_ends_the_program_with_a_hint_and_without_the_key(
    server: LocalRealtime,
) -> None:
    key = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.verySECRETsignature"
    program = await run_program(BOT, server.url, key)
    assert program.code == 1
    assert program.out.split("\n")[-2:] != ["over", ""]
    assert "ConnectionFailed" in program.err
    assert "HTTP 401" in program.err
    assert "hint: " in program.err
    for part in key.split("."):
        assert part not in program.err


async def test_programs_whose_client_ends_by_itself(server: LocalRealtime) -> None:
    text = """
import sys
from supabase_rt import create_client

supabase = create_client(sys.argv[1], sys.argv[2])

def on_status(status):
    if status == "SUBSCRIBED":
        supabase.realtime.disconnect()

channel = supabase.channel("room").subscribe(on_status)
supabase.realtime.run()
print(channel.state)
"""
    program = await run_program(text, server.url, server.anon_key)
    assert (program.code, program.out, program.err) == (0, "closed\n", "")


@pytest.mark.parametrize("event", ["plain", "async"])
async def test_a_handler_may_end_the_program(server: LocalRealtime, event: str) -> None:
    text = """
import sys
from supabase_rt import create_client

supabase = create_client(sys.argv[1], sys.argv[2])

def plain(payload):
    sys.exit(3)

async def later(payload):
    sys.exit(3)

def on_status(status):
    print(status)
    if status == "SUBSCRIBED":
        channel.send({"type": "broadcast", "event": sys.argv[3]})

channel = supabase.channel("room", {"config": {"broadcast": {"self": True}}})
channel.on("broadcast", {"event": "plain"}, plain).on("broadcast", {"event": "async"}, later)
channel.subscribe(on_status)
supabase.realtime.run()
print("not reached")
"""
    program = await run_program(text, server.url, server.anon_key, event)
    assert (program.code, program.out, program.err) == (3, "SUBSCRIBED\nCLOSED\n", "")


async def test_a_program_that_forgets_to_disconnect_ends_silently(server: LocalRealtime) -> None:
    text = """
import asyncio, sys
from supabase_rt import create_client

async def main():
    supabase = create_client(sys.argv[1], sys.argv[2])
    await supabase.channel("room").subscribe(lambda status: print(status))

asyncio.run(main())
"""
    program = await run_program(text, server.url, server.anon_key)
    assert (program.code, program.out, program.err) == (0, "SUBSCRIBED\n", "")


def test_run_connects_and_returns_after_disconnect() -> None:
    statuses = Statuses()
    with threaded_server() as server:
        client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key})
        client.channel("room").subscribe(statuses)
        client.on("open", lambda: client.disconnect())
        client.run()
    assert client.connection_state() == "closed"
    assert statuses.names[-1] == "CLOSED"


def test_run_raises_the_final_error() -> None:
    with threaded_server() as server:
        client = RealtimeClient(server.ws_url, params={"apikey": "nobody"})
        client.channel("room").subscribe()
        with pytest.raises(ConnectionFailed) as caught:
            client.run()
    assert caught.value.status == 401
    assert caught.value.hint


async def test_run_inside_a_loop_says_what_to_call(client: RealtimeClient) -> None:
    with pytest.raises(RuntimeError, match="await run_forever"):
        client.run()


async def test_run_forever_keeps_trying_after_errors_that_may_pass(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client()
    events, statuses = ClientEvents(client), Statuses()
    server.faults.refuse(503)
    channel = client.channel("room").subscribe(statuses)
    running = asyncio.create_task(client.run_forever())
    await events.some("error", 2)
    server.faults.refuse(None)
    await channel
    await client.disconnect()
    await running
    assert statuses.names[-1] == "CLOSED"
    assert our_tasks() == []


async def test_run_forever_raises_gave_up_for_a_client_that_was_open(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(reconnect=ReconnectPolicy.disabled())
    running = asyncio.create_task(client.run_forever())
    await until(client.is_connected)
    server.faults.close(1011)
    with pytest.raises(GaveUp):
        await running
    assert our_tasks() == []


async def test_run_forever_raises_gave_up_after_the_last_attempt(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    policy = ReconnectPolicy(initial_backoff=0.01, jitter=0, max_attempts=1)
    client = make_client(reconnect=policy)
    server.faults.refuse(503)
    with pytest.raises(GaveUp) as caught:
        await client.run_forever()
    assert isinstance(caught.value.__cause__, ConnectionFailed)


async def test_cancelling_run_forever_leaves_every_channel(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses = Statuses()
    channel = client.channel("room").subscribe(statuses)
    running = asyncio.create_task(client.run_forever())
    await channel
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert statuses.names == ["SUBSCRIBED", "CLOSED"]
    assert our_tasks() == []


async def test_a_signal_ends_run_forever_and_the_next_one_is_not_ours(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    statuses = Statuses()
    found = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    channel = client.channel("room").subscribe(statuses)
    running = asyncio.create_task(client.run_forever())
    await channel
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert statuses.names == ["SUBSCRIBED", "CLOSED"]
    assert found == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


async def test_where_signals_cannot_be_handled_it_runs_without(
    server: LocalRealtime,
) -> None:
    client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key})
    client.on("open", lambda: client.disconnect())
    await asyncio.to_thread(client.run)  # not the main thread
    assert client.connection_state() == "closed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_what_waits_at_a_signal_is_handled_within_the_time_for_it(
    server: LocalRealtime, client: RealtimeClient, number: signal.Signals
) -> None:
    """Events that are left after that are counted, logged and reported by ``gap``."""
    events = ClientEvents(client)
    begun: list[int] = []
    ended: list[int] = []
    open_until = asyncio.Event()

    async def handler(event: Broadcast) -> None:
        begun.append(event.payload["n"])
        if number is signal.SIGTERM:
            await open_until.wait()
        else:
            await asyncio.sleep(0.01)
        ended.append(event.payload["n"])

    running = asyncio.create_task(client.run_forever(drain_timeout=0.5))
    await client.channel("room").on("broadcast", {"event": "*"}, handler).subscribe()
    for n in range(5):
        server.broadcast("room", "x", {"n": n})
    await until(lambda: client.health().frames_in == 6)
    os.kill(os.getpid(), number)
    await running
    gaps = [(topic, reason) for topic, _, _, reason in events.of("gap")]
    if number is signal.SIGINT:
        assert (ended, gaps, client.health().dropped_events) == ([0, 1, 2, 3, 4], [], 0)
    else:
        assert (begun, ended, gaps) == ([0], [], [("realtime:room", "shutdown")])
        assert client.health().dropped_events == 4
    assert client.health().queued_events == 0
    assert our_tasks() == []


async def test_a_drain_timeout_that_is_no_time_is_refused(client: RealtimeClient) -> None:
    with pytest.raises(ValueError, match="drain_timeout is a positive number"):
        await client.run_forever(drain_timeout=-1)
    assert not client.is_connecting()

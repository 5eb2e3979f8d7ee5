"""Programs that cancel our tasks, fork, drop the client, or get a signal at a bad time."""

from __future__ import annotations

import asyncio
import signal

import pytest

from supabase_rt import ConnectionLost, RealtimeClient
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.programs import run_program
from ...support.recorder import ClientEvents, Recorder, Statuses
from ...support.waiting import our_tasks, turns, until

# -- cancelled from outside --------------------------------------------------------------


def cancel(*names: str) -> int:
    found = [task for task in asyncio.all_tasks() if task.get_name() in names]
    return sum(task.cancel() for task in found)


async def test_a_connection_whose_task_somebody_cancels_comes_back(
    server: LocalRealtime, client: RealtimeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supabase_rt._connection.link_runner.CANCEL_GRACE", 0.01)
    statuses, got, events = Statuses(), Recorder(), ClientEvents(client)
    channel = client.channel("room").on("broadcast", {"event": "*"}, got).subscribe(statuses)
    await channel
    assert cancel("supabase_rt:link") == 1
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
    assert isinstance(statuses.errors[1], ConnectionLost)
    assert statuses.errors[1].code == "Cancelled"
    assert len(events.of("reconnected")) == 1
    server.broadcast("room", "x", {})
    await got.count(1)


async def test_an_attempt_whose_task_somebody_cancels_is_made_again(
    server: LocalRealtime, client: RealtimeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supabase_rt._connection.link_runner.CANCEL_GRACE", 0.01)
    server.faults.stall(handshakes=True)
    channel = client.channel("room").subscribe()
    await until(lambda: server.connections or "supabase_rt:link" in our_tasks())
    assert cancel("supabase_rt:link") == 1
    server.faults.resume()
    await channel


@pytest.mark.parametrize("rounds", [0, 3])
async def test_an_end_whose_task_somebody_cancels_comes_to_its_end(
    server: LocalRealtime, client: RealtimeClient, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    monkeypatch.setattr("supabase_rt._connection.shutdown.CANCEL_GRACE", 0.01)
    await client.connect()
    client.disconnect()
    await turns(rounds)
    assert cancel("supabase_rt:close") == 1
    await client.wait_closed()
    assert client.connection_state() == "closed"
    assert our_tasks() == []
    await until(lambda: not server.open_connections)


async def test_what_follows_an_end_whose_task_somebody_cancels_waits_for_no_ghost(
    server: LocalRealtime, client: RealtimeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supabase_rt._connection.shutdown.CANCEL_GRACE", 0.01)
    await client.connect()
    client.disconnect()
    assert cancel("supabase_rt:close") == 1
    assert await client.disconnect() == "ok"
    assert our_tasks() == []
    await client.connect()
    client.disconnect()
    assert cancel("supabase_rt:close") == 1
    await client.connect()
    await until(lambda: server.open_connections == 1)
    assert await client.disconnect() == "ok"
    assert our_tasks() == []


async def test_a_handler_whose_task_somebody_cancels_gets_the_next_event(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    got = Recorder()

    async def handler(payload: object) -> None:
        got(payload)

    await client.channel("room").on("broadcast", {"event": "*"}, handler).subscribe()
    for number in range(3):
        server.broadcast("room", "x", {"n": number})
        await got.count(number + 1)
        assert cancel(*(name for name in our_tasks() if "handler" in name)) == 1
    assert got.values() == [0, 1, 2]


@pytest.mark.parametrize("is_cancelled", ["from inside", "from outside"])
async def test_a_token_callback_that_is_cancelled_does_not_stop_the_rejoin(
    server: LocalRealtime, make_client: MakeClient, is_cancelled: str
) -> None:
    asked: list[int] = []

    async def token() -> str:
        asked.append(1)
        if len(asked) == 2:
            if is_cancelled == "from inside":
                raise asyncio.CancelledError
            await asyncio.Event().wait()
        return server.anon_key

    client = make_client(access_token=token)
    statuses = Statuses()
    await client.channel("room").subscribe(statuses)
    server.faults.phx_close("room")
    await until(lambda: len(asked) == 2)
    if is_cancelled == "from outside":
        assert cancel("supabase_rt:token") == 1
    await statuses.are("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")


# -- leaving all while somebody comes ----------------------------------------------------


async def test_a_channel_subscribed_while_all_others_leave_keeps_the_socket(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    await client.channel("old").subscribe()
    leaving = client.remove_all_channels()
    statuses, got = Statuses(), Recorder()
    new = client.channel("new").on("broadcast", {"event": "*"}, got).subscribe(statuses)
    assert await leaving == ["ok"]
    await new
    server.broadcast("new", "x", {})
    await got.count(1)
    assert statuses.names == ["SUBSCRIBED"]
    assert server.connections == 1


# -- told to stop at a bad time ----------------------------------------------------------

WAITING_BOT = """
import asyncio, logging, sys
from supabase_rt import create_client

supabase = create_client(sys.argv[1], sys.argv[2])
supabase.channel("room").subscribe()
supabase.realtime.on(sys.argv[3], lambda *args: print("now", flush=True))
if sys.argv[3] == "heartbeat":
    async def soon():
        await asyncio.sleep(0.1)
        print("now", flush=True)
    async def main():
        waiting = asyncio.create_task(soon())
        await supabase.realtime.run_forever()
        await waiting
    asyncio.run(main())
else:
    logging.disable()
    supabase.realtime.run()
print("over", flush=True)
"""


async def test_a_signal_between_two_attempts_ends_the_program(server: LocalRealtime) -> None:
    server.faults.refuse(503)
    program = await run_program(
        WAITING_BOT, server.url, server.anon_key, "reconnecting", until="now", send=signal.SIGINT
    )
    assert (program.err, program.code) == ("", 0)
    assert program.out.endswith("over\n")


async def test_a_signal_while_the_handshake_hangs_ends_the_program(server: LocalRealtime) -> None:
    server.faults.stall(handshakes=True)
    program = await run_program(
        WAITING_BOT, server.url, server.anon_key, "heartbeat", until="now", send=signal.SIGTERM
    )
    assert (program.err, program.code) == ("", 0)
    assert program.out.endswith("over\n")
    server.faults.resume()


# -- other processes ---------------------------------------------------------------------

FORKING = """
import asyncio, multiprocessing, sys
from supabase_rt import InvalidState, create_client

ECHO = {"config": {"broadcast": {"self": True, "ack": True}}}
HELLO = {"type": "broadcast", "event": "x", "payload": {}}
supabase = create_client(sys.argv[1], sys.argv[2])
unused = create_client(sys.argv[1], sys.argv[2])

async def use(client):
    channel = client.channel("room", ECHO)
    await channel.subscribe()
    print(await channel.send(HELLO), flush=True)

def child():
    for call in (supabase.realtime.connect, supabase.channel("other").subscribe):
        try:
            call()
        except InvalidState as exc:
            print(exc, flush=True)
    try:
        asyncio.run(use(supabase))
    except InvalidState as exc:
        print(exc, flush=True)

    async def with_the_other():
        await use(unused)
        await unused.realtime.disconnect()

    asyncio.run(with_the_other())

async def main():
    await use(supabase)
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    while process.is_alive():
        await asyncio.sleep(0.02)
    await use(supabase)
    await supabase.realtime.disconnect()

asyncio.run(main())
"""


async def test_a_forked_child_may_not_use_the_parents_socket(server: LocalRealtime) -> None:
    program = await run_program(FORKING, server.url, server.anon_key)
    assert program.err == ""
    lines = program.out.splitlines()
    problem = "this client is at work in the parent process"
    assert [line for line in lines if line and not line.startswith("hint")] == [
        "ok",
        problem,
        problem,
        problem,
        "ok",
        "ok",
    ]
    # Counts one socket of the parent and one of the child's own client; the child wrote to no
    # other.
    assert server.connections == 2
    assert server.joins == 2
    assert server.malformed == 0


async def test_an_open_client_that_is_collected_with_its_loop_warns_and_names_it(
    server: LocalRealtime,
) -> None:
    text = """
import asyncio, gc, logging, sys, warnings
from supabase_rt import create_client

logging.disable()
supabase = create_client(sys.argv[1], sys.argv[2])
loop = asyncio.new_event_loop()

async def open_one():
    await supabase.channel("room").subscribe()

loop.run_until_complete(open_one())
loop.close()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    del supabase, loop, open_one
    gc.collect()
for each in caught:
    print(each.category.__name__, str(each.message))
"""
    program = await run_program(text, server.url, server.anon_key)
    (line,) = [line for line in program.out.splitlines() if "RealtimeClient" in line]
    assert line.startswith("ResourceWarning unclosed RealtimeClient of ws://127.0.0.1")
    assert "disconnect()" in line
    assert server.anon_key not in program.out + program.err

"""Signals at a running client: they end it, unless the program handles them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from supabase_rt import RealtimeClient
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.programs import run_program
from ...support.waiting import our_tasks, until

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def handlers_of_pytest() -> Iterator[None]:
    found = [(number, signal.getsignal(number)) for number in SIGNALS]
    yield
    for number, handler in found:
        signal.signal(number, handler)


class Host:
    """A program with its own signal handler, as uvicorn has one."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number
        self.told: list[int] = []
        self.handler = lambda number, frame: self.told.append(number)
        signal.signal(number, self.handler)

    @property
    def is_installed(self) -> bool:
        return signal.getsignal(self.number) is self.handler


async def started(client: RealtimeClient, **options: Any) -> asyncio.Task[None]:
    running = asyncio.create_task(client.run_forever(**options))
    await until(client.is_connected)
    return running


async def cancelled(running: asyncio.Task[None]) -> None:
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert our_tasks() == []


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_handler_of_the_program_is_called_and_the_client_runs_on(
    client: RealtimeClient, number: signal.Signals
) -> None:
    host = Host(number)
    running = await started(client)
    send(number)
    send(number)
    await until(lambda: host.told == [number, number])
    assert client.is_connected()
    assert not running.done()
    assert host.is_installed
    await cancelled(running)
    assert host.is_installed
    assert not client.is_connected()


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_handler_of_the_event_loop_is_one_of_the_program(
    client: RealtimeClient, number: signal.Signals
) -> None:
    told: list[int] = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(number, told.append, number)
    try:
        running = await started(client)
        send(number)
        await until(lambda: told == [number])
        assert not running.done()
        await cancelled(running)
        send(number)
        await until(lambda: told == [number, number])
    finally:
        loop.remove_signal_handler(number)


async def test_a_program_with_a_handler_for_one_signal_is_ended_by_the_other(
    client: RealtimeClient,
) -> None:
    host = Host(signal.SIGTERM)
    running = await started(client)
    send(signal.SIGINT)
    await running
    assert host.is_installed
    assert host.told == []


async def test_a_signal_that_the_program_ignores_stays_ignored(client: RealtimeClient) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running = await started(client)
    send(signal.SIGINT)
    await asyncio.sleep(0.05)
    assert not running.done()
    await cancelled(running)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize("number", SIGNALS)
async def test_true_takes_the_signals_from_the_program_and_gives_them_back(
    client: RealtimeClient, number: signal.Signals
) -> None:
    hosts = [Host(each) for each in SIGNALS]
    running = await started(client, handle_signals=True)
    assert [host.is_installed for host in hosts] == [False, False]
    send(number)
    await running
    assert [host.told for host in hosts] == [[], []]
    assert [host.is_installed for host in hosts] == [True, True]


async def test_true_gives_them_back_to_the_program_without_a_signal_too(
    client: RealtimeClient,
) -> None:
    host = Host(signal.SIGTERM)
    running = await started(client, handle_signals=True)
    await client.disconnect()
    await running
    assert host.is_installed


async def test_false_takes_none(client: RealtimeClient) -> None:
    found = [signal.getsignal(number) for number in SIGNALS]
    running = await started(client, handle_signals=False)
    assert [signal.getsignal(number) for number in SIGNALS] == found
    await cancelled(running)
    assert [signal.getsignal(number) for number in SIGNALS] == found


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_ends_every_client_of_the_program(
    server: LocalRealtime, make_client: MakeClient, number: signal.Signals
) -> None:
    found = [signal.getsignal(number) for number in SIGNALS]
    running = [await started(make_client()) for _ in range(3)]
    send(number)
    await asyncio.wait_for(asyncio.gather(*running), 10)
    assert [signal.getsignal(number) for number in SIGNALS] == found
    assert our_tasks() == []


async def test_a_client_that_ends_by_itself_leaves_the_signals_to_the_others(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    first, second = make_client(), make_client()
    running = [await started(first), await started(second)]
    await first.disconnect()
    await running[0]
    assert not running[1].done()
    send(signal.SIGTERM)
    await asyncio.wait_for(running[1], 10)


async def test_a_handler_that_the_program_installs_meanwhile_is_kept(
    client: RealtimeClient,
) -> None:
    running = await started(client)
    host = Host(signal.SIGTERM)
    await client.disconnect()
    await running
    assert host.is_installed


async def test_true_is_refused_outside_the_main_thread(server: LocalRealtime) -> None:
    client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key})

    def run() -> None:
        asyncio.run(client.run_forever(handle_signals=True))

    with pytest.raises(RuntimeError, match="main thread"):
        await asyncio.to_thread(run)
    assert not client.is_connecting()


async def test_another_value_is_refused(client: RealtimeClient) -> None:
    wrong: Any = "SIGTERM"
    with pytest.raises(TypeError, match="handle_signals is True, False or None"):
        await client.run_forever(handle_signals=wrong)
    assert not client.is_connecting()


HOST = """
import asyncio, signal, sys
from supabase_rt import create_client

async def main():
    supabase = create_client(sys.argv[1], sys.argv[2])
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(stop.set))
    client = asyncio.create_task(supabase.realtime.run_forever())
    await supabase.channel("room").subscribe(lambda status: print(status, flush=True))
    await stop.wait()
    print("client ended:", client.done())
    client.cancel()
    await asyncio.wait([client])

asyncio.run(main())
"""


async def test_a_program_that_ends_by_its_own_handler_ends_the_client(
    server: LocalRealtime,
) -> None:
    program = await run_program(
        HOST, server.url, server.anon_key, until="SUBSCRIBED", send=signal.SIGTERM
    )
    assert program.err == ""
    assert program.out.split("\n") == ["SUBSCRIBED", "client ended: False", "CLOSED", ""]
    assert program.code == 0
    await until(lambda: server.open_connections == 0)


BOT = """
import asyncio, signal, sys
from supabase_rt import create_client

async def main():
    found = signal.getsignal(signal.SIGINT)
    supabase = create_client(sys.argv[1], sys.argv[2])
    supabase.channel("room").subscribe(lambda status: print(status, flush=True))
    await supabase.realtime.run_forever()
    print("put back:", signal.getsignal(signal.SIGINT) == found)

asyncio.run(main())
"""


async def test_the_handler_of_asyncio_run_is_none_of_the_program(server: LocalRealtime) -> None:
    program = await run_program(
        BOT, server.url, server.anon_key, until="SUBSCRIBED", send=signal.SIGINT
    )
    assert program.err == ""
    assert program.out.split("\n") == ["SUBSCRIBED", "CLOSED", "put back: True", ""]
    assert program.code == 0


BLOCKING = """
import signal, sys, threading
from supabase_rt.sync import create_client

told = []
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
supabase = create_client(sys.argv[1], sys.argv[2])
supabase.channel("room").subscribe(lambda status: print(status, flush=True))

def watch():
    while not told:
        threading.Event().wait(0.01)
    print("told, and connected:", supabase.realtime.is_connected(), flush=True)
    supabase.realtime.disconnect()

threading.Thread(target=watch).start()
supabase.realtime.run()
print("over")
"""


async def test_a_blocking_client_leaves_the_handler_to_the_program_too(
    server: LocalRealtime,
) -> None:
    program = await run_program(
        BLOCKING, server.url, server.anon_key, until="SUBSCRIBED", send=signal.SIGTERM
    )
    assert program.err == ""
    assert "told, and connected: True" in program.out
    assert program.out.split("\n")[-2:] == ["over", ""]
    assert program.code == 0

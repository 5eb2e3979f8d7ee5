"""Blocking programs: calls inside handlers, notebooks, Ctrl+C, and exits without closing."""

from __future__ import annotations

import asyncio
import gc
import queue
import signal
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from supabase_rt import ConnectionFailed, ReconnectPolicy
from supabase_rt.server import LocalRealtime
from supabase_rt.sync import RealtimeClient, SupabaseClient, create_client
from supabase_rt.sync.loop_thread import call

from ...support.peers import closed_port
from ...support.programs import run_program
from .test_contract import WAIT, Got

SELF_ACK = {"config": {"broadcast": {"self": True, "ack": True}}}


@pytest.fixture
def local() -> Iterator[LocalRealtime]:
    server = call(LocalRealtime().start)
    yield server
    call(server.stop)


@pytest.fixture
def supabase(local: LocalRealtime) -> Iterator[SupabaseClient]:
    with create_client(local.url, local.anon_key, realtime={"timeout": 5.0}) as found:
        yield found


def test_a_handler_may_call_anything_and_wait_for_it(supabase: SupabaseClient) -> None:
    """The loop runs in another thread, so a handler may wait for the server."""
    channel = supabase.channel("room", SELF_ACK)
    results: queue.Queue[Any] = queue.Queue()

    def answer(message: Any) -> None:
        results.put(
            channel.send({"type": "broadcast", "event": "answer", "payload": message.payload})
        )
        results.put(supabase.channel("other").subscribe().state)
        results.put(channel.wait_for("broadcast", {"event": "more"}, timeout=WAIT).payload)

    channel.on("broadcast", {"event": "question"}, answer).subscribe()
    channel.send({"type": "broadcast", "event": "question", "payload": {"n": 1}})
    assert results.get(timeout=WAIT) == "ok"
    assert results.get(timeout=WAIT) == "joined"
    while results.empty():
        channel.send({"type": "broadcast", "event": "more", "payload": {"n": 2}})
    assert results.get(timeout=WAIT) == {"n": 2}


def test_handlers_run_outside_the_loop_one_event_at_a_time(supabase: SupabaseClient) -> None:
    channel = supabase.channel("room", SELF_ACK)
    got = Got()
    inside = threading.Lock()

    def careful(message: Any) -> None:
        assert inside.acquire(blocking=False), "two events at once"
        got((threading.current_thread().name, message.payload["n"]))
        inside.release()

    channel.on("broadcast", {"event": "*"}, careful).subscribe()
    for number in range(20):
        channel.send({"type": "broadcast", "event": "n", "payload": {"n": number}})
    seen = [got.next() for _ in range(20)]
    assert [number for _, number in seen] == list(range(20))
    assert "supabase_rt:sync" not in {name for name, _ in seen}


def test_a_handler_that_hangs_holds_up_nobody(supabase: SupabaseClient) -> None:
    release = threading.Event()
    got = Got()
    channel = supabase.channel("room", SELF_ACK)
    for _ in range(45):
        channel.on("broadcast", {"event": "*"}, lambda: release.wait(WAIT))
    channel.on("broadcast", {"event": "*"}, got).subscribe()
    for number in range(3):
        channel.send({"type": "broadcast", "event": "n", "payload": {"n": number}})
    assert [got.next().payload["n"] for _ in range(3)] == [0, 1, 2]
    release.set()


def test_a_coroutine_that_a_handler_returns_is_awaited(supabase: SupabaseClient) -> None:
    heard: queue.Queue[Any] = queue.Queue()

    class Handler:
        async def __call__(self, message: Any) -> None:
            await asyncio.sleep(0)
            heard.put(message.payload)

    async def later(message: Any) -> None:
        heard.put(message.event)

    channel = supabase.channel("room", SELF_ACK)
    channel.on("broadcast", {"event": "x"}, Handler())
    channel.on("broadcast", {"event": "x"}, lambda message: later(message)).subscribe()
    channel.send({"type": "broadcast", "event": "x", "payload": {"n": 1}})
    assert {str(heard.get(timeout=WAIT)) for _ in range(2)} == {"{'n': 1}", "x"}


def test_an_async_handler_cannot_block_the_loop_that_runs_it(supabase: SupabaseClient) -> None:
    got = Got()
    channel = supabase.channel("room", SELF_ACK)

    async def wrong() -> None:
        try:
            channel.send({"type": "broadcast", "event": "x", "payload": {}})
        except RuntimeError as exc:
            got(exc)

    channel.on("broadcast", {"event": "*"}, wrong).subscribe()
    channel.send({"type": "broadcast", "event": "n", "payload": {}})
    assert "event loop thread" in str(got.next())


async def test_it_works_inside_a_running_loop(local: LocalRealtime) -> None:
    """The cells of a notebook run in a loop, which blocks meanwhile."""
    with create_client(local.url, local.anon_key) as supabase:
        channel = supabase.channel("room", SELF_ACK).subscribe()
        assert channel.send({"type": "broadcast", "event": "x", "payload": {}}) == "ok"
    await asyncio.sleep(0)


def test_the_context_of_a_client_connects_and_leaves(local: LocalRealtime) -> None:
    statuses = Got()
    with RealtimeClient(local.ws_url, params={"apikey": local.anon_key}) as client:
        assert client.is_connected()
        client.channel("room").subscribe(statuses)
        assert statuses.next()[0] == "SUBSCRIBED"
    assert statuses.next()[0] == "CLOSED"
    assert client.connection_state() == "closed"


def test_no_server_raises_at_connect() -> None:
    client = RealtimeClient(
        f"ws://127.0.0.1:{closed_port()}",
        params={"apikey": "k"},
        reconnect=ReconnectPolicy.disabled(),
    )
    with pytest.raises(ConnectionFailed):
        client.connect()


def test_two_threads_share_a_client(supabase: SupabaseClient) -> None:
    channel = supabase.channel("room", SELF_ACK)
    got = Got()
    channel.on("broadcast", {"event": "*"}, got).subscribe()

    def send_ten(name: str) -> None:
        for number in range(10):
            channel.send({"type": "broadcast", "event": name, "payload": {"n": number}})

    threads = [threading.Thread(target=send_ten, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    seen = [got.next() for _ in range(20)]
    for thread in threads:
        thread.join()
    for name in ("a", "b"):
        assert [each.payload["n"] for each in seen if each.event == name] == list(range(10))


LISTENER = """
import sys
from supabase_rt.sync import create_client

supabase = create_client({url!r}, {key!r})
channel = supabase.channel("room")

def say(what):
    # In one piece: handlers run in threads, and print writes the end of a line separately.
    sys.stdout.write(f"{{what}}\\n")
    sys.stdout.flush()

channel.on("broadcast", {{"event": "*"}}, lambda message: say(message.payload))
channel.subscribe(lambda status, error: say(status))
"""


async def test_a_program_that_just_ends_leaves_its_channels(local: LocalRealtime) -> None:
    done = await run_program(LISTENER.format(url=local.url, key=local.anon_key))
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == "SUBSCRIBED"
    assert [each.topic for each in local.received if each.event == "phx_leave"] == ["realtime:room"]


async def test_a_client_of_a_function_that_has_returned_is_left_too(local: LocalRealtime) -> None:
    program = LISTENER.format(url=local.url, key=local.anon_key)
    body = "".join(f"    {line}\n" for line in program.splitlines())
    done = await run_program(f"def main():\n{body}main()\n")
    assert (done.code, done.err) == (0, "")
    assert [each.topic for each in local.received if each.event == "phx_leave"] == ["realtime:room"]


KEEPS_THE_LOOP = """
import threading, time
from supabase_rt.sync import loop_thread as background

background.LEAVE_TIMEOUT = background.END_TIMEOUT = 0.1
kept = threading.Event()

async def keep(message):
    kept.set()
    time.sleep(60)

channel.on("broadcast", {"event": "*"}, keep)
channel.http_send("x", {})
kept.wait()
"""


async def test_an_async_handler_that_keeps_the_loop_does_not_keep_the_program(
    local: LocalRealtime,
) -> None:
    done = await run_program(LISTENER.format(url=local.url, key=local.anon_key) + KEEPS_THE_LOOP)
    assert done.code == 0


def test_a_handler_that_was_removed_is_forgotten(supabase: SupabaseClient) -> None:
    class Handler:
        def __call__(self, message: object) -> None:
            pass

    handler = Handler()
    channel = supabase.channel("room").on("broadcast", {"event": "x"}, handler)
    channel.off("broadcast", {"event": "x"}, handler)
    gone = weakref.ref(handler)
    del handler
    gc.collect()
    assert gone() is None


RUNNING = """
import signal, threading, time

def tell():
    # SUBSCRIBED is said before run() is there to hear a signal.
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.01)
    say("running")

threading.Thread(target=tell).start()
supabase.realtime.run()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_run_ends_cleanly_at_a_signal(local: LocalRealtime, number: signal.Signals) -> None:
    program = LISTENER.format(url=local.url, key=local.anon_key) + RUNNING
    done = await run_program(program, until="running", send=number)
    assert (done.code, done.err) == (0, "")
    *before, last = done.out.splitlines()
    # Two threads print this: the one of the callback and the main one.
    assert (sorted(before), last) == (["SUBSCRIBED", "running"], "CLOSED")


async def test_ctrl_c_interrupts_a_call_that_waits(local: LocalRealtime) -> None:
    program = LISTENER.format(url=local.url, key=local.anon_key) + (
        "try:\n"
        "    print('waiting', flush=True)\n"
        "    channel.wait_for('broadcast', {'event': 'never'})\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = await run_program(program, until="waiting", send=signal.SIGINT)
    assert (done.code, done.err) == (0, "")
    assert "interrupted" in done.out.splitlines()


@pytest.mark.parametrize(
    "waiting", ["channel.wait_for('broadcast', {'event': 'never'})", "supabase.realtime.run()"]
)
async def test_an_interrupt_that_wakes_nobody_is_heard(local: LocalRealtime, waiting: str) -> None:
    program = LISTENER.format(url=local.url, key=local.anon_key) + (
        "import _thread, threading\n"
        # A Ctrl+C just before the main thread waits only sets a flag, and does not wake it.
        "threading.Timer(0.5, _thread.interrupt_main).start()\n"
        "try:\n"
        f"    {waiting}\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
        "say('heard')\n"
    )
    done = await run_program(program)
    assert (done.code, done.err) == (0, "")
    assert "heard" in done.out.splitlines()


INTERRUPTED_START = """
import signal, threading
import anyio
from supabase_rt.sync.loop_thread import ask

told, run, main = threading.Event(), anyio.run, threading.main_thread().ident

def slowly(*args):
    signal.pthread_kill(main, signal.SIGINT)
    told.wait()
    run(*args)

anyio.run = slowly
try:
    ask(int)
except KeyboardInterrupt:
    print("interrupted")
told.set()
print(ask(lambda: threading.current_thread().name), threading.active_count())
"""


async def test_the_thread_whose_start_was_interrupted_is_used_by_the_next_call() -> None:
    """As in a notebook: a cell is interrupted during the very first call, and run again."""
    done = await run_program(INTERRUPTED_START)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == ["interrupted", "supabase_rt:sync 2"]


async def test_run_raises_what_trying_again_would_not_mend(local: LocalRealtime) -> None:
    program = (
        "from supabase_rt.sync import create_client\n"
        # In two parts: the traceback of Python 3.13 shows the lines of such a program.
        f"create_client({local.url!r}, 'wro' + 'ng').realtime.run()\n"
    )
    done = await run_program(program)
    assert done.code == 1
    assert "ConnectionFailed" in done.err.splitlines()[-2] + done.err.splitlines()[-1]
    assert "wrong" not in done.err.replace("went wrong", "")


ENDING = """
import signal, time

def end():
    # Until run() is there to hear it.
    while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        time.sleep(0.01)
    sys.exit()

channel.on("broadcast", {"event": "*"}, end)
channel.http_send("x", {})
supabase.realtime.run()
"""


async def test_a_handler_may_end_the_program(local: LocalRealtime) -> None:
    program = LISTENER.format(url=local.url, key=local.anon_key) + ENDING
    done = await run_program(program)
    assert (done.code, done.err) == (0, "")
    assert "CLOSED" in done.out.splitlines()


def test_middleware_runs_in_a_thread_and_waits_for_the_handler(
    supabase: SupabaseClient, local: LocalRealtime
) -> None:
    seen: queue.Queue[Any] = queue.Queue()
    client = supabase.realtime

    @client.use
    async def in_the_loop(event: Any, call_next: Any) -> None:
        await call_next(event)

    @client.use
    def around(event: Any, call_next: Any) -> None:
        seen.put(("before", call_next.handler, call_next.topic))
        call_next(event)
        seen.put(("after", client.connection_state()))

    def handler(event: Any) -> None:
        seen.put(client.health().state)
        if event.event == "bad":
            raise ValueError("mine")

    errors: queue.Queue[Any] = queue.Queue()

    @client.on_error
    def on_error(error: Any, event: Any) -> None:
        errors.put((str(error), event.event))

    supabase.channel("room").on("broadcast", {"event": "*"}, handler).subscribe()
    call(local.broadcast, "room", "x", {})
    got = [seen.get(timeout=WAIT) for _ in range(3)]
    assert got == [("before", handler, "realtime:room"), "open", ("after", "open")]
    call(local.broadcast, "room", "bad", {})
    assert errors.get(timeout=WAIT) == ("mine", "bad")
    client.off("error", on_error)


def test_handlers_in_threads_may_run_at_once(
    supabase: SupabaseClient, local: LocalRealtime
) -> None:
    both = threading.Barrier(2)
    met: queue.Queue[int] = queue.Queue()

    def handler(event: Any) -> None:
        met.put(both.wait(WAIT))

    channel = supabase.channel("room").on("broadcast", {"event": "*"}, handler, concurrency=2)
    channel.subscribe()
    for _ in range(2):
        call(local.broadcast, "room", "x", {})
    assert sorted(met.get(timeout=WAIT) for _ in range(2)) == [0, 1]

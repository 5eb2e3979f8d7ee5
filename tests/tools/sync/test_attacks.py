"""Accidents of a program, which must not harm the loop and the calls of the blocking clients."""

from __future__ import annotations

import sys

import pytest

from supabase_rt.server import LocalRealtime
from supabase_rt.sync.loop_thread import call

from ...support.programs import run_program
from .test_blocking import local

__all__ = ["local"]

BEGIN = """
import atexit, gc, os, signal, sys, threading, time
import supabase_rt
from supabase_rt.sync import create_client
from supabase_rt.sync.loop_thread import ask

def say(*what):
    print(*what, flush=True)

OPTIONS = {{"config": {{"broadcast": {{"self": True, "ack": True}}}}}}
MESSAGE = {{"type": "broadcast", "event": "x", "payload": {{}}}}

def leave(*args):
    if armed:
        armed.clear()
        sys.exit(3)

async def leave_async(*args):
    leave()

async def leave_around(event, call_next):
    leave()
    return await call_next(event)

armed = [True]
supabase = create_client({url!r}, {key!r}, realtime={{"timeout": 3.0, {options}}})
client = supabase.realtime
channel = supabase.channel("room", OPTIONS)
"""
GO_ON = """
    time.sleep(15)
    say("not told")
except KeyboardInterrupt:
    say("told")
say(client.is_connected(), channel.send(MESSAGE))
supabase.close()
say("closed")
"""


def program(local: LocalRealtime, text: str, options: str = "") -> str:
    return BEGIN.format(url=local.url, key=local.anon_key, options=options) + text


USES = {
    "handler": "channel.on('broadcast', {'event': '*'}, leave_async)",
    "handler in a thread": "channel.on('broadcast', {'event': '*'}, leave_async, thread=True)",
    "coroutine of a plain function": (
        "channel.on('broadcast', {'event': '*'}, lambda message: leave_async())"
    ),
    "client event": "client.on('heartbeat', leave_async)\n    channel.subscribe()\n"
    "    client.send_heartbeat()",
    "middleware": "client.use(leave_around)\n    channel.on('broadcast', {'event': '*'}, print)",
    "heartbeat callback": "client.on_heartbeat(leave_async)\n    channel.subscribe()\n"
    "    client.send_heartbeat()",
}


@pytest.mark.parametrize("name", USES)
async def test_sys_exit_in_async_code_is_meant_for_the_program_and_not_for_the_loop(
    local: LocalRealtime, name: str
) -> None:
    text = f"try:\n    {USES[name]}\n    channel.subscribe()\n    channel.send(MESSAGE)" + GO_ON
    done = await run_program(program(local, text))
    assert done.err == ""
    assert [line for line in done.out.splitlines() if "Broadcast" not in line] == [
        "told",
        "True ok",
        "closed",
    ]


async def test_so_it_is_in_a_subscribe_callback_and_in_the_token_callback(
    local: LocalRealtime,
) -> None:
    text = "try:\n    channel.subscribe(leave_async)" + GO_ON
    done = await run_program(program(local, text))
    assert (done.out.splitlines(), done.err) == (["told", "True ok", "closed"], "")
    text = "try:\n    channel.subscribe()" + GO_ON
    done = await run_program(program(local, text, '"access_token": leave_async'))
    assert done.out.splitlines()[:1] == ["told"]
    assert done.out.splitlines()[-1:] == ["closed"]


async def test_a_loop_that_is_ended_all_the_same_is_replaced_and_says_so(
    local: LocalRealtime,
) -> None:
    """The loop calls ``check`` directly."""
    text = """
channel.subscribe()

def waiting():
    try:
        channel.wait_for('broadcast', {'event': 'never'})
    except supabase_rt.InvalidState as exc:
        say(exc.code)

def sending():
    time.sleep(0.3)
    try:
        channel.send(MESSAGE)
    except supabase_rt.InvalidState:
        pass

thread = threading.Thread(target=waiting)
thread.start()
try:
    threading.Thread(target=sending).start()
    channel.wait_for('broadcast', {'event': 'x'}, lambda message: leave())
except (KeyboardInterrupt, supabase_rt.InvalidState):
    pass
try:
    time.sleep(1)
except KeyboardInterrupt:
    pass
thread.join()
say(client.is_connected())
client.connect()
channel.subscribe()
say(client.is_connected(), channel.send(MESSAGE))
supabase.close()
say('closed')
"""
    done = await run_program(
        program(local, "sys.excepthook = threading.excepthook = print\n" + text)
    )
    found = [line for line in done.out.splitlines() if not line.startswith(("(", "<"))]
    assert found == ["LoopEnded", "False", "True ok", "closed"]


async def test_a_signal_handler_may_call_whatever_the_main_thread_is_at() -> None:
    text = """
channel.subscribe()
calls = 0

def told(*_):
    global calls
    channel.send(MESSAGE)
    client.health()
    calls += 1
    signal.setitimer(signal.ITIMER_REAL, 0.0007)

signal.signal(signal.SIGALRM, told)
signal.setitimer(signal.ITIMER_REAL, 0.001)
end = time.monotonic() + 5
while time.monotonic() < end:
    client.health()
    channel.send(MESSAGE)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
say(calls > 100)
supabase.close()
say('closed')
"""
    # It sends more than a project's limit allows; the limit would close the channel.
    async with LocalRealtime(max_events_per_second=None) as local:
        done = await run_program(program(local, text))
    assert (done.out.splitlines(), done.err) == (["True", "closed"], "")


async def test_a_signal_handler_may_call_while_the_thread_of_the_loop_is_started() -> None:
    text = """
import signal, threading
from supabase_rt.sync.loop_thread import ask

real, armed = threading.Thread.start, [True]

def start(self):
    if armed:
        armed.clear()
        signal.raise_signal(signal.SIGTERM)
    real(self)

threading.Thread.start = start
signal.signal(signal.SIGTERM, lambda *_: print('in the handler', ask(lambda: 1)))
print('after it', ask(lambda: 2), threading.active_count())
"""
    done = await run_program(text)
    assert (done.out.splitlines(), done.err) == (["in the handler 1", "after it 2 2"], "")


async def test_a_call_that_the_loop_cannot_answer_ends_in_an_error() -> None:
    """As in a signal handler that interrupts a thread while it holds a lock of logging."""
    text = """
import threading, time
from supabase_rt import InvalidState
from supabase_rt.sync import loop_thread as background

background.STUCK_AFTER = 1.0
lock = threading.Lock()
background.ask(int)

def needs_the_lock():
    with lock:
        pass

with lock:
    background.begin(needs_the_lock)
    try:
        background.ask(int)
    except InvalidState as exc:
        print(exc.code)
print(background.ask(int))
"""
    done = await run_program(text)
    assert (done.out.splitlines(), done.err) == (["LoopStuck", "0"], "")


async def test_calls_from_del_from_atexit_and_after_a_fork(local: LocalRealtime) -> None:
    text = """
channel.subscribe()

class Last:
    def __init__(self):
        self.itself = self

    def __del__(self):
        say('del', channel.send(MESSAGE))

atexit.register(lambda: say('atexit', channel.send(MESSAGE)))
Last()
gc.collect()
pid = os.fork()
if not pid:
    try:
        channel.send(MESSAGE)
    except supabase_rt.InvalidState as exc:
        say('child', exc)
    os._exit(0)
os.waitpid(pid, 0)
"""
    if sys.version_info >= (3, 12):
        text = "import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n" + text
    done = await run_program(program(local, text))
    assert done.err == ""
    assert done.out.splitlines() == [
        "del ok",
        "child this client is at work in the parent process",
        "atexit ok",
    ]


async def test_after_the_end_of_the_loop_a_call_says_so(local: LocalRealtime) -> None:
    text = """
import atexit

def late():
    try:
        print(channel.send({"type": "broadcast", "event": "x", "payload": {}}))
    except Exception as exc:
        print(type(exc).__name__, exc.code)

# Handlers run the other way round: this one comes after ours.
atexit.register(late)
"""
    begin, rest = program(local, "channel.subscribe()\n").split("\n", 1)
    done = await run_program(text + begin + rest)
    assert (done.out.splitlines(), done.err) == (["InvalidState LoopEnded"], "")


async def test_a_blocking_token_callback_that_asks_for_itself_is_asked_once(
    local: LocalRealtime,
) -> None:
    """Without the guard there were 2,270 threads in four seconds."""
    text = """
asked = 0

def token():
    global asked
    asked += 1
    client.set_auth()
    return KEY

channel.subscribe()
time.sleep(0.5)
say(asked <= 2, threading.active_count() < 8)
client.set_auth()
say(asked <= 3)
supabase.close()
"""
    text = text.replace("KEY", repr(local.anon_key))
    options = '"access_token": lambda: token()'
    done = await run_program(program(local, text, options))
    assert (done.out.splitlines(), done.err) == (["True True", "True"], "")


def test_a_call_in_the_loop_itself_is_an_error_at_once() -> None:
    async def wait_for_itself() -> None:
        call(int)  # type: ignore[arg-type]

    with pytest.raises(RuntimeError, match="event loop thread"):
        call(wait_for_itself)

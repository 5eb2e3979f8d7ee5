"""Handlers of every kind: each sees its events in order, one at a time, and harms nobody."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from supabase_rt import RealtimeChannel, RealtimeClient, RealtimeError
from supabase_rt._handlers.signatures import accepted_arguments, handler_name
from supabase_rt.server import LocalRealtime
from supabase_rt.types import Overflow

from ...support.clients import MakeClient
from ...support.recorder import ClientEvents, Recorder
from ...support.waiting import turns, until

ANY = {"event": "*"}


def channel_of(client: RealtimeClient) -> RealtimeChannel:
    return client.channel("room")


async def flood(server: LocalRealtime, client: RealtimeClient, count: int) -> None:
    """Sends numbered broadcasts, and waits until the client has read them all."""
    expected = client.health().frames_in + count
    for n in range(count):
        server.broadcast("room", "x", {"n": n})
    await until(lambda: client.health().frames_in >= expected)


def numbers(events: list[Any]) -> list[int]:
    return [event.payload["n"] for event in events]


# -- kinds of handlers --------------------------------------------------------


class Callables:
    """Handlers that are no plain functions."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def method(self, event: Any) -> None:
        self.seen.append(event)

    async def async_method(self, event: Any) -> None:
        self.seen.append(event)

    def nothing(self) -> None:
        self.seen.append(None)

    async def async_nothing(self) -> None:
        self.seen.append(None)

    def optional(self, event: Any = None) -> None:
        self.seen.append(event)

    def variadic(self, *args: Any, **kwargs: Any) -> None:
        assert len(args) == 1
        assert kwargs == {}
        self.seen.append(args[0])

    def more(self, event: Any, second: str = "default") -> None:
        assert second == "default"
        self.seen.append(event)

    def with_name(self, name: str, event: Any) -> None:
        assert name == "bound"
        self.seen.append(event)

    def returns_something(self, event: Any) -> Any:
        self.seen.append(event)
        return {"ignored": True}

    def returns_coroutine(self, event: Any) -> Any:
        return self.async_method(event)

    def __call__(self, event: Any) -> None:
        self.seen.append(event)


class AsyncCallable(Callables):
    async def __call__(self, event: Any) -> None:  # type: ignore[override]
        self.seen.append(event)


KINDS: dict[str, Callable[[Callables], Callable[..., Any]]] = {
    "bound method": lambda it: it.method,
    "async bound method": lambda it: it.async_method,
    "no argument": lambda it: it.nothing,
    "async without argument": lambda it: it.async_nothing,
    "optional argument": lambda it: it.optional,
    "any arguments": lambda it: it.variadic,
    "further optional arguments": lambda it: it.more,
    "partial": lambda it: functools.partial(it.with_name, "bound"),
    "partial of async": lambda it: functools.partial(it.async_method),
    "callable object": lambda it: it,
    "result that is ignored": lambda it: it.returns_something,
    "function that returns a coroutine": lambda it: it.returns_coroutine,
    "lambda that returns a coroutine": lambda it: lambda event: it.async_method(event),
    "lambda without argument that returns a coroutine": lambda it: lambda: it.async_nothing(),
    "builtin method": lambda it: it.seen.append,
}


@pytest.mark.conformance("CM13")
@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_handler_sees_everything_in_order(
    server: LocalRealtime, client: RealtimeClient, kind: str
) -> None:
    found = Callables()
    await channel_of(client).on("broadcast", ANY, KINDS[kind](found)).subscribe()
    await flood(server, client, 20)
    await until(lambda: len(found.seen) == 20)
    if found.seen[0] is not None:
        assert numbers(found.seen) == list(range(20))
    assert client.health().handler_errors == 0


async def test_an_object_with_an_async_call(server: LocalRealtime, client: RealtimeClient) -> None:
    found = AsyncCallable()
    await channel_of(client).on("broadcast", ANY, found).subscribe()
    await flood(server, client, 5)
    await until(lambda: numbers(found.seen) == list(range(5)))


@pytest.mark.parametrize(
    ("handler", "accepts"),
    [
        (lambda: None, 0),
        (lambda one: None, 1),
        (lambda one, two=1: None, 2),
        (lambda one, two, three=3: None, 2),
        (lambda *args: None, 2),
        (lambda *, key=1: None, 0),
        (print, 2),
        (iter, 2),
    ],
)
def test_how_many_arguments_are_passed(handler: Any, accepts: int) -> None:
    assert accepted_arguments(handler, 2) == accepts


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (5, "a handler is a function, not int"),
        ("print", "a handler is a function, not str"),
        (None, "a handler is a function, not NoneType"),
        (lambda one, two, three: None, "needs 3 arguments, an event carries 2"),
        (lambda *, key: None, "needs the keyword argument 'key'"),
    ],
)
def test_an_object_that_cannot_be_a_handler_is_refused(handler: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        accepted_arguments(handler, 2)


def test_the_name_of_a_handler_leads_to_it() -> None:
    module = __name__
    own = handler_name(test_the_name_of_a_handler_leads_to_it)
    assert own.startswith(f"{module}.test_the_name")
    assert handler_name(Callables().method) == f"{module}.Callables.method"
    assert handler_name(Callables()) == f"{module}.Callables"
    assert handler_name(functools.partial(functools.partial(flood))) == f"{module}.flood"
    assert handler_name([].append) == "list.append"
    assert handler_name(print) == "builtins.print"


# -- handlers that fail ------------------------------------------------------------------


class Boom(Exception):
    """The error of a broken handler."""


def raising(event: Any) -> None:
    raise Boom(f"on {event.payload['n']}")


async def raising_async(event: Any) -> None:
    raise Boom(f"on {event.payload['n']}")


def raising_later(event: Any) -> Any:
    return raising_async(event)


def cancelled(event: Any) -> None:
    raise asyncio.CancelledError


async def cancelled_async(event: Any) -> None:
    raise asyncio.CancelledError


@pytest.mark.conformance("PS59")
@pytest.mark.parametrize(
    "broken", [raising, raising_async, raising_later, cancelled, cancelled_async]
)
@pytest.mark.parametrize("thread", [False, True])
async def test_a_raising_handler_loses_nothing_on_any_registration(
    server: LocalRealtime,
    client: RealtimeClient,
    broken: Any,
    thread: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before, after, elsewhere = Recorder(), Recorder(), Recorder()
    events = ClientEvents(client)
    channel = channel_of(client).on("broadcast", ANY, before)
    channel.on("broadcast", ANY, broken, thread=thread).on("broadcast", ANY, after)
    await channel.subscribe()
    await client.channel("other").on("broadcast", ANY, elsewhere).subscribe()
    server.broadcast("other", "x", {"n": 0})
    await flood(server, client, 10)
    server.broadcast("other", "x", {"n": 1})
    await elsewhere.count(2)
    await until(lambda: client.health().handler_errors == 10)
    assert before.values() == after.values() == list(range(10))
    assert client.is_connected()
    assert f"handler {__name__}.{broken.__name__} failed" in caplog.text
    told = events.of("error")
    assert [args[1].payload["n"] for args in told if args[1] is not None] in (
        list(range(10)),
        # The event of a coroutine that was made on the reader's stack is not known.
        list(range(1, 10)),
    )
    assert len(told) == 10
    assert all(args[2] == broken for args in told)


async def test_an_error_listener_that_raises_is_only_logged(
    server: LocalRealtime, client: RealtimeClient, caplog: pytest.LogCaptureFixture
) -> None:
    later: list[BaseException] = []

    def broken_listener(error: BaseException) -> None:
        raise RuntimeError("the listener is broken too")

    async def broken_async_listener(error: BaseException) -> None:
        raise RuntimeError("this one as well")

    client.on("error", broken_listener).on("error", broken_async_listener)
    client.on("error", later.append)
    await channel_of(client).on("broadcast", ANY, raising).subscribe()
    await flood(server, client, 2)
    await until(lambda: "broken_async_listener" in caplog.text)
    assert "broken_listener" in caplog.text
    assert [str(error) for error in later if isinstance(error, Boom)] == ["on 0", "on 1"]
    assert client.is_connected()


async def test_an_async_error_listener_that_always_raises_is_no_endless_loop(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    calls: list[int] = []

    async def listener(error: BaseException) -> None:
        calls.append(1)
        raise RuntimeError("again")

    client.on("error", listener)
    await channel_of(client).on("broadcast", ANY, raising).subscribe()
    await flood(server, client, 1)
    await until(lambda: calls)
    await turns(50)
    assert len(calls) < 5


async def test_a_blocking_handler_is_named_and_loses_nothing(
    server: LocalRealtime, client: RealtimeClient, caplog: pytest.LogCaptureFixture
) -> None:
    seen, other = Recorder(), Recorder()

    def blocking(event: Any) -> None:
        if event.payload["n"] == 1:
            time.sleep(0.15)
        seen(event)

    channel = channel_of(client).on("broadcast", ANY, blocking).on("broadcast", ANY, other)
    await channel.subscribe()
    await flood(server, client, 5)
    assert seen.values() == other.values() == list(range(5))
    named = [record for record in caplog.records if "blocking blocked the event" in record.message]
    assert len(named) == 1
    assert "blocking blocked the event loop for 0.1" in named[0].message
    assert "thread=True" in named[0].message


# -- slow handlers, and overflow ---------------------------------------------------------


class Gate:
    """An async handler whose duration the test chooses."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.open = asyncio.Event()
        self.running = 0

    async def __call__(self, event: Any) -> None:
        self.running += 1
        assert self.running == 1, "two events at a time"
        await self.open.wait()
        self.seen.append(event.payload["n"])
        self.running -= 1


async def test_a_slow_handler_within_its_queue_loses_and_reorders_nothing(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    gate, quick = Gate(), Recorder()
    channel = channel_of(client).on("broadcast", ANY, gate).on("broadcast", ANY, quick)
    await channel.subscribe()
    await flood(server, client, 900)
    assert quick.values() == list(range(900))
    assert gate.seen == []
    gate.open.set()
    await until(lambda: gate.seen == list(range(900)))
    assert client.health().dropped_events == 0


@pytest.mark.parametrize(
    ("overflow", "kept"),
    [("drop_oldest", [0, 7, 8, 9]), ("drop_newest", [0, 1, 2, 3])],
)
async def test_beyond_the_queue_exactly_the_documented_events_are_dropped_and_told(
    server: LocalRealtime, client: RealtimeClient, overflow: Overflow, kept: list[int]
) -> None:
    gate, events = Gate(), ClientEvents(client)
    channel = channel_of(client).on("broadcast", ANY, gate, maxsize=3, overflow=overflow)
    await channel.subscribe()
    await flood(server, client, 1)
    await until(lambda: gate.running == 1)  # the first one is being handled, the queue is empty
    for n in range(1, 10):
        server.broadcast("room", "x", {"n": n})
    await until(lambda: client.health().dropped_events == 6)
    gate.open.set()
    await until(lambda: gate.seen == kept)
    gaps = [args for args in events.of("gap") if args[3] == "overflow"]
    assert gaps
    for topic, since, till, _ in gaps:
        assert topic == "realtime:room"
        assert since <= till
    await flood(server, client, 1)  # and it goes on as before
    await until(lambda: len(gate.seen) == 5)


async def test_a_queue_that_is_to_close_ends_the_registration_with_an_error(
    server: LocalRealtime, client: RealtimeClient, caplog: pytest.LogCaptureFixture
) -> None:
    gate, quick, events = Gate(), Recorder(), ClientEvents(client)
    channel = channel_of(client).on("broadcast", ANY, gate, maxsize=2, overflow="close")
    await channel.on("broadcast", ANY, quick).subscribe()
    await flood(server, client, 1)
    await until(lambda: gate.running == 1)
    await flood(server, client, 6)
    error = events.errors[0]
    assert isinstance(error, RealtimeError)
    assert error.code == "Overflow"
    assert "2 events behind" in str(error)
    assert error.hint
    assert events.of("error")[0][2] is gate
    gate.open.set()
    await until(lambda: gate.seen == [0, 0, 1])
    await flood(server, client, 1)
    assert len(quick.seen) == 8
    assert gate.seen == [0, 0, 1]
    assert client.health().dropped_events == 1


async def test_coroutines_of_a_plain_function_overflow_like_others(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    gate = Gate()
    channel = channel_of(client).on("broadcast", ANY, lambda event: gate(event), maxsize=1)
    await channel.subscribe()
    await flood(server, client, 1)
    for n in range(1, 4):
        server.broadcast("room", "x", {"n": n})
    await until(lambda: client.health().dropped_events == 2)
    gate.open.set()
    await until(lambda: gate.seen == [0, 3])


# -- threads -----------------------------------------------------------------------------


async def test_a_threaded_handler_sees_its_events_in_order_off_the_loop(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    seen: list[int] = []
    threads: set[int] = set()

    def work(event: Any) -> None:
        threads.add(threading.get_ident())
        time.sleep(0.001 * (5 - event.payload["n"] % 5))
        seen.append(event.payload["n"])

    await channel_of(client).on("broadcast", ANY, work, thread=True).subscribe()
    await flood(server, client, 20)
    await until(lambda: len(seen) == 20)
    assert seen == list(range(20))
    assert threading.get_ident() not in threads


async def test_a_blocking_threaded_handler_does_not_block_the_loop(
    server: LocalRealtime, client: RealtimeClient, caplog: pytest.LogCaptureFixture
) -> None:
    release, quick = threading.Event(), Recorder()

    def work(event: Any) -> None:
        release.wait(5)

    channel = channel_of(client).on("broadcast", ANY, work, thread=True)
    await channel.on("broadcast", ANY, quick).subscribe()
    await flood(server, client, 3)
    assert quick.values() == [0, 1, 2]
    release.set()
    await client.disconnect()
    assert "blocked the event loop" not in caplog.text


# -- ending ------------------------------------------------------------------------------


async def test_what_is_queued_for_a_removed_handler_is_still_handled(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    gate = Gate()
    channel = channel_of(client).on("broadcast", ANY, gate)
    await channel.subscribe()
    await flood(server, client, 3)
    channel.off("broadcast", ANY, gate)
    await flood(server, client, 3)
    gate.open.set()
    await until(lambda: gate.seen == [0, 1, 2])
    await turns(20)
    assert gate.seen == [0, 1, 2]


async def test_cancelling_a_stuck_handler_drops_coroutines_without_a_warning(
    server: LocalRealtime, make_client: MakeClient
) -> None:
    client = make_client(drain_timeout=0.02)
    gate = Gate()
    await channel_of(client).on("broadcast", ANY, lambda event: gate(event)).subscribe()
    server.broadcast("room", "x", {"n": 0})
    server.broadcast("room", "x", {"n": 1})
    await until(lambda: client.health().frames_in >= 3)
    await client.disconnect()
    assert gate.seen == []


async def test_after_a_disconnect_handlers_work_on(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    gate = Gate()
    gate.open.set()
    channel = channel_of(client).on("broadcast", ANY, gate)
    await channel.subscribe()
    await flood(server, client, 2)
    await client.disconnect()
    await client.connect()
    await channel
    await flood(server, client, 2)
    await until(lambda: gate.seen == [0, 1, 0, 1])

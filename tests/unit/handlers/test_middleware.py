"""Middleware around handlers of every kind: order, errors, and functions it leaves alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from supabase_rt import Backfill, Broadcast, RealtimeChannel, RealtimeClient
from supabase_rt.server import LocalRealtime
from supabase_rt.types import CallNext

from ...support.recorder import ClientEvents, Recorder
from ...support.waiting import turns, until

ANY = {"event": "*"}


async def tell(server: LocalRealtime, client: RealtimeClient, count: int = 3) -> None:
    expected = client.health().frames_in + count
    for n in range(count):
        server.broadcast("room", "x", {"n": n})
    await until(lambda: client.health().frames_in >= expected)


class Trace:
    """Makes middleware and handlers of both kinds, and records when they run."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def plain(self, name: str) -> Callable[[Any, CallNext], Any]:
        def middleware(event: Any, call_next: CallNext) -> Any:
            self.seen.append(f"{name}>")
            result = call_next(event)
            self.seen.append(f"<{name}")
            return result

        return middleware

    def slow(self, name: str) -> Callable[[Any, CallNext], Any]:
        async def middleware(event: Any, call_next: CallNext) -> None:
            self.seen.append(f"{name}>")
            await asyncio.sleep(0)
            await call_next(event)
            self.seen.append(f"<{name}")

        return middleware

    def handler(self, event: Broadcast) -> None:
        self.seen.append(str(event.payload["n"]))

    async def slow_handler(self, event: Broadcast) -> None:
        await asyncio.sleep(0)
        self.handler(event)


@pytest.mark.parametrize("options", [{}, {"thread": True}], ids=["on the loop", "thread"])
async def test_the_first_middleware_is_outermost_and_events_keep_order(
    server: LocalRealtime, client: RealtimeClient, options: Any
) -> None:
    trace = Trace()
    client.use(trace.slow("a"))
    client.use(trace.slow("b"))
    await client.channel("room").on("broadcast", ANY, trace.handler, **options).subscribe()
    await tell(server, client)
    await until(lambda: len(trace.seen) == 15)
    assert trace.seen == [x for n in "012" for x in ("a>", "b>", n, "<b", "<a")]


async def test_plain_middleware_leaves_a_plain_handler_inline(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    """Only a handler that runs at once sees the presence state of its event."""
    trace = Trace()
    client.use(trace.plain("a"))
    states: list[Any] = []

    @client.use
    def look(event: Any, call_next: CallNext) -> None:
        call_next(event)

    channel = client.channel("room", {"config": {"presence": {"key": "me"}}})
    channel.on("presence", {"event": "join"}, lambda: states.append(channel.presence_state()))
    await channel.on("broadcast", ANY, trace.handler).subscribe()
    registrations = channel._handlers.listeners.handlers()
    assert all(
        registration.direct is not None or not registration.arguments_accepted
        for registration in registrations
    )
    await tell(server, client)
    assert trace.seen == [x for n in "012" for x in ("a>", n, "<a")]
    await channel.track({"n": 1})
    await until(lambda: states)
    assert list(states[0]) == ["me"]
    assert all(registration.runner.waiting == 0 for registration in registrations)


@pytest.mark.parametrize("hands_back", [False, True])
async def test_plain_middleware_need_not_return_the_coroutine(
    server: LocalRealtime, client: RealtimeClient, hands_back: bool
) -> None:
    trace = Trace()

    @client.use
    def forgets(event: Any, call_next: CallNext) -> None:
        call_next(event)

    @client.use
    def twice(event: Any, call_next: CallNext) -> Any:
        call_next(event)
        result = call_next(event)
        return result if hands_back else None

    await client.channel("room").on("broadcast", ANY, trace.slow_handler).subscribe()
    await tell(server, client)
    await until(lambda: len(trace.seen) == 6)
    assert trace.seen == list("001122")


async def test_plain_middleware_may_return_a_coroutine_of_its_own(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    """One middleware serves both kinds of handlers, and sees the end of each."""
    trace = Trace()

    @client.use
    def around(event: Any, call_next: CallNext) -> Any:
        result = call_next(event)
        if asyncio.iscoroutine(result):
            return later(result)
        trace.seen.append("end")
        return None

    async def later(coroutine: Any) -> None:
        await coroutine
        trace.seen.append("end")

    channel = client.channel("room").on("broadcast", {"event": "x"}, trace.slow_handler)
    await channel.subscribe()
    await tell(server, client, 2)
    await until(lambda: trace.seen == ["0", "end", "1", "end"])
    channel.off("broadcast")
    channel.on("broadcast", {"event": "x"}, trace.handler)
    await tell(server, client, 1)
    assert trace.seen[4:] == ["0", "end"]


@pytest.mark.parametrize("outer", ["plain", "slow"])
@pytest.mark.parametrize("inner", ["plain", "slow"])
@pytest.mark.parametrize("handler", ["handler", "slow_handler"])
async def test_every_mixture_of_kinds_handles_every_event_once(
    server: LocalRealtime, client: RealtimeClient, outer: str, inner: str, handler: str
) -> None:
    trace = Trace()
    client.use(getattr(trace, outer)("a"))
    client.use(getattr(trace, inner)("b"))
    await client.channel("room").on("broadcast", ANY, getattr(trace, handler)).subscribe()
    await tell(server, client)
    await until(lambda: len(trace.seen) == 15)
    assert [seen for seen in trace.seen if seen.isdigit()] == ["0", "1", "2"]


async def test_middleware_knows_the_handler_and_the_topic(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    found: list[Any] = []

    @client.use
    def look(event: Any, call_next: CallNext) -> None:
        found.append((call_next.handler, call_next.topic))
        call_next(event)

    async def handler() -> None: ...

    await client.channel("room").on("broadcast", ANY, handler).subscribe()
    await tell(server, client, 1)
    await until(lambda: found)
    assert found == [(handler, "realtime:room")]


async def test_middleware_may_drop_events_and_change_them(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    seen = Recorder()

    @client.use
    async def only_odd(event: Broadcast, call_next: CallNext) -> None:
        if event.payload["n"] % 2:
            await call_next({"n": -event.payload["n"]})

    await client.channel("room").on("broadcast", ANY, seen).subscribe()
    await tell(server, client, 4)
    await seen.count(2)
    assert seen.seen == [{"n": -1}, {"n": -3}]


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("handler", ["handler", "slow_handler"])
async def test_middleware_that_raises_is_a_failed_handler(
    server: LocalRealtime, client: RealtimeClient, kind: str, handler: str
) -> None:
    trace = Trace()
    events = ClientEvents(client)

    def plain(event: Broadcast, call_next: CallNext) -> Any:
        result = call_next(event)
        if event.payload["n"] == 1:
            raise LookupError("no")
        return result

    async def slow(event: Broadcast, call_next: CallNext) -> None:
        if event.payload["n"] == 1:
            raise LookupError("no")
        await call_next(event)

    client.use(plain if kind == "plain" else slow)
    wrapped = getattr(trace, handler)
    await client.channel("room").on("broadcast", ANY, wrapped).subscribe()
    await tell(server, client)
    await until(lambda: "2" in trace.seen)
    ((error, event, raised_by),) = await events.some("error")
    assert (type(error), event.payload["n"], raised_by) == (LookupError, 1, wrapped)
    assert client.health().handler_errors == 1


async def test_an_error_of_the_handler_passes_through_middleware(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    events = ClientEvents(client)
    caught: list[BaseException] = []

    @client.use
    async def watch(event: Any, call_next: CallNext) -> None:
        try:
            await call_next(event)
        except ValueError as exc:
            caught.append(exc)
            raise

    async def broken(event: Any) -> None:
        raise ValueError("mine")

    await client.channel("room").on("broadcast", ANY, broken).subscribe()
    await tell(server, client, 1)
    await events.some("error")
    assert events.errors == caught


async def test_handlers_registered_before_are_wrapped_too(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    trace = Trace()
    by_hand = RealtimeChannel("realtime:room", client=client).on("broadcast", ANY, trace.handler)
    client.use(trace.slow("a"))
    await by_hand.subscribe()
    await tell(server, client, 1)
    await until(lambda: trace.seen == ["a>", "0", "<a"])
    client.use(trace.plain("b"))
    await tell(server, client, 1)
    await until(lambda: trace.seen[3:] == ["a>", "b>", "0", "<b", "<a"])
    trace.seen.clear()
    once: list[Any] = []
    by_hand.once("broadcast", ANY, once.append)
    await tell(server, client, 2)
    await until(lambda: len(trace.seen) == 14)
    assert len(once) == 1


async def test_streams_waits_callbacks_and_client_events_are_left_alone(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    @client.use
    async def nothing_passes(event: Any, call_next: CallNext) -> None: ...

    seen, statuses, opened = Recorder(), Recorder(), Recorder()
    client.on("open", lambda: opened("open"))
    channel = client.channel("room").on("broadcast", ANY, seen)
    stream = channel.stream("broadcast", ANY)
    await channel.subscribe(lambda status: statuses(status))
    waiting = channel.wait_for("broadcast", ANY, timeout=5)
    await tell(server, client, 1)
    assert (await anext(stream)).payload == (await waiting).payload
    await turns(20)
    assert (seen.seen, statuses.seen, opened.seen) == ([], ["SUBSCRIBED"], ["open"])
    await stream.aclose()


async def test_middleware_is_put_around_handlers_with_a_backfill(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    """A handler with a backfill has a queue, for each kind of middleware."""
    server.table("todos", {"id": "int8"})
    trace: list[Any] = []

    @client.use
    def note(event: Any, call_next: CallNext) -> Any:
        trace.append(("in", event.new["id"]))
        return call_next(event)

    async def none(page: Any) -> list[Any]:
        return []

    def handler(change: Any) -> None:
        trace.append(("handled", change.new["id"]))

    todos: Any = {"event": "INSERT", "schema": "public", "table": "todos"}
    backfill = Backfill("id", fetch=none)
    channel = client.channel("room").on("postgres_changes", todos, handler, backfill=backfill)
    await channel.subscribe()
    await channel.ready()
    client.use(lambda event, call_next: call_next(event))
    server.insert("todos", {"id": 1})
    await until(lambda: trace == [("in", 1), ("handled", 1)])


async def test_middleware_runs_on_the_loop_around_handlers_in_threads(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    threads: list[Any] = []

    @client.use
    def note(event: Any, call_next: CallNext) -> Any:
        threads.append(threading.current_thread())
        return call_next(event)

    def handler() -> None:
        threads.append(threading.current_thread())

    await client.channel("room").on("broadcast", ANY, handler, thread=True).subscribe()
    await tell(server, client, 1)
    await until(lambda: len(threads) == 2)
    assert threads[0] is threading.main_thread()
    assert threads[1] is not threading.main_thread()


async def test_copied_handlers_are_wrapped_by_their_new_client(
    server: LocalRealtime, client: RealtimeClient, make_client: Any
) -> None:
    trace, other = Trace(), make_client()
    other.use(trace.plain("other"))
    source = other.channel("room").on("broadcast", ANY, trace.handler)
    client.use(trace.plain("mine"))
    target = client.channel("room")
    target.copy_bindings(source)
    await target.subscribe()
    await tell(server, client, 1)
    assert trace.seen == ["mine>", "0", "<mine"]


@pytest.mark.parametrize("wrong", [lambda: None, lambda event: None, lambda a, b, c: None, 5])
def test_middleware_that_takes_other_arguments_is_refused(make_client: Any, wrong: Any) -> None:
    client = make_client("http://127.0.0.1:9")
    with pytest.raises(TypeError):
        client.use(wrong)
    assert not client._parts.middleware


async def test_on_error_is_a_listener_and_a_decorator(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    told = Recorder()

    @client.on_error
    def on_error(error: BaseException, event: Any, handler: Any) -> None:
        told((error, event, handler))

    assert client.on_error(print) is print
    client.off("error", print)

    def broken(event: Any) -> None:
        raise ValueError("mine")

    await client.channel("room").on("broadcast", ANY, broken).subscribe()
    await tell(server, client, 1)
    ((error, event, handler),) = told.seen
    assert (str(error), event.payload["n"], handler) == ("mine", 0, broken)
    client.off("error", on_error)
    await tell(server, client, 1)
    assert len(told.seen) == 1

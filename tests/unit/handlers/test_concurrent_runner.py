"""Handlers that are called for several events at once, and the order within each key."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt import Backfill, RealtimeClient
from supabase_rt._handlers.keyed_queue import KeyedQueue
from supabase_rt.server import LocalRealtime
from supabase_rt.types import CallNext

from ...support.clients import MakeClient
from ...support.recorder import ClientEvents
from ...support.waiting import our_tasks, turns, until

ANY = {"event": "*"}


async def flood(server: LocalRealtime, client: RealtimeClient, keys: str) -> None:
    """Sends one numbered broadcast for each letter, and waits until all are read."""
    expected = client.health().frames_in + len(keys)
    for n, key in enumerate(keys):
        server.broadcast("room", "x", {"n": n, "key": key})
    await until(lambda: client.health().frames_in >= expected)


def key_of(event: Any) -> Any:
    return event.payload["key"]


class Doors:
    """A handler whose calls wait until each is let through by its name."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.most = 0
        self._open: dict[str, asyncio.Event] = {}

    async def __call__(self, event: Any) -> None:
        name = f"{event.payload['key']}{event.payload['n']}"
        self.begun.append(name)
        self.most = max(self.most, len(self.begun) - len(self.ended))
        try:
            await self._open.setdefault(name, asyncio.Event()).wait()
        finally:
            self.ended.append(name)

    def let(self, *names: str) -> None:
        for name in names:
            self._open.setdefault(name, asyncio.Event()).set()


# -- the queue ----------------------------------------------------------------------------


class Model:
    """Does the same as ``KeyedQueue`` by a search through all events."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, int]] = []
        self.in_use: set[int] = set()

    def may_go(self) -> dict[int, int]:
        """Returns for each key the one event that may be handled now."""
        found: dict[int, int] = {}
        for key, number in self.waiting:
            if key not in self.in_use:
                found.setdefault(key, number)
        return found


@given(st.lists(st.one_of(st.integers(0, 3), st.sampled_from(["take", "done", "drop", "clear"]))))
def test_a_keyed_queue_agrees_with_a_search_through_all_events(steps: list[Any]) -> None:
    queue, model = KeyedQueue(), Model()
    for number, step in enumerate(steps):
        if isinstance(step, int):
            queue.append(step, (number,))
            model.waiting.append((step, number))
        elif step == "take":
            found, may_go = queue.pop(), model.may_go()
            assert (found is None) == (not may_go)
            if found is not None:
                key, (taken,) = found
                assert may_go[key] == taken  # type: ignore[index]
                model.waiting.remove((key, taken))  # type: ignore[arg-type]
                model.in_use.add(key)  # type: ignore[arg-type]
        elif step == "done" and model.in_use:
            queue.done(model.in_use.pop())
        elif step == "drop" and model.waiting:
            queue.drop_oldest()
            del model.waiting[0]
        elif step == "clear":
            queue.clear()
            model.waiting.clear()
        assert len(queue) == len(model.waiting)
    for key in model.in_use:
        queue.done(key)
    model.in_use.clear()
    while (found := queue.pop()) is not None:
        queue.done(found[0])
        model.waiting.remove((found[0], found[1][0]))  # type: ignore[arg-type]
    assert model.waiting == []


# -- handlers ------------------------------------------------------------------------------


async def test_as_many_events_as_concurrency_says_run_at_once(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    doors = Doors()
    await client.channel("room").on("broadcast", ANY, doors, concurrency=3).subscribe()
    await flood(server, client, "aaaaa")
    await until(lambda: len(doors.begun) == 3)
    await turns(20)
    assert doors.begun == ["a0", "a1", "a2"]
    doors.let("a1")
    await until(lambda: doors.begun[3:] == ["a3"])
    doors.let("a0", "a2", "a3", "a4")
    await until(lambda: len(doors.ended) == 5)
    assert doors.most == 3


async def test_workers_are_started_when_they_are_needed(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    doors = Doors()
    doors.let(*(f"a{n}" for n in range(10)))
    await client.channel("room").on("broadcast", ANY, doors, concurrency=1000).subscribe()
    for _ in range(5):
        await flood(server, client, "a")
        await until(lambda: len(doors.begun) == len(doors.ended))
    assert sum("Doors" in name for name in our_tasks()) == 1


async def test_events_of_one_key_keep_their_order_and_delay_no_others(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    doors = Doors()
    channel = client.channel("room").on("broadcast", ANY, doors, concurrency=3, key=key_of)
    await channel.subscribe()
    await flood(server, client, "aaabbac")
    await until(lambda: len(doors.begun) == 3)
    await turns(20)
    assert doors.begun == ["a0", "b3", "c6"]
    doors.let("b3", "b4")
    await until(lambda: doors.ended == ["b3", "b4"])
    assert doors.begun[3:] == ["b4"]
    doors.let("a1", "a2", "a5")
    await turns(20)
    assert len(doors.begun) == 4
    doors.let("a0")
    await until(lambda: doors.ended[2:] == ["a0", "a1", "a2", "a5"])
    doors.let("c6")
    await until(lambda: len(doors.ended) == 7)


@pytest.mark.parametrize(
    ("overflow", "kept"),
    [("drop_oldest", ["a0", "a3", "a4"]), ("drop_newest", ["a0", "a1", "a2"])],
)
async def test_a_full_queue_drops_by_its_policy_and_reports_it(
    server: LocalRealtime, client: RealtimeClient, overflow: Any, kept: list[str]
) -> None:
    doors, events = Doors(), ClientEvents(client)
    channel = client.channel("room")
    channel.on("broadcast", ANY, doors, concurrency=2, key=key_of, maxsize=2, overflow=overflow)
    await channel.subscribe()
    await flood(server, client, "a")
    await until(lambda: doors.begun)
    for n in range(1, 5):
        server.broadcast("room", "x", {"n": n, "key": "a"})
    await until(lambda: client.health().frames_in >= 6)
    await events.some("gap")
    assert client.health().dropped_events == 2
    assert sum(args[3] == "overflow" for args in events.of("gap")) >= 1
    doors.let(*kept)
    await until(lambda: doors.ended == kept)
    assert client.health().queued_events == 0


async def test_a_handler_that_closes_on_overflow_ends_with_an_error(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    doors, events = Doors(), ClientEvents(client)
    channel = client.channel("room")
    channel.on("broadcast", ANY, doors, concurrency=2, maxsize=1, overflow="close")
    await channel.subscribe()
    for n in range(4):
        server.broadcast("room", "x", {"n": n, "key": "abcd"[n]})
        await until(lambda: len(doors.begun) == min(n, 1) + 1)  # noqa: B023
    ((error, _, handler),) = await events.some("error")
    assert (error.code, handler) == ("Overflow", doors)
    doors.let("a0", "b1", "c2")
    await until(lambda: sorted(doors.ended) == ["a0", "b1", "c2"])
    assert not channel._handlers.bound


@pytest.mark.parametrize("key", [lambda event: event.payload["nothing"], lambda event: [1]])
async def test_a_key_function_that_raises_is_a_failed_handler(
    server: LocalRealtime, client: RealtimeClient, key: Any
) -> None:
    doors, events = Doors(), ClientEvents(client)
    keys = iter([key, key_of])
    channel = client.channel("room")
    channel.on("broadcast", ANY, doors, concurrency=2, key=lambda event: next(keys)(event))
    await channel.subscribe()
    doors.let("a1")
    await flood(server, client, "aa")
    ((error, event, handler),) = await events.some("error")
    assert isinstance(error, KeyError | TypeError)
    assert (event.payload["n"], handler) == (0, doors)
    await until(lambda: doors.ended == ["a1"])
    assert client.health().handler_errors == 1


async def test_a_failed_event_stops_neither_its_key_nor_others(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    events = ClientEvents(client)
    seen: list[int] = []

    async def broken(event: Any) -> None:
        await asyncio.sleep(0)
        if event.payload["n"] == 0:
            raise ValueError("mine")
        seen.append(event.payload["n"])

    channel = client.channel("room").on("broadcast", ANY, broken, concurrency=2, key=key_of)
    await channel.subscribe()
    await flood(server, client, "aba")
    await until(lambda: sorted(seen) == [1, 2])
    assert [str(error) for error in events.errors] == ["mine"]


async def test_plain_functions_run_in_as_many_threads_as_concurrency(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    """Eight threads are more than the loop has on a small machine. They end with the client."""
    all_there = threading.Barrier(20)
    seen: list[int] = []

    def handler(event: Any) -> None:
        all_there.wait(20)
        seen.append(event.payload["n"])

    channel = client.channel("room")
    await channel.on("broadcast", ANY, handler, concurrency=20, thread=True).subscribe()
    await flood(server, client, "a" * 20)
    await until(lambda: sorted(seen) == list(range(20)), 20)
    await client.disconnect()
    await until(lambda: not any(t.name.startswith("supabase_rt_") for t in threading.enumerate()))
    assert our_tasks() == []


async def test_at_the_end_queued_events_are_handled_by_their_keys(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    doors = Doors()
    channel = client.channel("room").on("broadcast", ANY, doors, concurrency=2, key=key_of)
    await channel.subscribe()
    await flood(server, client, "aaab")
    await until(lambda: len(doors.begun) == 2)
    closing = client.disconnect()
    await turns(20)
    doors.let("a0", "a1", "a2", "b3")
    await closing
    assert [name for name in doors.ended if name != "b3"] == ["a0", "a1", "a2"]
    assert "b3" in doors.ended
    assert our_tasks() == []


async def test_a_late_handler_is_cancelled_and_its_queue_counted(
    server: LocalRealtime, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client, doors = make_client(drain_timeout=0.05), Doors()
    events = ClientEvents(client)
    await client.channel("room").on("broadcast", ANY, doors, concurrency=2).subscribe()
    await flood(server, client, "abcde")
    await until(lambda: len(doors.begun) == 2)
    await client.disconnect()
    assert sorted(doors.ended) == ["a0", "b1"]
    assert [gap[3] for gap in events.of("gap")][-1:] == ["shutdown"]
    assert client.health().dropped_events == 3
    assert caplog.text.count("did not end in time; cancelled, 3 events unhandled") == 1
    assert our_tasks() == []


async def test_a_handler_may_disconnect_and_wait_for_it(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    """The client does not wait for a handler that waits for the client."""
    done = asyncio.Event()

    async def stop() -> None:
        await client.disconnect()
        done.set()

    await client.channel("room").on("broadcast", ANY, stop, concurrency=4).subscribe()
    server.broadcast("room", "x", {})
    await asyncio.wait_for(done.wait(), 3)


async def test_a_handler_that_was_removed_keeps_no_worker(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    doors = Doors()
    doors.let("a0", "b1")
    channel = client.channel("room").on("broadcast", ANY, doors, concurrency=2)
    await channel.subscribe()
    await flood(server, client, "ab")
    await until(lambda: len(doors.ended) == 2)
    channel.off("broadcast")
    await until(lambda: not any("handler" in name for name in our_tasks()))


async def test_after_a_disconnect_handlers_work_on(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    doors = Doors()
    doors.let("a0", "b1")
    channel = client.channel("room").on("broadcast", ANY, doors, concurrency=2, key=key_of)
    await channel.subscribe()
    await flood(server, client, "ab")
    await client.disconnect()
    await client.connect()
    await channel
    await flood(server, client, "ab")
    await until(lambda: sorted(doors.ended) == ["a0", "a0", "b1", "b1"])


async def test_middleware_is_put_around_each_call(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    doors = Doors()
    passed: list[str] = []

    @client.use
    async def note(event: Any, call_next: CallNext) -> None:
        await call_next(event)
        passed.append(event.payload["key"])

    await client.channel("room").on("broadcast", ANY, doors, concurrency=2).subscribe()
    await flood(server, client, "ab")
    await until(lambda: len(doors.begun) == 2)
    doors.let("b1")
    await until(lambda: passed == ["b"])
    doors.let("a0")
    await until(lambda: passed == ["b", "a"])


async def test_copied_handlers_keep_their_options(client: RealtimeClient) -> None:
    source, target = client.channel("one"), client.channel("two")
    source.on("broadcast", ANY, Doors(), concurrency=3, key=key_of)
    target.copy_bindings(source)
    assert [each.options for each in target._handlers.bound] == [
        each.options for each in source._handlers.bound
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"concurrency": 0}, "1 or more"),
        ({"concurrency": True}, "1 or more"),
        ({"concurrency": 1.5}, "1 or more"),
        ({"key": 5}, "a function"),
        ({"key": lambda: 1}, "function of the event"),
        ({"key": lambda a, b: 1}, "needs 2 arguments"),
        ({"concurrency": 2, "backfill": Backfill("id")}, "leave concurrency= out"),
    ],
)
def test_options_that_make_no_sense_are_refused(make_client: Any, options: Any, text: str) -> None:
    channel = make_client("http://127.0.0.1:9/realtime/v1").channel("room")
    todos = {"event": "*", "schema": "public", "table": "todos"}
    with pytest.raises((TypeError, ValueError), match=text):
        channel.on("postgres_changes", todos, Doors(), **options)
    assert not channel._handlers.bound


def test_a_plain_function_on_the_loop_is_refused(make_client: Any) -> None:
    channel = make_client("http://127.0.0.1:9/realtime/v1").channel("room")
    with pytest.raises(ValueError, match="async handlers and thread=True"):
        channel.on("broadcast", ANY, print, concurrency=2)
    assert not channel._handlers.bound

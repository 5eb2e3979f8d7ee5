"""The queue of a handler is bounded by the bytes of its frames, and by their number."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from supabase_rt import Backfill, RealtimeClient, RealtimeError
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.recorder import ClientEvents
from ...support.waiting import turns, until

ANY = {"event": "*"}
MIB = 2**20
SMALL = 100_000
"""The size of a payload; three of this size fit into ``BOUND``."""
BOUND = 350_000


class Gate:
    """An async handler that waits until it is opened."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.running = 0
        self.open = asyncio.Event()

    async def __call__(self, event: Any) -> None:
        self.running += 1
        await self.open.wait()
        self.seen.append(event.payload["n"])


def has_read(client: RealtimeClient, frames: int) -> bool:
    return client.health().frames_in >= frames


async def flood(
    server: LocalRealtime, client: RealtimeClient, numbers: range, size: int = SMALL
) -> None:
    for n in numbers:
        expected = client.health().frames_in + 1
        server.broadcast("room", "x", {"n": n, "text": "x" * size})
        await until(functools.partial(has_read, client, expected))


async def begun(server: LocalRealtime, client: RealtimeClient, gate: Gate, **options: Any) -> None:
    """Returns a channel whose handler hangs in the first event, number 0."""
    await client.channel("room").on("broadcast", ANY, gate, **options).subscribe()
    await flood(server, client, range(1), 1)
    await until(lambda: gate.running == 1)


@pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"concurrency": 2, "key": str}])
async def test_the_default_is_64_mib(
    server: LocalRealtime, client: RealtimeClient, options: Any
) -> None:
    """Without the bound, 667 MiB waited after 400 events of 2 MiB."""
    gate = Gate()
    await begun(server, client, gate, **options)
    await flood(server, client, range(1, 41), 2 * MIB)
    assert 7 <= client.health().dropped_events <= 9
    gate.open.set()
    await until(lambda: len(gate.seen) == 41 - client.health().dropped_events)
    assert {0, 40} <= set(gate.seen)


@pytest.mark.parametrize(
    ("overflow", "kept"), [("drop_oldest", [0, 8, 9, 10]), ("drop_newest", [0, 1, 2, 3])]
)
@pytest.mark.parametrize("more", [{}, {"concurrency": 2, "key": lambda event: 1}])
async def test_beyond_the_bytes_the_documented_events_are_dropped(
    server: LocalRealtime, client: RealtimeClient, overflow: Any, kept: list[int], more: Any
) -> None:
    gate, events = Gate(), ClientEvents(client)
    await begun(server, client, gate, maxbytes=BOUND, overflow=overflow, **more)
    await flood(server, client, range(1, 11))
    await until(lambda: client.health().dropped_events == 7)
    assert {args[3] for args in events.of("gap")} == {"overflow"}
    gate.open.set()
    await until(lambda: gate.seen == kept)
    # Handled events do not count any more.
    await flood(server, client, range(11, 14))
    await until(lambda: gate.seen == [*kept, 11, 12, 13])
    assert client.health().dropped_events == 7


async def test_only_as_many_small_events_as_needed_make_room_for_a_large_one(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    gate = Gate()
    await begun(server, client, gate, maxbytes=BOUND)
    await flood(server, client, range(1, 7), 50_000)
    await flood(server, client, range(7, 8), 170_000)
    gate.open.set()
    await until(lambda: gate.seen == [0, 4, 5, 6, 7])


async def test_an_event_larger_than_the_bound_may_wait_alone(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    gate = Gate()
    await begun(server, client, gate, maxbytes=1)
    await flood(server, client, range(1, 4))
    gate.open.set()
    await until(lambda: gate.seen == [0, 3])


async def test_a_handler_that_closes_says_how_far_behind_it_was(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    gate, events = Gate(), ClientEvents(client)
    await begun(server, client, gate, maxbytes=BOUND, overflow="close")
    await flood(server, client, range(1, 6))
    (error,) = events.errors
    assert isinstance(error, RealtimeError)
    assert error.code == "Overflow"
    assert "3 events behind (300," in str(error)
    gate.open.set()
    await until(lambda: gate.seen == [0, 1, 2, 3])


async def test_a_stream_is_bounded_in_bytes_too(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    channel = client.channel("room")
    stream = channel.stream("broadcast", ANY, maxbytes=BOUND)
    other = channel.stream("broadcast", ANY)
    await channel.subscribe()
    await flood(server, client, range(6))
    await turns()  # drops are counted in the turn after the frame
    assert client.health().dropped_events == 3
    assert [(await anext(stream)).payload["n"] for _ in range(3)] == [3, 4, 5]
    assert [(await anext(other)).payload["n"] for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    await flood(server, client, range(6, 9))
    assert [(await anext(stream)).payload["n"] for _ in range(3)] == [6, 7, 8]
    assert client.health().dropped_events == 3


async def test_a_queue_made_by_async_middleware_is_bounded_too(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    gate, seen = Gate(), []

    async def wait(event: Any, call_next: Any) -> None:
        await gate(event)
        await call_next(event)

    client.use(wait)
    channel = client.channel("room")
    channel.on("broadcast", ANY, lambda event: seen.append(event.payload["n"]), maxbytes=BOUND)
    await channel.subscribe()
    await flood(server, client, range(1), 1)
    await until(lambda: gate.running == 1)
    await flood(server, client, range(1, 11))
    gate.open.set()
    await until(lambda: seen == [0, 8, 9, 10])


async def test_the_queue_of_a_backfill_is_bounded_and_its_rows_read_again(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    server.table("messages", {"id": "int8", "text": "text"})
    seen: list[int] = []
    opened, running = asyncio.Event(), asyncio.Event()

    async def handler(change: Any) -> None:
        running.set()
        await opened.wait()
        seen.append(change.new["id"])

    table = {"event": "INSERT", "schema": "public", "table": "messages"}
    channel = client.channel("room")
    channel.on("postgres_changes", table, handler, backfill=Backfill("id"), maxbytes=BOUND)
    await channel.subscribe()
    await channel.ready()
    (registration,) = channel._handlers.bound
    for number in range(10):
        server.insert("messages", {"id": number, "text": "x" * SMALL})
    await running.wait()
    await until(lambda: client.health().dropped_events > 0)
    await turns()
    assert registration.runner.waiting <= 4
    opened.set()
    await until(lambda: seen == list(range(10)))
    assert registration.runner.waiting_bytes == 0


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, None, "1"])
def test_maxbytes_is_a_whole_number(make_client: MakeClient, bad: Any) -> None:
    channel = make_client().channel("room")
    with pytest.raises(ValueError, match="maxbytes is a number of bytes"):
        channel.on("broadcast", ANY, print, maxbytes=bad)
    with pytest.raises(ValueError, match="maxbytes is a number of bytes"):
        channel.stream("broadcast", ANY, maxbytes=bad)


async def test_copied_handlers_keep_the_bound(client: RealtimeClient) -> None:
    source, target = client.channel("one"), client.channel("two")
    source.on("broadcast", ANY, Gate(), maxbytes=5).on("broadcast", ANY, Gate(), concurrency=2)
    target.copy_bindings(source)
    assert [each.options["maxbytes"] for each in target._handlers.bound] == [5, 64 * MIB]


async def test_the_queue_of_a_slow_client_listener_is_bounded(
    client: RealtimeClient,
) -> None:
    """A server that sends garbage causes an ``error`` event with each frame."""
    gaps: list[Any] = []
    calls, opened = 0, asyncio.Event()

    async def slow(error: BaseException) -> None:
        nonlocal calls
        calls += 1
        await opened.wait()

    client.on("error", slow).on("gap", gaps.append)
    dispatch = client._parts.dispatcher
    for _ in range(10_050):
        dispatch.error(RealtimeError("garbage"))
    assert dispatch.tasks.waiting == 10_000
    await until(lambda: client.health().dropped_events == 50)
    opened.set()
    await until(lambda: calls == 10_000)
    assert gaps == []

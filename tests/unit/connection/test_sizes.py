"""Large frames arrive whole, and a slow consumer costs no more memory than its queue may hold."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from supabase_rt import RealtimeClient
from supabase_rt._wire.envelope import UserBroadcast
from supabase_rt._wire.serializer import encode_user_broadcast
from supabase_rt.server import LocalRealtime

from ...support.clients import MakeClient
from ...support.recorder import ClientEvents, Recorder
from ...support.waiting import turns, until

LARGE = 5_000_000
ANY = {"event": "*"}


# -- frames up to 5 MB -------------------------------------------------------------------------


def of_size(size: int, frame: Callable[[str], bytes]) -> bytes:
    """Returns a frame of exactly ``size`` bytes."""
    return frame("x" * (size - len(frame(""))))


def broadcast(text: str) -> bytes:
    payload = {"type": "broadcast", "event": "e", "payload": {"text": text}}
    return json.dumps([None, None, "realtime:room", "broadcast", payload]).encode()


def binary(text: str) -> bytes:
    return encode_user_broadcast("realtime:room", UserBroadcast("e", False, b"", text.encode()))


async def test_frames_of_five_megabytes_arrive_whole(
    server: LocalRealtime, client: RealtimeClient
) -> None:
    seen, events = Recorder(), ClientEvents(client)
    await client.channel("room").on("broadcast", ANY, seen).subscribe()
    server.faults.send_raw(of_size(LARGE, broadcast).decode())
    server.faults.send_raw(of_size(LARGE, binary))
    await seen.count(2, 30.0)
    assert len(seen.seen[0].payload["text"]) == LARGE - len(broadcast(""))
    assert len(seen.seen[1].payload) == LARGE - len(binary(""))
    assert events.of("error") == []
    assert (client.health().reconnects, client.is_connected()) == (0, True)


# -- slow consumers ------------------------------------------------------------------------------

EVENT = 2_000
"""Bytes of one event of the flood."""
QUEUE = 50
WARM, MORE = 200, 1_000
ROOM = 150_000
"""Bytes that other things may leave behind; the flood itself has 2 MB."""


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """Returns the used bytes of all memory that was allocated since the test began."""

    def now() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    yield now
    tracemalloc.stop()


class Stuck:
    """A handler that returns when the test releases it."""

    def __init__(self, overflow: Any) -> None:
        self.overflow = overflow
        self.go = asyncio.Event()

    def __call__(self, client: RealtimeClient) -> Any:
        async def handler(event: Any) -> None:
            await self.go.wait()

        return client.channel("room").on(
            "broadcast", ANY, handler, maxsize=QUEUE, overflow=self.overflow
        )

    def end(self) -> None:
        self.go.set()


class Idle:
    """A stream that nobody reads."""

    def __call__(self, client: RealtimeClient) -> Any:
        return client.channel("room").stream("broadcast", ANY, maxsize=QUEUE)

    def end(self) -> None:
        """Do nothing: there is no handler to release."""


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "close", "stream"])
async def test_a_slow_consumer_takes_no_more_memory_than_its_queue(
    make_client: MakeClient, traced: Callable[[], int], policy: str
) -> None:
    consumer = Idle() if policy == "stream" else Stuck(policy)
    async with LocalRealtime(max_events_per_second=None) as server:
        client = make_client(server.ws_url, params={"apikey": server.anon_key})
        kept = consumer(client)
        await client.channel("room").subscribe()

        async def flood(count: int) -> int:
            expected = client.health().frames_in + count
            for number in range(count):
                server.broadcast("room", "x", {"n": number, "text": "x" * EVENT})
                if number % 100 == 99:
                    await asyncio.sleep(0)
            await until(lambda: client.health().frames_in >= expected, 30.0)
            await turns()
            return traced()

        before = await flood(WARM)
        after = await flood(MORE)
        assert after - before < ROOM
        assert client.is_connected()
        consumer.end()
        await client.disconnect()
        del kept

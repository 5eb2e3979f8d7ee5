"""supabase_rt through its public API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from supabase_rt import RealtimeChannel, RealtimeClient
from supabase_rt._protocol import join_queue

from ..work import Work, topic
from .driver import Counter, load_spec, serve

UNPACED = 1e6
"""Joins a second. The flood server has no limit, so no pace is needed."""

CHANGES = {"event": "*", "schema": "public", "table": "todos"}
FILTERS: dict[str, dict[str, str]] = {
    "broadcast": {"event": "cursor"},
    "postgres_changes": CHANGES,
    "presence": {"event": "sync"},
}


def make_handler(work: Work, counter: Counter) -> Callable[[Any], Any]:
    def unread(payload: Any) -> None:
        counter.left -= 1
        if not counter.left:
            counter.finish()

    def read_x(payload: Any) -> None:
        payload["payload"]["x"]
        counter.left -= 1
        if not counter.left:
            counter.finish()

    def read_new(payload: Any) -> None:
        payload.new["id"]
        counter.left -= 1
        if not counter.left:
            counter.finish()

    def read_type(payload: Any) -> None:
        _ = payload.event_type
        counter.left -= 1
        if not counter.left:
            counter.finish()

    async def slow(payload: Any) -> None:
        read_x(payload)

    if work.asynchronous:
        return slow
    return {"nothing": unread, "x": read_x, "new": read_new, "event_type": read_type}[work.read]


def lift_pacing() -> None:
    """Joins as fast as possible; the default is 100 at once and then 50 a second (server
    limits)."""
    join_queue.JOIN_RATE = join_queue.JOIN_BURST = UNPACED


async def open_channels(
    client: RealtimeClient, work: Work, handler: Callable[[Any], Any], joined: Counter
) -> list[RealtimeChannel]:
    """Subscribes to all channels of the work, with ``handler`` registered as often as it says."""

    def told(status: str) -> None:
        if status == "SUBSCRIBED":
            joined.left -= 1
            if not joined.left:
                joined.finish()

    channels = []
    for number in range(work.channels):
        options: Any = {"config": {"broadcast": {"ack": work.ack}}} if work.ack else None
        channel = client.channel(topic(number).removeprefix("realtime:"), options)
        for _ in range(work.handlers):
            # The queue holds all events, so that none is dropped: the work is to handle them all.
            channel.on(work.event, FILTERS[work.event], handler, maxsize=2 * work.count)
        channels.append(channel.subscribe(told))
    for channel in channels:
        await channel
    return channels


class Sender:
    """The sending half: plain broadcasts, and broadcasts that await their reply."""

    def __init__(self, channel: RealtimeChannel, counter: Counter) -> None:
        self._channel = channel
        self._counter = counter

    async def send(self, count: int) -> dict[str, Any]:
        send = self._channel.send

        async def act() -> None:
            for number in range(count):
                content = {"x": number, "y": 34, "user": "anna"}
                await send({"type": "broadcast", "event": "cursor", "payload": content})

        return await self._counter.during(1, act)

    async def acked(self, count: int) -> dict[str, Any]:
        taken = []
        started = time.process_time()
        for number in range(count):
            before = time.perf_counter()
            content = {"x": number, "y": 34, "user": "anna"}
            told = await self._channel.send(
                {"type": "broadcast", "event": "cursor", "payload": content}
            )
            if told != "ok":
                raise RuntimeError(told)
            taken.append(time.perf_counter() - before)
        return {"cpu": time.process_time() - started, "latencies": taken}


async def main() -> None:
    spec = load_spec()
    work = Work(**spec["work"])
    if not spec["paced"]:
        lift_pacing()
    counter, joined = Counter(), Counter()
    async with RealtimeClient(spec["url"], params={"apikey": spec["who"]}) as client:
        channels = await open_channels(client, work, make_handler(work, counter), joined)
        sender = Sender(channels[0], counter)
        await serve(
            {
                "round": counter.round,
                "rejoin": joined.round,
                "send": sender.send,
                "acked": sender.acked,
            }
        )
        dropped = client.health().dropped_events
        if dropped:
            raise RuntimeError(f"{dropped} events were dropped")


if __name__ == "__main__":
    asyncio.run(main())

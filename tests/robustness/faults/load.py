"""Minutes of load in real time: the order holds, no loss is silent, and memory stays flat."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from supabase_rt import RealtimeClient

from ...support.waiting import our_tasks
from .load_server import ROW_EVERY, TOPICS

__all__ = ["Load", "run_load"]

RESET_EVERY = 20.0
WARM_UP = 0.2
"""The share of the time after which memory must not grow any more."""
MAX_GROWTH = 4 * 2**20
"""Bytes of resident memory: allocators round up and interpreters cache."""


@dataclasses.dataclass(frozen=True)
class Load:
    """The rate and the duration of the load."""

    rate: int
    seconds: float
    reset_every: float = RESET_EVERY
    is_soak: bool = True
    """True if it is long enough to judge pace and memory."""


class Stream:
    """The numbers of one handler: they only grow, with holes only at a loss."""

    def __init__(self) -> None:
        self.count = 0
        self.last = 0
        self.misordered = 0
        self.holes = 0
        self.losses = -1

    def take(self, number: int, losses: int, step: int) -> None:
        self.count += 1
        if number <= self.last:
            self.misordered += 1
        elif number != self.last + step and losses == self.losses:
            self.holes += 1
        self.last, self.losses = number, losses


def resident() -> int:
    """Returns the bytes of resident memory after a garbage collection."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@asynccontextmanager
async def other_end(load: Load) -> AsyncIterator[tuple[str, str]]:
    """The server's process; gives URL and key."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.robustness.faults.load_server",
        str(load.rate),
        str(load.reset_every),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        port, key = (await process.stdout.readline()).decode().split()
        yield f"ws://127.0.0.1:{port}/realtime/v1", key
    finally:
        process.terminate()
        await process.wait()


class Listener:
    """A client with two streams of each kind on every topic, one plain and one asynchronous."""

    def __init__(self, url: str, key: str) -> None:
        self.client = RealtimeClient(url, params={"apikey": key}, heartbeat_interval=5.0)
        self.losses = 0
        self.downtimes: list[float] = []
        self.streams: list[Stream] = []
        self.client.on("close", self._lost)
        self.client.on("reconnected", self.downtimes.append)
        for at in range(TOPICS):
            channel = self.client.channel(f"room-{at}")
            for is_async in (False, True):
                channel.on("broadcast", {"event": "*"}, self._handler("broadcast", is_async))
                table = {"event": "*", "schema": "public", "table": f"table_{at}"}
                channel.on("postgres_changes", table, self._handler("change", is_async))
            channel.subscribe()

    def _lost(self) -> None:
        self.losses += 1

    def _handler(self, kind: str, is_async: bool) -> Callable[[Any], Any]:
        stream = Stream()
        self.streams.append(stream)

        # Numbers go round the topics, so the steps are known. The step is twice as long if a change
        # replaced a broadcast.
        def take(payload: Any) -> None:
            number = payload.payload["n"] if kind == "broadcast" else int(payload.new["n"])
            if kind == "change":
                step = TOPICS * ROW_EVERY
            else:
                step = TOPICS * (1 if (number - TOPICS) % ROW_EVERY else 2)
            stream.take(number, self.losses, step)

        async def take_later(payload: Any) -> None:
            take(payload)

        return take_later if is_async else take


async def run_load(load: Load, say: Callable[[str], None]) -> list[str]:
    """Listen for the whole time; returns the faults."""
    async with other_end(load) as (url, key):
        listener = Listener(url, key)
        client = listener.client
        await client.connect()
        started, cpu = time.monotonic(), time.process_time()
        memory: list[tuple[float, int]] = []
        while (age := time.monotonic() - started) < load.seconds:
            await asyncio.sleep(min(5.0, load.seconds / 20))
            memory.append((age, resident()))
        cpu = time.process_time() - cpu
        health = client.health()
        problems = judge(listener)
        if load.is_soak:
            problems += judge_pace(listener, load, memory)
        await client.disconnect()
        left = our_tasks()
    # On a machine that stood still, only the last sample is available.
    warm = [size for age, size in memory if age >= load.seconds * WARM_UP] or [memory[-1][1]]
    count = sum(stream.count for stream in listener.streams)
    say(
        f"{load.seconds:.0f} s at {load.rate} events/s, a reset every {load.reset_every:g} s: "
        f"{health.frames_in} frames in, "
        f"{count} events handled by {len(listener.streams)} handlers, "
        f"{listener.losses} losses, longest downtime {max(listener.downtimes, default=0):.3f} s, "
        f"{health.dropped_events} dropped, {cpu / load.seconds:.0%} of a core\n"
        f"resident memory: {memory[0][1] / 2**20:.1f} MB at first, "
        f"{warm[0] / 2**20:.1f} MB warm, {warm[-1] / 2**20:.1f} MB at the end, "
        f"at most {max(warm) / 2**20:.1f} MB"
    )
    return problems + ([f"left running: {left}"] if left else [])


def judge(listener: Listener) -> list[str]:
    """Returns all faults that do not depend on the speed of the machine."""
    problems = []
    health = listener.client.health()
    for name, value in (
        ("out of order", sum(stream.misordered for stream in listener.streams)),
        ("holes without a loss", sum(stream.holes for stream in listener.streams)),
        ("unreadable frames", health.decode_errors),
        ("handler errors", health.handler_errors),
        ("dropped events", health.dropped_events),
    ):
        if value:
            problems.append(f"{value} {name}")
    if health.pending_replies > 1:
        problems.append(f"{health.pending_replies} requests without an end")
    if not all(stream.count for stream in listener.streams):
        problems.append("a handler was never called")
    return problems


def judge_pace(listener: Listener, load: Load, memory: list[tuple[float, int]]) -> list[str]:
    """Returns the faults in the pace and the memory of the client."""
    problems = []
    warm = [size for age, size in memory if age >= load.seconds * WARM_UP]
    growth = warm[-1] - warm[0]
    if growth > MAX_GROWTH:
        problems.append(f"memory grew by {growth / 2**20:.1f} MB after the warm-up")
    heard = min(stream.last for stream in listener.streams)
    if heard < load.rate * load.seconds * 0.9:
        problems.append(f"the last number heard is {heard}: the client does not keep up")
    return problems

"""The shared part of all Python clients: commands over stdin, answers over stdout, the clocks.

A command is a JSON line ``{"op": name, ...}``. ``round`` answers ``armed`` at once. It ends
with the message that brings the counter to zero. Times are CPU times of the whole process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

__all__ = [
    "Counter",
    "Operation",
    "allow_many_sockets",
    "lines",
    "load_spec",
    "resident",
    "serve",
    "tell",
]

Operation = Callable[..., Awaitable[dict[str, Any]]]


class Counter:
    """The number of messages still to come; handlers count it down themselves."""

    __slots__ = ("_done", "_ended", "left")

    def __init__(self) -> None:
        self.left = 0
        self._done = asyncio.Event()
        self._ended = (0.0, 0.0)

    def finish(self) -> None:
        """Stops the clocks, because the last message was handled."""
        self._ended = time.process_time(), time.monotonic()
        self._done.set()

    async def round(self, count: int) -> dict[str, Any]:
        """Runs one round of ``count`` messages."""
        return await self.during(count, None)

    async def during(self, count: int, act: Callable[[], Awaitable[None]] | None) -> dict[str, Any]:
        """Returns the CPU time until ``count`` messages have arrived, including ``act``."""
        self._done.clear()
        self.left = count
        if act is None:
            tell(armed=True)
        started, at = time.process_time(), time.monotonic()
        if act is not None:
            await act()
        await self._done.wait()
        cpu, ended = self._ended
        return {"cpu": cpu - started, "started": at, "ended": ended}


def load_spec() -> dict[str, Any]:
    """Returns the work of this process: the runner's first argument."""
    found: dict[str, Any] = json.loads(sys.argv[1])
    return found


def tell(**values: Any) -> None:
    """Writes one line to the runner."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


async def lines() -> AsyncIterator[dict[str, Any]]:
    """Yields the runner's commands until it closes the pipe."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


def resident() -> int:
    """Returns the bytes of resident memory after a garbage collection."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def allow_many_sockets() -> None:
    """Raises the limit of open files as far as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def memory() -> dict[str, Any]:
    return {"rss": resident()}


async def idle(seconds: float) -> dict[str, Any]:
    started = time.process_time()
    await asyncio.sleep(seconds)
    return {"cpu": time.process_time() - started}


async def serve(operations: dict[str, Operation]) -> None:
    """Reports that all channels are joined, then serves the runner until it closes the pipe."""
    tell(ready=True)
    known: dict[str, Operation] = {"memory": memory, "idle": idle, **operations}
    async for command in lines():
        tell(**await known[command.pop("op")](**command))

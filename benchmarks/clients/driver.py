"""What all Python clients share: commands over stdin, answers over stdout, the clocks.

A command is a JSON line ``{"op": name, ...}``. ``round`` is told ``armed`` at once and ends with
the message that brings the counter to zero; time is CPU time of the whole process.
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
    """How many messages are to come; handlers count it down in their own code."""

    __slots__ = ("_done", "_ended", "left")

    def __init__(self) -> None:
        self.left = 0
        self._done = asyncio.Event()
        self._ended = (0.0, 0.0)

    def finish(self) -> None:
        """The last message has been handled: stop the clocks."""
        self._ended = time.process_time(), time.monotonic()
        self._done.set()

    async def round(self, count: int) -> dict[str, Any]:
        """One round of ``count`` messages."""
        return await self.during(count, None)

    async def during(self, count: int, act: Callable[[], Awaitable[None]] | None) -> dict[str, Any]:
        """The CPU time until ``count`` messages have come, ``act`` included."""
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
    """What this process has to do: the runner's first argument."""
    found: dict[str, Any] = json.loads(sys.argv[1])
    return found


def tell(**values: Any) -> None:
    """One line to the runner."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


async def lines() -> AsyncIterator[dict[str, Any]]:
    """The runner's commands until it closes the pipe."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


def resident() -> int:
    """Bytes of resident memory, garbage left out."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def allow_many_sockets() -> None:
    """As many file descriptors as the system lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def memory() -> dict[str, Any]:
    return {"rss": resident()}


async def idle(seconds: float) -> dict[str, Any]:
    started = time.process_time()
    await asyncio.sleep(seconds)
    return {"cpu": time.process_time() - started}


async def serve(operations: dict[str, Operation]) -> None:
    """Say that all is joined, then do what the runner asks until it has enough."""
    tell(ready=True)
    known: dict[str, Operation] = {"memory": memory, "idle": idle, **operations}
    async for command in lines():
        tell(**await known[command.pop("op")](**command))

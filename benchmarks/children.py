"""The runner's child processes: each gets one JSON line and answers with one line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from .peers import HERE, Client, environment
from .work import Work

__all__ = ["PACED", "Broken", "Child", "Flood", "start_client", "start_flood"]

PATIENCE = 60.0
"""Seconds to wait for one answer; no measurement takes that long."""
LINE_LIMIT = 2**24
PACED = ", joins paced"
"""End of the label of a client that joins as slowly as the real server demands."""


class Broken(Exception):
    """A client ended or did not answer; its row says so instead of a number."""


class Child:
    """A process and its two pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, *command: str) -> Child:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            limit=LINE_LIMIT,
            cwd=HERE.parent,
            env=environment(),
        )
        return cls(process)

    async def hear(self) -> dict[str, Any]:
        """Returns the next line."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                while line := await self._process.stdout.readline():
                    if line.startswith(b"{"):
                        found: dict[str, Any] = json.loads(line)
                        return found
        except TimeoutError:
            raise Broken(f"no answer within {PATIENCE:g} s") from None
        raise Broken(await self._last_words())

    async def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Sends one command and returns its first answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        try:
            await self._process.stdin.drain()
        except ConnectionError:
            raise Broken(await self._last_words()) from None
        return await self.hear()

    async def _last_words(self) -> str:
        assert self._process.stderr is not None
        said = (await self._process.stderr.read()).decode(errors="replace").strip().splitlines()
        return next((line for line in reversed(said) if line.strip()), "ended without a word")

    async def end(self) -> None:
        """Closes the pipe, and kills the process if it does not end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(3):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class Flood(Child):
    """The server's process."""

    port: int

    @property
    def url(self) -> str:
        """The address that clients connect to."""
        return f"ws://127.0.0.1:{self.port}/realtime/v1"


@contextlib.asynccontextmanager
async def start_flood() -> AsyncIterator[Flood]:
    """Runs the server until the end of a ``with``."""
    flood = await Flood.start(sys.executable, "-m", "benchmarks.flood")
    assert isinstance(flood, Flood)
    try:
        flood.port = (await flood.hear())["port"]
        yield flood
    finally:
        await flood.end()


async def start_client(client: Client, label: str, work: Work, flood: Flood) -> Child:
    """Returns a client that has joined all channels of the work; raises ``Broken``."""
    spec = {
        "url": flood.url,
        "who": label,
        "client": client.name,
        "paced": label.endswith(PACED),
        "work": work.spec(),
    }
    child = await Child.start(*client.command, json.dumps(spec))
    try:
        await child.hear()
    except Broken:
        await child.end()
        raise
    return child

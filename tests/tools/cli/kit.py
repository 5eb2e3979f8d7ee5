"""``supabase-rt`` as a user starts it, in its own process, read line by line."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...support.raw_output import found_raw

__all__ = ["Serving", "command", "serving"]

TIMEOUT = 30.0
PYTHON = [sys.executable, "-X", "dev", "-W", "error", "-m", "supabase_rt"]
PLAIN = {"PYTHONUNBUFFERED": "", "NO_COLOR": "1"}


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        [*PYTHON, *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env={**os.environ, **PLAIN, **environment},
    )
    assert found_raw(done.stdout + done.stderr) is None
    return done


class Serving:
    """A running ``supabase-rt serve``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.shown: dict[str, str] = {}

    async def until(self, pattern: str) -> str:
        """Read lines until one matches; returns it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            while line := (await self.process.stdout.readline()).decode():
                self.lines.append(line.rstrip("\n"))
                if re.search(pattern, line):
                    return self.lines[-1]
        raise AssertionError(f"ended without {pattern!r}: {await self.end()}")

    async def introduced(self) -> None:
        """Read its introduction."""
        await self.until("^Ctrl[+]C ends it")
        for line in self.lines:
            if found := re.match(r"  (\S.*?)\s{2,}(\S.*)$", line):
                self.shown[found[1]] = found[2]

    async def end(self, sent: signal.Signals = signal.SIGINT) -> tuple[int | None, str, str]:
        """Send a signal; returns exit code, the rest of stdout, and stderr."""
        if self.process.returncode is None:
            self.process.send_signal(sent)
        async with asyncio.timeout(TIMEOUT):
            out, err = await self.process.communicate()
        assert found_raw("\n".join([*self.lines, out.decode(), err.decode()])) is None
        return self.process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def serving(*words: str, **environment: str) -> AsyncIterator[Serving]:
    """Start it on a free port and read its introduction."""
    process = await asyncio.create_subprocess_exec(
        *PYTHON,
        "serve",
        "--port=0",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **PLAIN, **environment},
    )
    try:
        found = Serving(process)
        await found.introduced()
        yield found
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()

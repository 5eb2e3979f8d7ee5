"""Programs of users, run in a process of their own, as users run them."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass

__all__ = ["Program", "run_program"]

TIMEOUT = 20.0


@dataclass
class Program:
    """The exit code and the output of a program."""

    code: int
    out: str
    err: str


async def run_program(
    text: str, *arguments: str, until: str | None = None, send: signal.Signals | None = None
) -> Program:
    """Run ``text`` as a script, and send it a signal once a line begins or ends with ``until``."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-X",
        "dev",
        "-W",
        "error",
        "-c",
        text,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    seen = b""
    try:
        async with asyncio.timeout(TIMEOUT):
            while until is not None:
                line = await process.stdout.readline()
                seen += line
                said = line.decode().strip()
                if not line or said.startswith(until) or said.endswith(until):
                    break
            if send is not None:
                process.send_signal(send)
            out, err = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    # In its debug mode asyncio also logs slow steps, which are usual on a busy machine.
    told = [line for line in err.decode().splitlines(True) if not line.startswith("Executing <")]
    return Program(process.returncode, (seen + out).decode(), "".join(told))

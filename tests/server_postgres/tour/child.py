"""Another Realtime client in its own process, and its requests to the test.

Both sides write lines of JSON. A request is ``{"id", "op", "args"}``, its answer is ``{"id",
"value"}`` or ``{"id", "error"}``; the last line is ``{"results"}``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

__all__ = ["Operation", "travel"]

Operation = Callable[..., Awaitable[Any]]

LONGEST = 45.0
LIMIT = 2**20


async def travel(command: list[str], operations: Mapping[str, Operation]) -> dict[str, Any]:
    """Run a client to its end; returns its results."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LIMIT,
    )
    assert process.stderr is not None
    complaints = asyncio.ensure_future(process.stderr.read())
    try:
        async with asyncio.timeout(LONGEST):
            found = await _serve(process, operations)
            await process.wait()
    except TimeoutError:
        process.kill()
        raise AssertionError(f"not at an end after {LONGEST} s") from None
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        said = (await complaints).decode()
    assert found is not None, f"it ended before its time: {said[-3000:]}"
    return found


async def _serve(
    process: asyncio.subprocess.Process, operations: Mapping[str, Operation]
) -> dict[str, Any] | None:
    assert process.stdout is not None
    found: dict[str, Any] | None = None
    async with asyncio.TaskGroup() as group:
        async for line in process.stdout:
            message = json.loads(line)
            if "results" in message:
                found = message["results"]
                break
            group.create_task(_answer(process, operations, message))
    return found


async def _answer(
    process: asyncio.subprocess.Process, operations: Mapping[str, Operation], asked: dict[str, Any]
) -> None:
    try:
        answer = {"value": await operations[asked["op"]](*asked["args"])}
    except Exception as exc:
        # The error fails one step only, and not the whole tour.
        answer = {"error": f"{asked['op']}: {exc!r}"}
    assert process.stdin is not None
    process.stdin.write(json.dumps({"id": asked["id"], **answer}).encode() + b"\n")
    await process.stdin.drain()

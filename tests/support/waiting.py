"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["our_tasks", "turns", "until"]

PAUSE = 0.002


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Return as soon as ``condition()`` is true; fail the test if that takes too long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while not condition():
        if loop.time() > end:
            raise AssertionError(f"still not true after {timeout:g} s: {_source(condition)}")
        await asyncio.sleep(PAUSE)


def _source(condition: Callable[[], object]) -> str:
    code = getattr(condition, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(condition)


async def turns(count: int = 5) -> None:
    """Let the loop go round a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


def our_tasks() -> list[str]:
    """Returns the names of the client's living tasks in this loop."""
    return sorted(
        task.get_name()
        for task in asyncio.all_tasks()
        if task.get_name().startswith("supabase_rt:") and not task.done()
    )

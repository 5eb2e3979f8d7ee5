"""The small tasks of a client: a request over HTTP, a socket that is cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

__all__ = ["BackgroundTasks", "TooLong", "in_time"]

T = TypeVar("T")

GRACE = 0.5
"""Seconds that cancelled work of the user's gets to end; what does not is left behind."""

REQUEST_TIMEOUT = 3.0
"""Seconds that requests under way get when the client closes."""


class BackgroundTasks:
    """Keeps tasks until they end, and ends those that are left with the client."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._impatient: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, work: Coroutine[Any, Any, Any], name: str, *, patient: bool = True
    ) -> asyncio.Task[Any]:
        """Do ``work`` in a task; if ``patient``, the end waits for it a little."""
        task = asyncio.get_running_loop().create_task(work, name=f"supabase_rt:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if not patient:
            self._impatient.add(task)
            task.add_done_callback(self._impatient.discard)
        return task

    async def end(self) -> None:
        """Requests under way get a little time; nothing is left running after that."""
        for task in list(self._impatient):
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=REQUEST_TIMEOUT)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def forget_loop(self) -> None:
        """Drop the tasks: their loop is gone."""
        self._tasks.clear()
        self._impatient.clear()


class TooLong(TimeoutError):
    """Work of the user's took longer than it may; a ``TimeoutError`` of its own is another one."""


async def in_time(work: Awaitable[T], timeout: float, name: str) -> asyncio.Task[T]:
    """The task that did ``work``, over within ``timeout`` seconds; raises ``TooLong``.

    Also where the work swallows its cancellation, as ``asyncio.timeout`` does not.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(_awaited(work), name=f"supabase_rt:{name}")
    try:
        await asyncio.wait([task], timeout=timeout)
        if not task.done():
            raise TooLong
        return task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=GRACE)


async def _awaited(work: Awaitable[T]) -> T:
    return await work

"""Tasks that a client starts beside its link, such as requests over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

__all__ = ["BackgroundTasks", "TooLong", "in_time"]

T = TypeVar("T")

GRACE = 0.5
"""Seconds for a cancelled awaitable of the user's to end; then it is no longer waited for."""

REQUEST_TIMEOUT = 3.0
"""Seconds for requests under way to end when the client closes."""


class BackgroundTasks:
    """Keeps tasks until they end; those that are left end with the client."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._impatient: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, work: Coroutine[Any, Any, Any], name: str, *, patient: bool = True
    ) -> asyncio.Task[Any]:
        """Start ``work`` in a task; if ``patient``, ``end`` gives it time before it cancels it."""
        task = asyncio.get_running_loop().create_task(work, name=f"supabase_rt:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if not patient:
            self._impatient.add(task)
            task.add_done_callback(self._impatient.discard)
        return task

    async def end(self) -> None:
        """End all tasks: patient ones get ``REQUEST_TIMEOUT`` seconds, others are cancelled.

        Those that do not end ``GRACE`` seconds after their cancellation are no longer waited for.
        """
        for task in list(self._impatient):
            task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=REQUEST_TIMEOUT)
            for task in late:
                task.cancel()
            if late:
                # A hook of the user's HTTP session may swallow the cancellation.
                await asyncio.wait(late, timeout=GRACE)

    def forget_loop(self) -> None:
        """Drop the tasks: their loop is gone."""
        self._tasks.clear()
        self._impatient.clear()


class TooLong(TimeoutError):
    """An awaitable of the user's took too long; a ``TimeoutError`` that it raises itself is
    different.
    """


async def in_time(work: Awaitable[T], timeout: float, name: str) -> asyncio.Task[T]:
    """Returns the finished task of ``work``; raises ``TooLong`` after ``timeout`` seconds.

    Unlike ``asyncio.timeout`` it also ends if the work swallows its cancellation.
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

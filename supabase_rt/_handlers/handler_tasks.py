"""The tasks in which handlers run: one place that starts them, waits for them and ends them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from .._printable import get_logger
from .._runtime.log_fields import facts
from .handler import Handler

__all__ = ["HandlerTasks"]

log: Final = get_logger("supabase_rt")


class _Caller:
    """The task of a handler, for all code that runs in the handler's context."""

    __slots__ = ("task",)

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None

    @classmethod
    def enter(cls) -> _Caller:
        """Makes one and puts it into the current context."""
        caller = cls()
        _caller.set(caller)
        return caller


_caller: ContextVar[_Caller | None] = ContextVar("supabase_rt_worker", default=None)


def _nothing_to_end() -> None:
    """The result of ``exempt_caller`` for a caller that no handler started."""


class HandlerTasks:
    """Runs the handlers that have a queue, each in one task or more."""

    def __init__(
        self, drain_timeout: float, on_abandoned: Callable[[Handler, float], bool]
    ) -> None:
        self.drain_timeout: float = drain_timeout
        """Seconds that handlers have to finish their queued events when the client stops."""
        self._on_abandoned = on_abandoned
        """Reports the unfinished events of a handler, and the time since when they were awaited.

        Returns True if user code was told, which may give handlers new events.
        """
        self._tasks: dict[asyncio.Task[Any], Handler] = {}
        self._exempt: dict[asyncio.Task[Any], int] = {}
        """The tasks that ``drain`` does not wait for, and how many calls exempt each."""
        self._ends: dict[asyncio.Task[Any], asyncio.Future[None]] = {}
        """The futures that ``drain`` awaits: a task may be exempted before it ends."""

    @property
    def waiting(self) -> int:
        """The number of events that wait for handlers."""
        found = list(self._tasks.values())
        return sum(handler.runner.waiting for handler in set(found))

    def start_worker(self, handler: Handler) -> asyncio.Task[None]:
        """Starts a task that handles what is queued for ``handler``."""
        context = contextvars.copy_context()
        caller = context.run(_Caller.enter)
        task = caller.task = asyncio.get_running_loop().create_task(
            self._work(caller, handler),
            name=f"supabase_rt:handler:{handler.name}",
            context=context,
        )
        self._tasks[task] = handler
        task.add_done_callback(self._task_ended)
        return task

    async def _work(self, caller: _Caller, handler: Handler) -> None:
        if caller.task is None:
            # With asyncio.eager_task_factory a task runs before create_task returns. A handler
            # that calls exempt_caller() must find its task, so it waits one turn.
            await asyncio.sleep(0)
        await handler.runner.work()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._exempt.pop(task, None)
        self._stop_waiting_for(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            log.error("a handler's worker failed", exc_info=error, extra=facts(error))

    async def wait_for(self, fits: Callable[[Handler], bool]) -> None:
        """Waits for the tasks of the handlers that fit, at most ``drain_timeout`` seconds."""
        found = [task for task, handler in self._tasks.items() if fits(handler)]
        if found:
            await asyncio.wait(found, timeout=self.drain_timeout)

    def exempt_caller(self) -> Callable[[], None]:
        """Exempts the handler that calls this from ``drain`` until the result is called.

        The caller may be the handler itself, or a task or a thread that it started. Such a handler
        may wait for the end of the client, and the client must not wait for that handler.
        """
        caller = _caller.get()
        task = None if caller is None else caller.task
        if task not in self._tasks or self._tasks[task].runner.is_idle:
            return _nothing_to_end
        self._exempt[task] = self._exempt.get(task, 0) + 1
        self._stop_waiting_for(task)
        return functools.partial(self._end_exemption, task)

    def _end_exemption(self, task: asyncio.Task[Any]) -> None:
        if task in self._exempt:
            self._exempt[task] -= 1

    def _stop_waiting_for(self, task: asyncio.Task[Any]) -> None:
        end = self._ends.pop(task, None)
        if end is not None and not end.done():
            end.set_result(None)

    async def drain(self) -> None:
        """Waits until every handler has finished its queued events; cancels handlers that take
        long.
        """
        # A report of abandoned events may be handled by tasks, which are drained in turn.
        while await self._drain_once():
            pass

    async def _drain_once(self) -> bool:
        """Drains once; returns True if user code was told of something meanwhile."""
        loop = asyncio.get_running_loop()
        since = time.time()
        for task, handler in list(self._tasks.items()):
            handler.runner.stop()
            if not self._exempt.get(task):
                self._ends[task] = loop.create_future()
        if not self._ends:
            return False
        # A task that has nothing to do needs a few turns of the loop to end.
        timeout = max(0.01, self.drain_timeout)
        await asyncio.wait(list(self._ends.values()), timeout=timeout)
        late, self._ends = list(self._ends), {}
        abandoned = {self._tasks[task]: None for task in late}
        told = [self._on_abandoned(handler, since) for handler in abandoned]
        for task in late:
            # A future is awaited instead of the task: while the task is cancelled, the handler may
            # ask for the end and wait for it.
            self._ends[task] = loop.create_future()
            task.cancel()
        if late:
            await asyncio.wait(list(self._ends.values()))
            self._ends = {}
        return any(told)

    def forget_loop(self) -> None:
        """The loop of the tasks is gone; queued events are handled in the next loop."""
        for handler in self._tasks.values():
            handler.runner.forget_loop()
        for gone in (self._tasks, self._exempt, self._ends):
            gone.clear()

"""The tasks in which handlers run: who starts them, waits for them and ends them."""

from __future__ import annotations

import abc
import asyncio
import contextvars
import functools
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from .._printable import get_logger
from .._runtime.log_fields import facts
from .handler import Registration

__all__ = ["Workers"]

log: Final = get_logger("supabase_rt")


class _Worker:
    """A worker as what its handler starts knows it."""

    __slots__ = ("task",)

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None

    @classmethod
    def enter(cls) -> _Worker:
        worker = cls()
        _worker.set(worker)
        return worker


_worker: ContextVar[_Worker | None] = ContextVar("supabase_rt_worker", default=None)


def _nobody_left() -> None:
    """What ``exempt_caller`` returns to whom is no handler."""


class Workers(abc.ABC):
    """The half of the dispatch that runs handlers which have a queue, each in a task or more."""

    def __init__(self, drain_timeout: float) -> None:
        self.drain_timeout: float = drain_timeout
        """Seconds that handlers get to finish what waits for them when the client stops."""
        self._tasks: dict[asyncio.Task[Any], Registration] = {}
        self._leavers: dict[asyncio.Task[Any], int] = {}
        """Those that may wait for the end themselves, and for how many reasons."""
        self._ends: dict[asyncio.Task[Any], asyncio.Future[None]] = {}
        """What is waited for at the end: a task may be let go before it is over."""

    @abc.abstractmethod
    def _cut_off(self, registration: Registration, since: float) -> bool:
        """What waits for this handler is lost, and told; whether anything was."""

    def start_worker(self, registration: Registration) -> asyncio.Task[None]:
        """Have a task handle what is queued for ``registration``."""
        context = contextvars.copy_context()
        worker = context.run(_Worker.enter)
        task = worker.task = asyncio.get_running_loop().create_task(
            self._work(worker, registration),
            name=f"supabase_rt:handler:{registration.name}",
            context=context,
        )
        self._tasks[task] = registration
        task.add_done_callback(self._worker_ended)
        return task

    async def _work(self, worker: _Worker, registration: Registration) -> None:
        if worker.task is None:
            # A loop may run its tasks at once (asyncio.eager_task_factory), and a handler that
            # asks for the end has to be known by then.
            await asyncio.sleep(0)
        await registration.work()

    async def wait_for(self, fits: Callable[[Registration], bool]) -> None:
        """Wait for the workers of those that fit, no longer than at the end of the client."""
        found = [task for task, registration in self._tasks.items() if fits(registration)]
        if found:
            await asyncio.wait(found, timeout=self.drain_timeout)

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._leavers.pop(task, None)
        self._release(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            log.error("a handler's worker failed", exc_info=error, extra=facts(error))

    def exempt_caller(self) -> Callable[[], None]:
        """Whoever runs now may wait for the end, or for what comes after it.

        Where that is a handler, or a task or a thread that it started, the end does not wait
        for the handler, until what is returned is called.
        """
        worker = _worker.get()
        task = None if worker is None else worker.task
        if task not in self._tasks or self._tasks[task].is_idle:
            return _nobody_left
        self._leavers[task] = self._leavers.get(task, 0) + 1
        self._release(task)
        return functools.partial(self._stays, task)

    def _stays(self, task: asyncio.Task[Any]) -> None:
        if task in self._leavers:
            self._leavers[task] -= 1

    def _release(self, task: asyncio.Task[Any]) -> None:
        end = self._ends.pop(task, None)
        if end is not None and not end.done():
            end.set_result(None)

    @property
    def queued(self) -> int:
        """How many events wait for handlers."""
        found = list(self._tasks.values())
        return sum(registration.waiting for registration in set(found))

    async def drain(self) -> None:
        """Let every worker finish what is queued; cut off what takes too long."""
        # What is told of that may be handled by workers in turn.
        while await self._drain_once():
            pass

    async def _drain_once(self) -> bool:
        """Whether something was told that others may be handling now."""
        loop = asyncio.get_running_loop()
        since = time.time()
        for task, registration in list(self._tasks.items()):
            registration.stop()
            if not self._leavers.get(task):
                self._ends[task] = loop.create_future()
        if not self._ends:
            return False
        # Those that have nothing to do need a few turns of the loop to end.
        timeout = max(0.01, self.drain_timeout)
        await asyncio.wait(list(self._ends.values()), timeout=timeout)
        late, self._ends = list(self._ends), {}
        stuck = {self._tasks[task]: None for task in late}
        told = [self._cut_off(registration, since) for registration in stuck]
        for task in late:
            # Not for the task itself: in its last words it may ask for the end and wait for it.
            self._ends[task] = loop.create_future()
            task.cancel()
        if late:
            await asyncio.wait(list(self._ends.values()))
            self._ends = {}
        return any(told)

    def forget_loop(self) -> None:
        """The loop of the workers is gone; what is queued is handled in the next one."""
        for registration in self._tasks.values():
            registration.forget_loop()
        for ended in (self._tasks, self._leavers, self._ends):
            ended.clear()

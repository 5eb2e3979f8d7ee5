"""The two runners of most handlers: at once where events arrive, or one by one in a task.

A plain function runs on the reader's stack. A coroutine function has a bounded queue and one task.
A plain function has the same with ``thread=True``, or if it turns out to return coroutines. A task
for each event would handle events in any order and without limit.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from .._protocol.channel_options import MAXBYTES
from .._runtime.event_loop import wake
from .handler import Handler, Reports, event_of, invoke
from .queue_bounds import Drops, OverflowPolicy, QueueLimits

__all__ = ["InlineRunner", "QueuedRunner", "Worker", "new_handler", "overflow_policy"]

NO_OPTIONS: Final[dict[str, Any]] = {}


def new_handler(
    function: Callable[..., Any],
    reports: Reports,
    *,
    maxsize: int | None = 1000,
    maxbytes: int = MAXBYTES,
    overflow: str = "drop_oldest",
    **options: Any,
) -> Handler:
    """Makes a handler that is inline as long as it can be, and has a queue otherwise."""
    limits = QueueLimits(maxsize, maxbytes, overflow)
    return Handler(function, reports, _runner_for, limits=limits, **options)


def _runner_for(handler: Handler) -> InlineRunner | QueuedRunner:
    return QueuedRunner(handler) if handler.needs_queue else InlineRunner(handler)


def overflow_policy(handler: Handler) -> OverflowPolicy:
    """Makes the policy by which the queue of ``handler`` is bounded."""
    drops = Drops(handler.reports.events_dropped, handler.source)
    return OverflowPolicy(handler.limits, drops, handler.end_overflowing)


class Worker:
    """The one task of a runner: started with the first event, asleep between events."""

    __slots__ = ("_handler", "_task", "_wakeup", "is_stopping")

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._task: asyncio.Task[None] | None = None
        self._wakeup: asyncio.Future[None] | None = None
        self.is_stopping: bool = False

    @property
    def is_idle(self) -> bool:
        """True if the task sleeps."""
        return self._wakeup is not None and not self._wakeup.done()

    @property
    def must_end(self) -> bool:
        """True if the task should end when nothing is left to do."""
        return self.is_stopping or self._handler.has_ended

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task, while it is alive."""
        return None if self._task is None or self._task.done() else self._task

    def start_or_wake(self) -> None:
        """Has a task that looks at the queue."""
        if self._task is None or self._task.done():
            self.is_stopping = False
            self._task = self._handler.reports.start_worker(self._handler)
        else:
            wake(self._wakeup)

    def wake(self) -> None:
        """Wakes the task if it sleeps."""
        wake(self._wakeup)

    async def sleep(self) -> None:
        """Sleeps until ``wake``; called by the task itself."""
        self._wakeup = asyncio.get_running_loop().create_future()
        await self._wakeup

    def stop(self) -> asyncio.Task[None] | None:
        """Tells the task to end when nothing is left; returns it if it is alive."""
        self.is_stopping = True
        task = self.task
        if task is not None:
            wake(self._wakeup)
        return task

    def forget_loop(self) -> None:
        """The loop of the task is gone."""
        self._task = self._wakeup = None


class InlineRunner:
    """Calls a plain function where its events arrive, on the reader's stack."""

    __slots__ = ("_handler",)

    is_inline = True
    options = NO_OPTIONS
    waiting = 0
    waiting_bytes = 0
    is_idle = False
    queue_survives_shutdown = False

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def put(self, args: Any) -> None:
        """Calls the function. ``Handler.deliver`` does the same for one argument."""
        handler = self._handler
        try:
            result = handler.call(*args[: handler.arguments_passed])
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            handler.failed(exc, event_of(args))
        else:
            if result is not None:
                handler.returned(result)

    async def work(self) -> None:
        """Does nothing, as nothing waits."""

    def stop(self) -> None:
        """Does nothing, as there is no task."""

    def handler_ended(self) -> None:
        """Does nothing, as there is no task."""

    def discard(self) -> int:
        """Returns 0, as nothing waits."""
        return 0

    def forget_loop(self) -> None:
        """Does nothing, as there is no task."""


class QueuedRunner:
    """Handles events one at a time and in their order, in a task."""

    __slots__ = (
        "_bytes",
        "_handler",
        "_maxbytes",
        "_maxsize",
        "_overflow",
        "_queue",
        "_sizes",
        "_stopwatch",
        "_worker",
    )

    is_inline = False
    options = NO_OPTIONS
    queue_survives_shutdown = False

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._maxsize, self._maxbytes = handler.limits.maxsize, handler.limits.maxbytes
        self._overflow = overflow_policy(handler)
        self._stopwatch = handler.stopwatch
        self._worker = Worker(handler)
        self._queue: deque[Any] = deque()
        self._sizes: deque[int] = deque()
        """The size of each event in the queue: two queues cost less than one of pairs."""
        self._bytes = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    @property
    def is_idle(self) -> bool:
        return self._worker.is_idle

    def put(self, item: Any) -> None:
        # This inlines OverflowPolicy.is_full, the most expensive step for an event.
        queue, size = self._queue, self._stopwatch.size
        if (
            queue
            and (
                self._bytes + size > self._maxbytes
                or (self._maxsize is not None and len(queue) >= self._maxsize)
            )
            and not self._overflow.make_room(self, size)
        ):
            _close(item)
            return
        queue.append(item)
        self._sizes.append(size)
        self._bytes += size
        self._worker.start_or_wake()

    def drop_oldest(self) -> None:
        """Forgets the event that has waited longest."""
        self._bytes -= self._sizes.popleft()
        _close(self._queue.popleft())

    async def work(self) -> None:
        handler, worker, queue, sizes = self._handler, self._worker, self._queue, self._sizes
        while True:
            while queue:
                self._bytes -= sizes.popleft()
                item = queue.popleft()
                error = await invoke(handler, item)
                if error is not None:
                    handler.failed(error, event_of(item))
            if worker.must_end:
                return
            # A sleeping task must not keep the last event and its error alive.
            item = error = None
            await worker.sleep()

    def stop(self) -> asyncio.Task[None] | None:
        return self._worker.stop()

    def handler_ended(self) -> None:
        self._worker.wake()

    def discard(self) -> int:
        count = len(self._queue)
        for item in self._queue:
            _close(item)
        self._queue.clear()
        self._sizes.clear()
        self._bytes = 0
        return count

    def forget_loop(self) -> None:
        self._worker.forget_loop()


def _close(item: Any) -> None:
    """Ends a coroutine that will not be awaited; Python would warn of it otherwise."""
    if inspect.iscoroutine(item):
        item.close()

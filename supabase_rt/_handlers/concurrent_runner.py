"""The runner for several events at once: ``on(..., concurrency=8, key=...)``.

It has as many tasks as ``concurrency`` says, and they share one queue. A task is started when an
event finds none idle, so a handler that is never busy has few.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .._protocol.channel_options import MAXBYTES
from .handler import Handler, Reports, event_of, invoke
from .keyed_queue import KeyedQueue
from .queue_bounds import QueueLimits
from .runners import overflow_policy
from .signatures import handler_name, is_coroutine_function

__all__ = ["ConcurrentRunner", "concurrent_handler"]

Key = Callable[[Any], Hashable]


def concurrent_handler(
    function: Callable[..., Any],
    reports: Reports,
    *,
    concurrency: int,
    key: Key | None = None,
    maxsize: int | None = 1000,
    maxbytes: int = MAXBYTES,
    overflow: str = "drop_oldest",
    thread: bool = False,
    **options: Any,
) -> Handler:
    """Makes a handler that is called for up to ``concurrency`` events at once.

    Raises ``ValueError`` for a function that runs on the event loop and does not wait.
    """
    if not (thread or is_coroutine_function(function)):
        raise ValueError(
            f"concurrency={concurrency} is for async handlers and thread=True; "
            f"{handler_name(function)} is called on the event loop, one event at a time"
        )
    return Handler(
        function,
        reports,
        lambda handler: ConcurrentRunner(handler, concurrency, key, thread=thread),
        limits=QueueLimits(maxsize, maxbytes, overflow),
        thread=thread,
        **options,
    )


class ConcurrentRunner:
    """Handles several events at once, and those of one key one after the other."""

    __slots__ = (
        "_concurrency",
        "_handler",
        "_idle",
        "_is_stopping",
        "_key",
        "_overflow",
        "_pool",
        "_queue",
        "_tasks",
        "_thread",
    )

    is_inline = False
    is_idle = False
    queue_survives_shutdown = False

    def __init__(
        self, handler: Handler, concurrency: int, key: Key | None, *, thread: bool
    ) -> None:
        self._handler = handler
        self._concurrency = concurrency
        self._key = key
        self._thread = thread
        self._overflow = overflow_policy(handler)
        self._queue = KeyedQueue()
        self._tasks: list[asyncio.Task[None]] = []
        self._idle: deque[asyncio.Future[None]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._is_stopping = False

    @property
    def options(self) -> dict[str, Any]:
        return {"concurrency": self._concurrency, "key": self._key}

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def waiting_bytes(self) -> int:
        return self._queue.bytes

    # -- on the reader's stack -----------------------------------------------------------

    def put(self, args: Any) -> None:
        event = event_of(args)
        try:
            # Without a function each event has a key of its own, and waits for no other.
            key = object() if self._key is None else self._key(event)
            hash(key)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self._handler.failed(exc, event)
            return
        size = self._handler.stopwatch.size
        overflow = self._overflow
        if overflow.is_full(self, size) and not overflow.make_room(self, size):
            return
        self._queue.append(key, args, size)
        self._start_or_wake()

    def drop_oldest(self) -> None:
        """Forgets the event that has waited longest."""
        self._queue.drop_oldest()

    def _wake_one(self) -> bool:
        """Wakes an idle task; returns False if there is none."""
        while self._idle:
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)
                return True
        return False

    def _wake_all(self) -> None:
        while self._wake_one():
            pass

    def _start_or_wake(self) -> None:
        if self._wake_one():
            return
        self._tasks = [task for task in self._tasks if not task.done()]
        if not self._tasks:
            self._is_stopping = False
        if len(self._tasks) < self._concurrency:
            self._tasks.append(self._handler.reports.start_worker(self._handler))

    # -- in the tasks --------------------------------------------------------------------

    async def work(self) -> None:
        handler, queue = self._handler, self._queue
        key: Hashable
        args: Any
        try:
            while True:
                while (found := queue.pop()) is not None:
                    key, args = found
                    if self._thread:
                        self._have_threads()
                    try:
                        error = await invoke(handler, args)
                        if error is not None:
                            handler.failed(error, event_of(args))
                    finally:
                        queue.done(key)
                # A sleeping task must not keep the last event and its error alive. The key of a
                # waiting event is in use; the task that uses the key goes on with that event.
                key = args = error = None
                if self._is_stopping or handler.has_ended:
                    return
                idle = asyncio.get_running_loop().create_future()
                self._idle.append(idle)
                await idle
        finally:
            self._leave_pool()

    def _have_threads(self) -> None:
        # The loop has only few threads (six on two cores), which all code in the process shares.
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._concurrency, "supabase_rt")
            self._handler.executor = self._pool

    def _leave_pool(self) -> None:
        """Ends the threads with the last task."""
        current = asyncio.current_task()
        if self._pool is None or any(
            not task.done() for task in self._tasks if task is not current
        ):
            return
        self._pool.shutdown(wait=False)
        self._pool = self._handler.executor = None

    # -- the end -------------------------------------------------------------------------

    def stop(self) -> asyncio.Task[None] | None:
        self._is_stopping = True
        self._wake_all()
        return next((task for task in self._tasks if not task.done()), None)

    def handler_ended(self) -> None:
        self._wake_all()

    def discard(self) -> int:
        count = len(self._queue)
        self._queue.clear()
        return count

    def forget_loop(self) -> None:
        self._tasks.clear()
        self._idle.clear()
        self._queue.free_keys()

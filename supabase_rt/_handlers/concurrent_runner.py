"""A handler that is called for several events at once: ``on(..., concurrency=8, key=...)``.

As many workers as it says, each like the one of every other handler; they share what waits. A
worker is started when an event finds none idle, so eight of them cost nothing until they work.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .handler import Registration, Reports, event_of
from .keyed_queue import Lanes
from .signatures import handler_name, is_coroutine_function

__all__ = ["Concurrent"]


class Concurrent(Registration):
    """Up to ``concurrency`` events at once; those of one key one after the other."""

    __slots__ = ("_concurrency", "_idle", "_key", "_lanes", "_pool", "_workers")

    def __init__(
        self,
        handler: Callable[..., Any],
        reports: Reports,
        *,
        concurrency: int,
        key: Callable[[Any], Hashable] | None = None,
        thread: bool = False,
        **options: Any,
    ) -> None:
        if not (thread or is_coroutine_function(handler)):
            raise ValueError(
                f"concurrency={concurrency} is for async handlers and thread=True; "
                f"{handler_name(handler)} is called on the event loop, one event at a time"
            )
        super().__init__(handler, reports, thread=thread, **options)
        self._concurrency = concurrency
        self._key = key
        self._lanes = Lanes()
        self._workers: list[asyncio.Task[None]] = []
        self._idle: deque[asyncio.Future[None]] = deque()
        self._pool: ThreadPoolExecutor | None = None

    @property
    def options(self) -> dict[str, Any]:
        return {**super().options, "concurrency": self._concurrency, "key": self._key}

    @property
    def waiting(self) -> int:
        return len(self._lanes)

    @property
    def waiting_bytes(self) -> int:
        return self._lanes.bytes

    # -- on the reader's stack -----------------------------------------------------------

    def _enqueue(self, args: tuple[Any, ...]) -> None:
        event = event_of(args)
        try:
            # Without a function each event is a key of its own, and waits for no other.
            key = object() if self._key is None else self._key(event)
            hash(key)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self.failed(exc, event)
            return
        size = self.stopwatch.size
        if self._is_full(size) and not self._makes_room(size):
            return
        self._lanes.append(key, args, size)
        self._wake()

    def _drop_oldest(self) -> None:
        self._lanes.drop_oldest()

    def _wake_one(self) -> bool:
        """Whether there was an idle worker to wake."""
        while self._idle:
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)
                return True
        return False

    def _wake(self) -> None:
        if self._wake_one():
            return
        self._workers = [worker for worker in self._workers if not worker.done()]
        if not self._workers:
            self._stopping = False
        if len(self._workers) < self._concurrency:
            self._workers.append(self._reports.start_worker(self))

    def _wake_worker(self) -> None:
        while self._wake_one():
            pass

    def forget_loop(self) -> None:
        self._workers.clear()
        self._idle.clear()
        self._lanes.free()

    # -- in the workers ------------------------------------------------------------------

    async def work(self) -> None:
        """One of the workers."""
        try:
            while True:
                while (found := self._lanes.take()) is not None:
                    key, args = found
                    try:
                        await self._handle(args)
                    finally:
                        self._lanes.done(key)
                # What still waits has a key that another worker is busy with, who takes it next.
                if self._stopping or self._ended:
                    return
                idle = asyncio.get_running_loop().create_future()
                self._idle.append(idle)
                await idle
        finally:
            self._leave_pool()

    async def _in_thread(self, *args: Any) -> Any:
        # The threads of the loop are few (six on two cores), and are everybody's.
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._concurrency, "supabase_rt")
        call = functools.partial(contextvars.copy_context().run, self._run, *args)
        result = await asyncio.get_running_loop().run_in_executor(self._pool, call)
        return await result if inspect.iscoroutine(result) else result

    def _leave_pool(self) -> None:
        """The last one to go ends the threads."""
        current = asyncio.current_task()
        if self._pool is None or any(
            not worker.done() for worker in self._workers if worker is not current
        ):
            return
        self._pool.shutdown(wait=False)
        self._pool = None

    # -- the end -------------------------------------------------------------------------

    def stop(self) -> asyncio.Task[None] | None:
        self._stopping = True
        self._wake_worker()
        return next((worker for worker in self._workers if not worker.done()), None)

    def discard_queue(self) -> int:
        count = len(self._lanes)
        self._lanes.clear()
        return count

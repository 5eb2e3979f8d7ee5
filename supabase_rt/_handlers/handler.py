"""One handler and its events: in order, one at a time, and harmless to everybody else.

A plain function runs on the reader's stack behind a boundary. A coroutine function (or a plain
one that turns out to return coroutines, or ``thread=True``) gets a bounded queue and one worker;
a task for every event would run them in any order and without limit.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

from .._printable import get_logger
from .._protocol.channel_options import MAXBYTES
from .._runtime.event_loop import wake
from .._runtime.log_fields import facts
from .._runtime.slow_handler import Stopwatch
from .._wire.envelope import TOPIC_PREFIX
from ..errors import RealtimeError
from .signatures import accepted_arguments, handler_name, is_coroutine_function

__all__ = [
    "OVERFLOWS",
    "Drops",
    "Handling",
    "Registration",
    "Reports",
    "event_of",
]

log: Final = get_logger("supabase_rt.handlers")

Handling: TypeAlias = Callable[[Any], Any]
"""What is called with one event."""

OVERFLOWS = ("drop_oldest", "drop_newest", "close")


class Reports(Protocol):
    """Where registrations tell of what goes wrong, and who owns their workers."""

    stopwatch: Stopwatch

    def handler_failed(
        self, error: BaseException, event: Any, registration: Registration
    ) -> None: ...
    def events_dropped(self, source: str, count: int, since: float, until: float) -> None: ...
    def start_worker(self, registration: Registration) -> asyncio.Task[None]: ...


class Around(Protocol):
    """The middleware of a client."""

    def __bool__(self) -> bool: ...
    def wrap(
        self, call: Handling, handler: Callable[..., Any], topic: str
    ) -> tuple[Handling, bool]: ...


class Drops:
    """Counts what is dropped and tells it once for each turn of the loop.

    One report for each event would make a flood of its own.
    """

    def __init__(self, reports: Reports, source: str) -> None:
        self._reports = reports
        self._source = source
        self._count = 0
        self._since = 0.0

    def add(self) -> None:
        """One more event was dropped."""
        if not self._count:
            self._since = time.time()
            asyncio.get_running_loop().call_soon(self._tell)
        self._count += 1

    def _tell(self) -> None:
        count, self._count = self._count, 0
        self._reports.events_dropped(self._source, count, self._since, time.time())


class Registration:
    """A handler with the promise of order; called with the arguments of each event."""

    __slots__ = (
        "_bytes",
        "_call",
        "_drops",
        "_ended",
        "_maxbytes",
        "_maxsize",
        "_middleware",
        "_on_end",
        "_once",
        "_overflow",
        "_passes",
        "_queue",
        "_reports",
        "_sizes",
        "_stopping",
        "_thread",
        "_wakeup",
        "_worker",
        "accepts",
        "direct",
        "handler",
        "source",
        "stopwatch",
        "types",
    )

    def __init__(
        self,
        handler: Callable[..., Any],
        reports: Reports,
        *,
        source: str,
        limit: int = 1,
        maxsize: int | None = 1000,
        maxbytes: int = MAXBYTES,
        overflow: str = "drop_oldest",
        thread: bool = False,
        types: Any = "js",
        on_end: Callable[[Registration], None] | None = None,
        once: bool = False,
        middleware: Around | None = None,
    ) -> None:
        self.handler: Callable[..., Any] = handler
        self.source: str = source
        self.types: str = types
        self.accepts: int = accepted_arguments(handler, limit)
        self._reports = reports
        self.stopwatch: Stopwatch = reports.stopwatch
        self._maxsize = maxsize
        self._maxbytes = maxbytes
        self._overflow = overflow
        self._thread = thread
        self._on_end = on_end
        self._once = once
        self._ended = False
        self._queue: deque[Any] | None = None
        self._sizes: deque[int] | None = None
        """Of each event of the queue: a parallel queue costs less than pairs in one."""
        self._bytes = 0
        self._worker: asyncio.Task[None] | None = None
        self._wakeup: asyncio.Future[None] | None = None
        self._stopping = False
        self._drops = Drops(reports, source)
        self.direct: Callable[[Any], Any] | None = None
        """The handler, while it can be called with the payload and nothing else to be done."""
        self._middleware = middleware
        if thread or is_coroutine_function(handler):
            self._open_queue()
        self.rewrap()

    @property
    def name(self) -> str:
        """A name to find the handler by."""
        return handler_name(self.handler)

    @property
    def topic(self) -> str | None:
        """That of its channel; None for what is none's."""
        return self.source if self.source.startswith(TOPIC_PREFIX) else None

    @property
    def options(self) -> dict[str, Any]:
        """How it was made, to make another one like it."""
        return {
            "maxsize": self._maxsize,
            "maxbytes": self._maxbytes,
            "overflow": self._overflow,
            "thread": self._thread,
            "types": self.types,
            "once": self._once,
        }

    @property
    def keeps_queue(self) -> bool:
        """Whether what waits at the end is still there for another beginning."""
        return False

    @property
    def takes_middleware(self) -> bool:
        """Whether it is a handler of the user's, and not ours for a stream."""
        return self._middleware is not None

    def rewrap(self) -> None:
        """Put the middleware around the handler, as it is now: decided here, not by event."""
        handler: Callable[..., Any] = self._in_thread if self._thread else self.handler
        self._call: Callable[..., Any] = handler
        self._passes: int = self.accepts
        if self._middleware:
            inner = handler if self.accepts == 1 else lambda event: handler()
            self._call, is_async = self._middleware.wrap(inner, self.handler, self.source)
            self._passes = 1
            if is_async and self._queue is None:
                self._open_queue()
        can_be_direct = self._passes == 1 and not (self._once or self._ended)
        self.direct = self._call if self._queue is None and can_be_direct else None

    @property
    def is_idle(self) -> bool:
        """Whether its worker waits for an event."""
        return self._wakeup is not None and not self._wakeup.done()

    @property
    def waiting(self) -> int:
        """How many events wait for the handler."""
        return 0 if self._queue is None else len(self._queue)

    @property
    def waiting_bytes(self) -> int:
        """How large the frames were of those that wait."""
        return self._bytes

    def _open_queue(self) -> None:
        """Have events wait, because the handler is not called where they arrive."""
        self._queue, self._sizes = deque(), deque()

    # -- on the reader's stack -----------------------------------------------------------

    def __call__(self, *args: Any) -> None:
        """Take one event. Never raises what the handler raised."""
        if self._ended:
            return
        if self._once:
            self.end()
        if self._queue is not None:
            self._enqueue(args)
            return
        try:
            result = self._call(*args[: self._passes])
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            self.failed(exc, event_of(args))
        else:
            if result is not None:
                self.returned(result)

    def deliver(self, payload: Any) -> None:
        """Take the payload of one event: ``__call__``, written out for most events there are."""
        handler = self.direct
        if handler is None:
            self(payload)
        else:
            try:
                result = handler(payload)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as exc:
                self.failed(exc, payload)
            else:
                if result is not None:
                    self.returned(result)

    def blocked(self, seconds: float) -> None:
        """Handling the last event took that long, and everything in this loop stood still."""
        log.warning(
            "handler %s blocked the event loop for %.2f s; make it async or register it with "
            "thread=True",
            self.name,
            seconds,
            extra=facts(handler=self.name, topic=self.topic, seconds=seconds),
        )

    def failed(self, error: BaseException, event: Any) -> None:
        """The handler raised."""
        self._reports.handler_failed(error, event, self)

    def returned(self, result: Any) -> None:
        """The handler returned something: nothing to us, unless it is a coroutine."""
        if inspect.iscoroutine(result):
            self.direct = None
            self._queue, self._sizes = deque([result]), deque([0])
            self._wake()

    def end(self) -> None:
        """No further events; what is queued already is still handled."""
        if not self._ended:
            self._ended = True
            self.direct = None
            self._wake_worker()
            if self._on_end is not None:
                self._on_end(self)

    def _enqueue(self, args: tuple[Any, ...]) -> None:
        # ``_is_full``, written out for what costs most of all that is done for an event.
        queue, sizes, size = self._queue, self._sizes, self.stopwatch.size
        assert queue is not None
        assert sizes is not None
        if (
            queue
            and (
                self._bytes + size > self._maxbytes
                or (self._maxsize is not None and len(queue) >= self._maxsize)
            )
            and not self._makes_room(size)
        ):
            return
        queue.append(args)
        sizes.append(size)
        self._bytes += size
        self._wake()

    def _next_in_line(self) -> Any:
        assert self._queue is not None
        assert self._sizes is not None
        self._bytes -= self._sizes.popleft()
        return self._queue.popleft()

    def _is_full(self, size: int) -> bool:
        """Whether something has to go before one more event of this size may wait."""
        waiting = self.waiting
        if self._maxsize is not None and waiting >= self._maxsize:
            return True
        # A single one that is larger than all may be waits where nothing else does.
        return waiting > 0 and self.waiting_bytes + size > self._maxbytes

    def _makes_room(self, size: int) -> bool:
        """Whether the next event may wait though as many wait as may; what goes is counted."""
        if self._overflow == "drop_oldest":
            while self._is_full(size):
                self._drops.add()
                self._drop_oldest()
            return True
        self._drops.add()
        if self._overflow == "close":
            self._end_overflowing()
        return False

    def _drop_oldest(self) -> None:
        dropped = self._next_in_line()
        if inspect.iscoroutine(dropped):
            dropped.close()

    def _end_overflowing(self) -> None:
        behind = f"{self.waiting} events behind ({self.waiting_bytes:,} bytes)"
        error = RealtimeError(
            f"{self.name} fell {behind} and was ended",
            code="Overflow",
            hint="make the handler faster, raise maxsize= or maxbytes=, or choose "
            "overflow='drop_oldest'",
        )
        self.end()
        self._reports.handler_failed(error, None, self)

    def _wake(self) -> None:
        if self._worker is None or self._worker.done():
            self._stopping = False
            self._worker = self._reports.start_worker(self)
        else:
            self._wake_worker()

    def _wake_worker(self) -> None:
        wake(self._wakeup)

    def forget_loop(self) -> None:
        """The loop of the worker is gone, and with it the event that it was at."""
        self._worker = self._wakeup = None

    # -- in the worker -------------------------------------------------------------------

    async def work(self) -> None:
        """Handle what is queued, one at a time, until told to stop and nothing is left."""
        queue, sizes = self._queue, self._sizes
        assert queue is not None
        assert sizes is not None
        while True:
            while queue:
                self._bytes -= sizes.popleft()
                await self._handle(queue.popleft())
            if self._stopping or self._ended:
                return
            self._wakeup = asyncio.get_running_loop().create_future()
            await self._wakeup

    async def _handle(self, item: Any) -> None:
        args = () if inspect.iscoroutine(item) else item
        try:
            if inspect.iscoroutine(item):
                await item
                return
            result = self._call(*args[: self._passes])
            if inspect.iscoroutine(result):
                await result
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            task = asyncio.current_task()
            if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            self.failed(exc, event_of(args))

    async def _in_thread(self, *args: Any) -> Any:
        result = await asyncio.to_thread(self._run, *args)
        return await result if inspect.iscoroutine(result) else result

    def _run(self, *args: Any) -> Any:
        """In the worker thread. A future takes any exception but this one, and would hang."""
        try:
            return self.handler(*args)
        except StopIteration as exc:
            raise RuntimeError("the handler raised StopIteration") from exc

    def stop(self) -> asyncio.Task[None] | None:
        """Let the worker finish what is queued and end; returns it while it is alive."""
        self._stopping = True
        worker = self._worker
        if worker is None or worker.done():
            return None
        self._wake_worker()
        return worker

    def discard_queue(self) -> int:
        """Forget what is queued; returns how many events that were."""
        queue = self._queue
        if queue is None:
            return 0
        count = len(queue)
        for item in queue:
            if inspect.iscoroutine(item):
                item.close()
        queue.clear()
        if self._sizes is not None:
            self._sizes.clear()
        self._bytes = 0
        return count


def event_of(args: tuple[Any, ...]) -> Any:
    """What an error listener is given of it: the payload."""
    return args[0] if args else None

"""One function that was registered for events, and how it is called.

A ``Handler`` knows its function, the middleware around it, and when it ends. Its ``Runner``
decides when each event is handled: at once on the reader's stack, or in a task.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final, Protocol, TypeAlias

from .._printable import get_logger
from .._runtime.log_fields import facts
from .._runtime.slow_handler import Stopwatch
from .._wire.envelope import TOPIC_PREFIX
from ..errors import RealtimeError
from .queue_bounds import QueueLimits
from .signatures import accepted_arguments, handler_name, is_coroutine_function

__all__ = ["Handler", "OneEventCall", "Reports", "Runner", "event_of", "invoke"]

log: Final = get_logger("supabase_rt.handlers")

OneEventCall: TypeAlias = Callable[[Any], Any]
"""A function that is called with one event."""


class Runner(Protocol):
    """Decides when and where the events of one handler are handled."""

    @property
    def is_inline(self) -> bool:
        """True if events are handled where they arrive, without a queue."""

    @property
    def options(self) -> dict[str, Any]:
        """The options of ``on`` from which another runner like this one is made."""

    @property
    def waiting(self) -> int:
        """The number of events that wait."""

    @property
    def waiting_bytes(self) -> int:
        """The size of the frames that these events came in."""

    @property
    def is_idle(self) -> bool:
        """True if the task of the runner waits for an event."""

    @property
    def queue_survives_shutdown(self) -> bool:
        """True if events that wait when the client stops are handled later."""

    def put(self, item: Any) -> None:
        """Handles or queues an event: its arguments, or the coroutine that handles it."""

    async def work(self) -> None:
        """Handles queued events until told to stop and nothing is left. Runs in a task."""

    def stop(self) -> asyncio.Task[None] | None:
        """Tells the task to end when its queue is empty; returns the task if it is alive."""

    def handler_ended(self) -> None:
        """The handler gets no further events."""

    def discard(self) -> int:
        """Forgets the queued events; returns their number."""

    def forget_loop(self) -> None:
        """The loop of the task is gone, and with it the event in hand."""


class Reports(Protocol):
    """The owner of handlers: hears of their failures, and starts their tasks."""

    stopwatch: Stopwatch

    def handler_failed(self, error: BaseException, event: Any, handler: Handler) -> None: ...
    def events_dropped(self, source: str, count: int, since: float, until: float) -> None: ...
    def start_worker(self, handler: Handler) -> asyncio.Task[None]: ...


class Wrapper(Protocol):
    """The middleware of a client."""

    def __bool__(self) -> bool: ...
    def wrap(
        self, call: OneEventCall, function: Callable[..., Any], topic: str
    ) -> tuple[OneEventCall, bool]: ...


class Handler:
    """A function of the user's; called with the arguments of each event."""

    __slots__ = (
        "_make_runner",
        "_middleware",
        "_on_end",
        "_once",
        "_thread",
        "arguments_accepted",
        "arguments_passed",
        "call",
        "conversion",
        "direct",
        "executor",
        "function",
        "has_ended",
        "limits",
        "needs_queue",
        "reports",
        "runner",
        "source",
        "stopwatch",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        reports: Reports,
        make_runner: Callable[[Handler], Runner],
        *,
        source: str,
        limit: int = 1,
        limits: QueueLimits,
        thread: bool = False,
        types: Any = "js",
        on_end: Callable[[Handler], None] | None = None,
        once: bool = False,
        middleware: Wrapper | None = None,
    ) -> None:
        self.function: Callable[..., Any] = function
        self.source: str = source
        self.conversion: Any = types
        """The conversion of the rows of its changes: a mode, or the converter of a model."""
        self.arguments_accepted: int = accepted_arguments(function, limit)
        self.reports: Reports = reports
        self.stopwatch: Stopwatch = reports.stopwatch
        self.limits: QueueLimits = limits
        self.has_ended: bool = False
        self.needs_queue: bool = thread or is_coroutine_function(function)
        """True if it cannot be handled on the reader's stack."""
        self.executor: Executor | None = None
        """The threads for ``thread=True``; with None the threads of the loop are used."""
        self.direct: Callable[[Any], Any] | None = None
        """The function, if an event needs no more than a call with the payload; else None."""
        self._thread = thread
        self._on_end = on_end
        self._once = once
        self._middleware = middleware
        self._make_runner = make_runner
        self.runner: Runner = make_runner(self)
        self.rewrap()

    @property
    def name(self) -> str:
        """Module and name of the function, as in the log."""
        return handler_name(self.function)

    @property
    def topic(self) -> str | None:
        """The topic of its channel; None for a handler of the client's own events."""
        return self.source if self.source.startswith(TOPIC_PREFIX) else None

    @property
    def options(self) -> dict[str, Any]:
        """The options of ``on`` from which another handler like this one is made."""
        return {
            "maxsize": self.limits.maxsize,
            "maxbytes": self.limits.maxbytes,
            "overflow": self.limits.overflow,
            "thread": self._thread,
            "types": self.conversion,
            "once": self._once,
            **self.runner.options,
        }

    @property
    def is_user_handler(self) -> bool:
        """True for a function of the user's, False for ours that feeds a stream."""
        return self._middleware is not None

    def rewrap(self) -> None:
        """Puts the middleware around the function: once, and not for each event."""
        function: Callable[..., Any] = self._call_in_thread if self._thread else self.function
        self.call: Callable[..., Any] = function
        self.arguments_passed: int = self.arguments_accepted
        if self._middleware:
            inner = function if self.arguments_accepted == 1 else lambda event: function()
            self.call, is_async = self._middleware.wrap(inner, self.function, self.source)
            self.arguments_passed = 1
            if is_async:
                self._require_queue()
        can_be_direct = self.arguments_passed == 1 and not (self._once or self.has_ended)
        self.direct = self.call if self.runner.is_inline and can_be_direct else None

    def _require_queue(self) -> None:
        self.needs_queue = True
        if self.runner.is_inline:
            self.runner = self._make_runner(self)

    # -- on the reader's stack -----------------------------------------------------------

    def __call__(self, *args: Any) -> None:
        """Gives one event to the runner. Never raises an exception of the function."""
        if self.has_ended:
            return
        if self._once:
            self.end()
        self.runner.put(args)

    def deliver(self, payload: Any) -> None:
        """Handles the payload of one event: ``__call__``, with its most common case inlined."""
        function = self.direct
        if function is None:
            self(payload)
        else:
            try:
                result = function(payload)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as exc:
                self.failed(exc, payload)
            else:
                if result is not None:
                    self.returned(result)

    def blocked(self, seconds: float) -> None:
        """Logs that the last event kept everything in this loop waiting for that long."""
        log.warning(
            "handler %s blocked the event loop for %.2f s; make it async or register it with "
            "thread=True",
            self.name,
            seconds,
            extra=facts(handler=self.name, topic=self.topic, seconds=seconds),
        )

    def failed(self, error: BaseException, event: Any) -> None:
        """Reports that the function raised."""
        self.reports.handler_failed(error, event, self)

    def returned(self, result: Any) -> None:
        """The function returned something: ignored, unless it is a coroutine."""
        if inspect.iscoroutine(result):
            self.direct = None
            self._require_queue()
            self.runner.put(result)

    # -- the end -------------------------------------------------------------------------

    def end(self) -> None:
        """Takes no further events; events that are queued already are still handled."""
        if not self.has_ended:
            self.has_ended = True
            self.direct = None
            self.runner.handler_ended()
            if self._on_end is not None:
                self._on_end(self)

    def end_overflowing(self) -> None:
        """Ends it because it is too slow, for ``overflow="close"``."""
        behind = f"{self.runner.waiting} events behind ({self.runner.waiting_bytes:,} bytes)"
        error = RealtimeError(
            f"{self.name} fell {behind} and was ended",
            code="Overflow",
            hint="make the handler faster, raise maxsize= or maxbytes=, or choose "
            "overflow='drop_oldest'",
        )
        self.end()
        self.reports.handler_failed(error, None, self)

    # -- in a thread ---------------------------------------------------------------------

    async def _call_in_thread(self, *args: Any) -> Any:
        call = functools.partial(contextvars.copy_context().run, self._call_function, *args)
        result = await asyncio.get_running_loop().run_in_executor(self.executor, call)
        return await result if inspect.iscoroutine(result) else result

    def _call_function(self, *args: Any) -> Any:
        try:
            return self.function(*args)
        except StopIteration as exc:
            # A future cannot carry this exception: its awaiter would hang.
            raise RuntimeError("the handler raised StopIteration") from exc


async def invoke(handler: Handler, item: Any) -> BaseException | None:
    """Has a handler handle one event; returns the exception that it raised, or None.

    ``item`` is the argument of ``Runner.put``. The cancellation of the current task is raised.
    """
    try:
        is_call = isinstance(item, tuple)
        result = handler.call(*item[: handler.arguments_passed]) if is_call else item
        if inspect.iscoroutine(result):
            await result
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:
        task = asyncio.current_task()
        if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        return exc
    return None


def event_of(item: Any) -> Any:
    """Returns the payload that an ``error`` listener is shown; None if it is not known."""
    return item[0] if isinstance(item, tuple) and item else None

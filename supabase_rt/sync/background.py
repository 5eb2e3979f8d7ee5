"""The one thread in which the event loop of all blocking clients runs, and the way into it."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import functools
import inspect
import math
import os
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

import anyio.from_thread
import anyio.to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

__all__ = ["Threaded", "around", "ask", "begin", "call", "on_exit"]

LEAVE_TIMEOUT = 5.0
"""Seconds that the clients get to leave their channels when the program ends."""


class _Leaves(Protocol):
    async def leave(self) -> None: ...


class _Background:
    """The loop's thread, started when it is first needed."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.open: weakref.WeakSet[_Leaves] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._portal: BlockingPortal | None = None

    def portal(self) -> BlockingPortal:
        with self._lock:
            if self._portal is None:
                started = start_blocking_portal("asyncio", name="supabase_rt:sync")
                self._portal = self._stack.enter_context(started)
            return self._portal

    def stop(self) -> None:
        """At the end of the program: leave what is open, then end the thread."""
        if self._portal is None or self.pid != os.getpid():
            return
        leaving = self._portal.start_task_soon(self._leave)
        with contextlib.suppress(Exception):
            leaving.result(LEAVE_TIMEOUT)
        with contextlib.suppress(RuntimeError):
            # What another thread still waits for would be waited for here, too.
            self._portal.call(self._portal.stop, True)
        self._stack.close()

    async def _leave(self) -> None:
        for client in list(self.open):
            with contextlib.suppress(Exception):
                await client.leave()


_current: _Background | None = None


def _background() -> _Background:
    """That of this process: a thread does not survive a fork, its objects do."""
    global _current
    if _current is None or _current.pid != os.getpid():
        _current = _Background()
        # The thread is a daemon's: a program may end without a word, and still leaves cleanly.
        atexit.register(_current.stop)
    return _current


def on_exit(client: _Leaves) -> None:
    """Leave ``client`` when the program ends, if it is still there."""
    _background().open.add(client)


def begin(work: Callable[..., Any], *args: Any, **options: Any) -> Future[Any]:
    """Start ``work`` in the loop and do not wait; a result that is awaitable is awaited there."""

    async def run() -> Any:
        result = work(*args, **options)
        return await result if inspect.isawaitable(result) else result

    return _background().portal().start_task_soon(run)


def call(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Run ``work`` in the loop and wait for its result.

    Whatever interrupts the waiting (Ctrl+C) cancels the work. Raises ``RuntimeError`` in the
    loop's own thread, that is inside an ``async`` handler, which would wait for itself.
    """
    future = begin(work, *args, **options)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def ask(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """As ``call``, for what is done when it returns: a channel is awaitable, and not awaited."""
    return call(lambda: (work(*args, **options),))[0]


class Threaded:
    """Turns plain functions into ones that the loop may call: they run in worker threads.

    The same function gives the same result, so that ``off`` finds what ``on`` was given.
    """

    def __init__(self) -> None:
        self._made: list[tuple[Any, Callable[..., Any]]] = []

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(function) or inspect.iscoroutinefunction(function):
            return function
        for known, made in self._made:
            if known == function:
                return made
        made = _in_a_thread(function)
        self._made.append((function, made))
        return made


def _interrupt() -> None:
    """Ctrl+C for the main thread, wherever it waits."""
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


def around(middleware: Callable[..., Any]) -> Callable[..., Any]:
    """A plain middleware in a worker thread, where ``call_next`` waits for what comes next."""
    if not callable(middleware) or inspect.iscoroutinefunction(middleware):
        return middleware
    threaded = _in_a_thread(middleware)

    @functools.wraps(middleware)
    async def run(event: Any, call_next: Any) -> Any:
        return await threaded(event, _BlockingNext(call_next))

    return run


class _BlockingNext:
    """``call_next`` of a blocking middleware."""

    def __init__(self, call_next: Any) -> None:
        self._call_next = call_next
        self.handler: Callable[..., Any] = inspect.unwrap(call_next.handler)
        self.topic: str = call_next.topic

    def __call__(self, event: Any) -> Any:
        return anyio.from_thread.run(self._call_next, event)


def _in_a_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*args: Any) -> Any:
        try:
            return function(*args)
        except (KeyboardInterrupt, SystemExit):
            # Meant for the program. Let through it would end the loop, and nobody would know.
            _interrupt()

    @functools.wraps(function)
    async def run(*args: Any) -> Any:
        # Without a limit: the fortieth handler that waits must not stop the forty-first. A
        # thread that hangs is left alone when the client ends, and does not keep the program.
        return await anyio.to_thread.run_sync(
            guarded,
            *args,
            abandon_on_cancel=True,
            limiter=anyio.CapacityLimiter(math.inf),
        )

    return run

"""The one thread in which the event loop of all blocking clients runs, and the way into it."""

from __future__ import annotations

import _thread
import asyncio
import atexit
import contextlib
import functools
import inspect
import math
import os
import signal
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.from_thread import BlockingPortal

from .. import RealtimeClient

__all__ = ["around", "ask", "begin", "call", "on_exit", "result_of", "threaded"]

T = TypeVar("T")

LEAVE_TIMEOUT = 10.0
"""Seconds that the clients get to leave their channels when the program ends."""
END_TIMEOUT = 3.0
"""Seconds that the thread of the loop gets to end after that."""
LOOK_AGAIN = 0.5
"""Seconds after which a thread that waits looks whether it was interrupted."""


class _Background:
    """The loop's thread, started when it is first needed."""

    def __init__(self) -> None:
        # Those themselves, not the blocking ones around them: a client that is connected lives
        # on though the function that made it has returned.
        self.open: weakref.WeakSet[RealtimeClient] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._started: Future[BlockingPortal] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    def portal(self) -> BlockingPortal:
        with self._lock:
            if self._started is None:
                self._start()
            started = self._started
        assert started is not None
        # Who is interrupted here, by a Ctrl+C, leaves a thread that the next call finds.
        portal: BlockingPortal = result_of(started)
        return portal

    def _start(self) -> None:
        started = self._started = Future()
        # A daemon's: a program may end without a word, and still leaves cleanly.
        self._thread = threading.Thread(
            target=anyio.run,
            args=(self._serve, started),
            name="supabase_rt:sync",
            daemon=True,
        )
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = self._started = None
            raise

    async def _serve(self, started: Future[BlockingPortal]) -> None:
        self._loop = asyncio.get_running_loop()
        async with BlockingPortal() as portal:
            started.set_result(portal)
            await self._ending.wait()
            leaving = [client.__aexit__(None, None, None) for client in list(self.open)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_TIMEOUT):
                    await asyncio.gather(*leaving, return_exceptions=True)
            # What another thread still waits for would be waited for here, too.
            await portal.stop(True)

    def stop(self) -> None:
        """At the end of the program: leave what is open, then end the thread."""
        if self._thread is None or self._loop is None:
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ending.set)
        # An async handler that never gives the loop back is not waited for.
        self._thread.join(LEAVE_TIMEOUT + END_TIMEOUT)


_current = _Background()


def _forked() -> None:
    """A thread does not survive a fork, its objects do."""
    global _current
    _current = _Background()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
# Here, before any handler of the user's that calls a client: they run the other way round.
atexit.register(lambda: _current.stop())


def on_exit(client: RealtimeClient) -> None:
    """Leave ``client`` when the program ends, if it is still there."""
    _current.open.add(client)


def begin(work: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> Future[T]:
    """Start ``work`` in the loop and do not wait; its result is awaited there if it can be."""

    async def run() -> Any:
        result = work(*args, **options)
        return await result if inspect.isawaitable(result) else result

    return _current.portal().start_task_soon(run)


def result_of(future: Future[T]) -> T:
    """Wait for a result, in turns.

    A Ctrl+C wakes nobody who is just about to wait for a lock, and on Windows nobody at all.
    """
    while not future.done():
        wait([future], LOOK_AGAIN)
    return future.result()


def call(work: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
    """Run ``work`` in the loop and wait for its result.

    Whatever interrupts the waiting (Ctrl+C) cancels the work. Raises ``RuntimeError`` in the
    loop's own thread, that is inside an ``async`` handler, which would wait for itself.
    """
    future = begin(work, *args, **options)
    try:
        return result_of(future)
    except BaseException:
        future.cancel()
        raise


def ask(work: Callable[..., T], *args: Any, **options: Any) -> T:
    """As ``call``, for what is done when it returns: a channel is awaitable, and not awaited."""

    async def run() -> T:
        return work(*args, **options)

    return call(run)


def _interrupt() -> None:
    """Ctrl+C for the main thread, wherever it waits."""
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


class _InThread:
    """A plain function that the loop may call: it runs in a worker thread.

    Equal to that of the same function, so that ``off`` finds what ``on`` was given.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _InThread) and other._function == self._function

    def __hash__(self) -> int:
        return hash(self._function)

    def _guarded(self, *args: Any) -> Any:
        try:
            return self._function(*args)
        except (KeyboardInterrupt, SystemExit):
            # Meant for the program. Let through it would end the loop, and nobody would know.
            _interrupt()

    async def __call__(self, *args: Any) -> Any:
        # Without a limit: the fortieth handler that waits must not stop the forty-first. A
        # thread that hangs is left alone when the client ends, and does not keep the program.
        result = await anyio.to_thread.run_sync(
            self._guarded,
            *args,
            abandon_on_cancel=True,
            limiter=anyio.CapacityLimiter(math.inf),
        )
        # Of an object whose __call__ is async, say, or of a lambda around an async function.
        return await result if inspect.iscoroutine(result) else result


def threaded(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` for the loop to call; an ``async`` one runs in the loop as it is."""
    if not callable(function) or inspect.iscoroutinefunction(function):
        return function
    return _InThread(function)


def around(middleware: Callable[..., Any]) -> Callable[..., Any]:
    """A plain middleware in a worker thread, where ``call_next`` waits for what comes next."""
    if not callable(middleware) or inspect.iscoroutinefunction(middleware):
        return middleware
    in_thread = _InThread(middleware)

    @functools.wraps(middleware)
    async def run(event: Any, call_next: Any) -> Any:
        return await in_thread(event, _BlockingNext(call_next))

    return run


class _BlockingNext:
    """``call_next`` of a blocking middleware."""

    def __init__(self, call_next: Any) -> None:
        self._call_next = call_next
        self.handler: Callable[..., Any] = inspect.unwrap(call_next.handler)
        self.topic: str = call_next.topic
        self.name: str = call_next.name

    def __call__(self, event: Any) -> Any:
        return anyio.from_thread.run(self._call_next, event)

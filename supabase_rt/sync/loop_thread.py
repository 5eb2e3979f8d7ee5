"""The one thread in which the event loop of all blocking clients runs, and the way into it.

A signal handler runs between any two steps of the main thread, ``__del__`` between any two steps
of any thread, and both may call a client. So nothing on the way takes a lock of Python's: the
thread that was interrupted would hold it, and the loop would wait for it. What is used is done in
one step: a lock of C for each call, and ``call_soon_threadsafe``.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import concurrent.futures
import contextlib
import contextvars
import functools
import inspect
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from .. import InvalidState, RealtimeClient
from .._printable import get_logger

__all__ = ["around", "ask", "begin", "call", "on_exit", "result_of", "threaded"]

log: Final = get_logger("supabase_rt")

T = TypeVar("T")

LEAVE_TIMEOUT = 10.0
"""Seconds that the clients get to leave their channels when the program ends."""
END_TIMEOUT = 3.0
"""Seconds that the thread of the loop gets to end after that."""
LOOK_AGAIN = 0.5
"""Seconds after which a thread that waits looks whether it was interrupted."""
STUCK_AFTER = 15.0
"""Seconds without a turn of the loop after which nobody waits for it any longer."""


class _Call(Generic[T]):
    """Work in the loop, and its result for the thread that began it."""

    def __init__(self, background: _Background, work: Callable[[], Any]) -> None:
        self._background = background
        self._work = work
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        self._result: Any = None
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_cancelled = False

    def start(self) -> None:
        """Begin, in the loop."""
        if self._is_cancelled:
            self._end(None, concurrent.futures.CancelledError())
        else:
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name="supabase_rt:sync:call"
            )

    async def _run(self) -> None:
        try:
            result = self._work()
            if inspect.isawaitable(result):
                result = await result
        except asyncio.CancelledError:
            # By nobody who waits, then: by the end of the loop.
            task = asyncio.current_task()
            of_loop = not self._is_cancelled and task is not None and task.cancelling() > 0
            self._end(None, _ended() if of_loop else concurrent.futures.CancelledError())
            raise
        except BaseException as exc:
            # Meant for who called, sys.exit() too: the loop is everybody's.
            self._end(None, exc)
        else:
            self._end(result, None)

    def _end(self, result: Any, error: BaseException | None) -> None:
        self._result, self._error = result, error
        self._ended.release()

    def cancel(self) -> None:
        """Have it end; nobody waits for that."""
        self._is_cancelled = True
        with contextlib.suppress(RuntimeError, InvalidState):  # the loop is over
            self._background.do(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def result(self) -> T:
        """Wait for the result, in turns.

        A Ctrl+C wakes nobody who is just about to wait for a lock, and on Windows nobody at all.
        """
        alive = time.monotonic()

        def answer() -> None:
            nonlocal alive
            alive = time.monotonic()

        while not self._ended.acquire(timeout=LOOK_AGAIN):
            if self._background.is_over:
                raise _ended()
            self._background.do(answer)
            if time.monotonic() - alive > STUCK_AFTER:
                raise InvalidState(
                    f"the loop of the blocking clients stood still for {STUCK_AFTER:g} s",
                    code="LoopStuck",
                    hint="an async handler blocks it, or it waits for a lock that this thread "
                    "held when a signal handler or __del__ made this call",
                )
        self._ended.release()
        if self._error is not None:
            raise self._error
        found: T = self._result
        return found


def _ended() -> InvalidState:
    return InvalidState(
        "the loop of the blocking clients has ended",
        code="LoopEnded",
        hint="the program is ending, or something in the loop called sys.exit(); call again to "
        "begin with another loop",
    )


class _Background:
    """The loop's thread, started when it is first needed."""

    def __init__(self) -> None:
        # Those themselves, not the blocking ones around them: a client that is connected lives
        # on though the function that made it has returned.
        self.open: weakref.WeakSet[RealtimeClient] = weakref.WeakSet()
        self.is_over = False
        self._is_ending = False
        self._is_begun = False
        self._claim = _thread.allocate_lock()
        """Taken by the one thread that serves: any number may be started."""
        self._is_up = _thread.allocate_lock()
        self._is_up.acquire()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop, started if need be."""
        if self._loop is None:
            # Who is interrupted here, by a Ctrl+C or to call from a signal handler, may leave a
            # thread that the next one finds, or starts another one, which ends at once.
            if not self._is_begun:
                self._begin()
            while self._loop is None and not self.is_over:
                if self._is_up.acquire(timeout=LOOK_AGAIN):
                    self._is_up.release()
        if self._loop is None:
            raise _ended()
        return self._loop

    def _begin(self) -> None:
        # A daemon's: a program may end without a word, and still leaves cleanly.
        threading.Thread(target=self._run, name="supabase_rt:sync", daemon=True).start()
        self._is_begun = True

    def _run(self) -> None:
        if not self._claim.acquire(blocking=False):
            return
        self._thread = threading.current_thread()
        told = False
        try:
            anyio.run(self._serve)
        except (KeyboardInterrupt, SystemExit):
            told = True
        except BaseException:
            log.exception("the loop of the blocking clients failed")
        finally:
            self._over()
        if told:
            _interrupt()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_up.release()
        await self._ending.wait()
        leaving = [client.__aexit__(None, None, None) for client in list(self.open)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT):
                await asyncio.gather(*leaving, return_exceptions=True)
        # What another thread still waits for is cancelled with the loop.

    def _over(self) -> None:
        """The loop has ended; where that was not meant, another one takes its place."""
        global _current
        self.is_over = True
        if not self._is_ending and _current is self:
            fresh = _Background()
            for client in list(self.open):
                client._core.connection.lose_loop()
                fresh.open.add(client)
            _current = fresh
        with contextlib.suppress(RuntimeError):
            self._is_up.release()

    def do(self, what: Callable[[], object]) -> None:
        """Have the loop do something; raises ``InvalidState`` where there is none any more."""
        loop = self._running()
        try:
            loop.call_soon_threadsafe(what, context=contextvars.copy_context())
        except RuntimeError:
            if not loop.is_closed():
                raise
        else:
            return
        raise _ended()

    def start(self, work: Callable[[], Any]) -> _Call[Any]:
        """Begin ``work`` in the loop."""
        self._running()
        if self._thread is not None and self._thread.ident == _thread.get_ident():
            raise RuntimeError(
                "a blocking method cannot be called from the event loop thread: in an async "
                "handler it would wait for itself"
            )
        found: _Call[Any] = _Call(self, work)
        self.do(found.start)
        return found

    def stop(self) -> None:
        """At the end of the program: leave what is open, then end the thread."""
        self._is_ending = True
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


def begin(work: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> _Call[T]:
    """Start ``work`` in the loop and do not wait; its result is awaited there if it can be."""
    return _current.start(functools.partial(work, *args, **options))


def result_of(begun: _Call[T]) -> T:
    """Wait for a result."""
    return begun.result()


def call(work: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
    """Run ``work`` in the loop and wait for its result.

    Whatever interrupts the waiting (Ctrl+C) cancels the work. Raises ``RuntimeError`` in the
    loop's own thread, that is inside an ``async`` handler, which would wait for itself.
    """
    begun = begin(work, *args, **options)
    try:
        return begun.result()
    except BaseException:
        begun.cancel()
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


class _Guarded:
    """A function of the user's that the loop calls; ``sys.exit()`` in it does not end the loop.

    Two of them are equal if their functions are, so that ``off`` finds what ``on`` was given.
    """

    def __init__(self, function: Callable[..., Any], *, in_thread: bool = False) -> None:
        self._function = function
        self._run = functools.partial(_run_in_thread, function) if in_thread else function
        functools.update_wrapper(self, function)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Guarded) and other._function == self._function

    def __hash__(self) -> int:
        return hash(self._function)

    async def __call__(self, *args: Any) -> Any:
        try:
            return await self._run(*args)
        except (KeyboardInterrupt, SystemExit):
            # Meant for the program; here it would end the loop, and nobody would notice.
            _interrupt()


async def _run_in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Run a plain function in a worker thread; returns its result."""

    def run() -> Any:
        try:
            return function(*args)
        except (KeyboardInterrupt, SystemExit):
            # Meant for the program; here it would end the worker thread only.
            _interrupt()

    # No limit on threads: forty handlers that wait must not stop the forty-first. A thread that
    # hangs is abandoned when the client ends, and does not keep the program alive.
    result = await anyio.to_thread.run_sync(
        run, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(math.inf)
    )
    # A coroutine comes from an object with an async __call__, or a lambda around a coroutine.
    return await result if inspect.iscoroutine(result) else result


def threaded(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` for the loop to call: an ``async`` one in the loop, any other in a thread."""
    if not callable(function) or isinstance(function, _Guarded):
        return function
    return _Guarded(function, in_thread=not inspect.iscoroutinefunction(function))


def around(middleware: Callable[..., Any]) -> Callable[..., Any]:
    """A plain middleware in a worker thread, where ``call_next`` waits for what comes next."""
    if not callable(middleware) or inspect.iscoroutinefunction(middleware):
        return threaded(middleware)
    in_thread = _Guarded(middleware, in_thread=True)

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

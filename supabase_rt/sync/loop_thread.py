"""The thread with the event loop of all blocking clients, and the calls into it.

A signal handler can interrupt the main thread at any step, and ``__del__`` can interrupt any
thread. Both may call a client. So the code here takes no lock that the interrupted thread could
already hold, because the loop would wait for it for ever. It uses only atomic steps: one
``_thread`` lock for each call, and ``call_soon_threadsafe``.
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
"""Seconds for the clients to leave their channels when the program ends."""
END_TIMEOUT = 3.0
"""Seconds for the loop's thread to end after that."""
LOOK_AGAIN = 0.5
"""Seconds between two checks of a waiting thread for an interruption."""
STUCK_AFTER = 15.0
"""Seconds without a turn of the loop after which a call fails instead of waiting on."""


class _Call(Generic[T]):
    """Work in the loop, and its result for the calling thread."""

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
        """Start the work; runs in the loop."""
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
            # If the caller has not cancelled the work, the end of the loop has cancelled it.
            task = asyncio.current_task()
            of_loop = not self._is_cancelled and task is not None and task.cancelling() > 0
            self._end(None, _ended() if of_loop else concurrent.futures.CancelledError())
            raise
        except BaseException as exc:
            # The error belongs to the caller, also SystemExit: the loop serves all clients.
            self._end(None, exc)
        else:
            self._end(result, None)

    def _end(self, result: Any, error: BaseException | None) -> None:
        self._result, self._error = result, error
        self._ended.release()

    def cancel(self) -> None:
        """Cancel the work, without waiting for its end."""
        self._is_cancelled = True
        with contextlib.suppress(RuntimeError, InvalidState):  # the loop is over
            self._background.do(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def result(self) -> T:
        """Wait for the result, in short turns.

        Ctrl+C does not interrupt a thread just before it waits for a lock. On Windows it never
        interrupts the wait.
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
        # The async clients and not their facades: a connected client lives on after the function
        # that made its facade has returned.
        self.open: weakref.WeakSet[RealtimeClient] = weakref.WeakSet()
        self.is_over: bool = False
        self._is_ending = False
        self._is_begun = False
        self._claim = _thread.allocate_lock()
        """Held by the one thread that runs the loop; more may be started by a race."""
        self._is_up = _thread.allocate_lock()
        self._is_up.acquire()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    def _running(self) -> asyncio.AbstractEventLoop:
        """Returns the loop, and starts it before the first call."""
        if self._loop is None:
            # An interruption here (Ctrl+C, or a call from a signal handler) may lead to a second
            # thread. The second thread cannot take the claim, and ends at once.
            if not self._is_begun:
                self._begin()
            while self._loop is None and not self.is_over:
                if self._is_up.acquire(timeout=LOOK_AGAIN):
                    self._is_up.release()
        if self._loop is None:
            raise _ended()
        return self._loop

    def _begin(self) -> None:
        # A daemon thread does not keep the program alive; atexit leaves the channels.
        threading.Thread(target=self._run, name="supabase_rt:sync", daemon=True).start()
        self._is_begun = True

    def _run(self) -> None:
        if not self._claim.acquire(blocking=False):
            return
        self._thread = threading.current_thread()
        interrupted = False
        try:
            anyio.run(self._serve)
        except (KeyboardInterrupt, SystemExit):
            interrupted = True
        except BaseException:
            log.exception("the loop of the blocking clients failed")
        finally:
            self._over()
        if interrupted:
            _interrupt()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_up.release()
        await self._ending.wait()
        leaving = [client.__aexit__(None, None, None) for client in list(self.open)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT):
                await asyncio.gather(*leaving, return_exceptions=True)
        # The end of the loop cancels all calls that other threads still wait for.

    def _over(self) -> None:
        """Replace the loop after an unexpected end."""
        global _current
        self.is_over = True
        if not self._is_ending and _current is self:
            fresh = _Background()
            for client in list(self.open):
                client.__client_parts__.connection.loop.lose()
                fresh.open.add(client)
            _current = fresh
        with contextlib.suppress(RuntimeError):
            self._is_up.release()

    def do(self, what: Callable[[], object]) -> None:
        """Schedule a call in the loop; raises ``InvalidState`` if the loop has ended."""
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
        """Start ``work`` in the loop."""
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
        """Leave all channels and end the thread, when the program ends."""
        self._is_ending = True
        if self._thread is None or self._loop is None:
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ending.set)
        # The timeout is for an async handler that blocks the loop for ever.
        self._thread.join(LEAVE_TIMEOUT + END_TIMEOUT)


_current = _Background()


def _forked() -> None:
    """Start anew in a forked child, which has the objects of the thread but not the thread."""
    global _current
    _current = _Background()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
# Registered at import, so before the user's atexit handlers. atexit handlers run in reverse order,
# and may still call a client.
atexit.register(lambda: _current.stop())


def on_exit(client: RealtimeClient) -> None:
    """Have ``client`` leave its channels when the program ends, if it still exists."""
    _current.open.add(client)


def begin(work: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> _Call[T]:
    """Start ``work`` in the loop without waiting; an awaitable result is awaited there."""
    return _current.start(functools.partial(work, *args, **options))


def result_of(begun: _Call[T]) -> T:
    """Wait for the result of ``begin``."""
    return begun.result()


def call(work: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
    """Run ``work`` in the loop and wait for its result.

    An interruption of the wait, such as Ctrl+C, cancels the work. Raises ``RuntimeError`` in the
    loop's own thread: an ``async`` handler would wait for itself.
    """
    begun = begin(work, *args, **options)
    try:
        return begun.result()
    except BaseException:
        begun.cancel()
        raise


def ask(work: Callable[..., T], *args: Any, **options: Any) -> T:
    """Do as ``call``, but never await the result: a channel is awaitable, and is returned."""

    async def run() -> T:
        return work(*args, **options)

    return call(run)


def _interrupt() -> None:
    """Interrupt the main thread as Ctrl+C does."""
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
        # This comes first, because it copies the attributes of a callable object under any names.
        functools.update_wrapper(self, function)
        self._function = function
        self._run = functools.partial(_run_in_thread, function) if in_thread else function

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Guarded) and other._function == self._function

    def __hash__(self) -> int:
        return hash(self._function)

    async def __call__(self, *args: Any) -> Any:
        try:
            return await self._run(*args)
        except (KeyboardInterrupt, SystemExit):
            # The exit is meant for the program; here it would end the loop silently.
            _interrupt()


async def _run_in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Run a plain function in a worker thread; returns its result."""

    def run() -> Any:
        try:
            return function(*args)
        except (KeyboardInterrupt, SystemExit):
            # The exit is meant for the program; here it would end the worker thread only.
            _interrupt()

    # There is no limit on threads: a fortieth waiting handler must not stop the next one. A thread
    # that hangs is abandoned when the client ends, and does not keep the program alive.
    result = await anyio.to_thread.run_sync(
        run, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(math.inf)
    )
    # A coroutine comes from an object with an async __call__, or a lambda around a coroutine.
    return await result if inspect.iscoroutine(result) else result


def threaded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``function`` for the loop: an ``async`` one runs in the loop, any other in a thread."""
    if not callable(function) or isinstance(function, _Guarded):
        return function
    return _Guarded(function, in_thread=not inspect.iscoroutinefunction(function))


def around(middleware: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a middleware: a plain one runs in a worker thread, where ``call_next`` blocks."""
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

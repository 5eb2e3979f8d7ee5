"""The event loop that a client is bound to: the first one it is used in."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import sys
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Final

from .._printable import get_logger
from ..errors import InvalidState
from .log_fields import facts

__all__ = ["LoopBinding", "wake"]

log: Final = get_logger("supabase_rt")

_bound: weakref.WeakSet[LoopBinding] = weakref.WeakSet()
"""Every binding of this process that has adopted a loop."""


def _forked() -> None:
    """Release the loops of the parent in the child, where they do not run."""
    for binding in list(_bound):
        binding.after_fork()
    _bound.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def wake(waiter: asyncio.Future[None] | None) -> None:
    """Wake the awaiter of this future, unless the future is done or its loop is closed."""
    if waiter is not None and not waiter.done() and not waiter.get_loop().is_closed():
        waiter.set_result(None)


class LoopBinding:
    """Adopts the loop it is first used in; nothing captures a loop before.

    Args:
        is_running: returns True while a task or a timer of the owner is alive in the loop.
        forget_loop: drops what the owner had in a loop that is gone.
    """

    def __init__(self, is_running: Callable[[], bool], forget_loop: Callable[[], None]) -> None:
        self._is_running = is_running
        self._forget_loop = forget_loop
        self.current: asyncio.AbstractEventLoop | None = None
        self.context: contextvars.Context = contextvars.Context()
        """The context of the first use in the loop, for links and timers. They outlive the handler
        that caused them, and must not inherit its context variables.
        """
        self._is_of_parent = False

    @property
    def is_loop_running(self) -> bool:
        """False if nothing can be awaited any more: the caller is being garbage-collected."""
        return self.current is not None and self.current.is_running()

    def now(self) -> float:
        """Returns seconds by the loop's clock; before there is a loop, by the clock that loops
        use.
        """
        return time.monotonic() if self.current is None else self.current.time()

    def enter(self, *, required: str | None = None, is_wish: bool = False) -> bool:
        """Adopt the running loop. Returns False if no loop runs.

        With ``is_wish`` the program gets a warning at its end if no loop ever ran. Raises
        ``RuntimeError`` if no loop runs and the call named ``required`` needs one. Raises
        ``InvalidState`` if the client is at work in another loop.
        """
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is None:
            self._check_process()
            if required is not None:
                raise RuntimeError(
                    f"{required}() needs a running event loop; call it from async code "
                    "(on, subscribe, connect and set_auth(token) may be called before)"
                )
            if self.is_loop_running:
                raise InvalidState(
                    "this client is at work in another thread",
                    hint="call it through loop.call_soon_threadsafe",
                )
            if is_wish:
                _wanted_without_loop()
            return False
        if self.current is running:
            return True
        self._check_process()
        if self.current is not None:
            self._leave(self.current)
        self.current = running
        self.context = contextvars.copy_context()
        _Process.has_run = True
        _bound.add(self)
        return True

    def _check_process(self) -> None:
        if self._is_of_parent:
            raise InvalidState(
                "this client is at work in the parent process",
                hint="make a client in the child, or fork before the first one connects",
            )

    def _leave(self, old: asyncio.AbstractEventLoop) -> None:
        if self._is_running() and not old.is_closed():
            raise InvalidState(
                "this client is at work in another event loop",
                hint="make one client for each loop; from another thread use "
                "loop.call_soon_threadsafe",
            )
        self._forget_loop()

    def lose(self) -> None:
        """Release a loop that ended by itself; the next use adopts another one."""
        if self.current is not None:
            self._forget_loop()
            self.current = None

    def after_fork(self) -> None:
        """Release the loop of the parent process, whose sockets are not ours to write to."""
        self._is_of_parent = self._is_running()
        if not self._is_of_parent:
            self._forget_loop()
        self.current = None

    def call_in_loop(self, work: Callable[[], object]) -> None:
        """Call ``work`` in the loop; the garbage collector may run the caller in any thread."""
        loop = self.current
        try:
            is_here = asyncio.get_running_loop() is loop
        except RuntimeError:
            is_here = False
        if is_here or loop is None or not loop.is_running():
            work()
            return
        with contextlib.suppress(RuntimeError):  # it was closed meanwhile
            loop.call_soon_threadsafe(work)

    def warn_unclosed(self, host: str) -> None:
        """Warn that the client was garbage-collected while at work in this process."""
        if not self._is_of_parent:
            text = "await client.disconnect(), or use async with"
            warnings.warn(f"unclosed RealtimeClient of {host}: {text}", ResourceWarning, 2)


class _Process:
    is_watched: bool = False
    has_run: bool = False


def _wanted_without_loop() -> None:
    """Note that a client wants a connection and no loop runs yet."""
    if not (_Process.is_watched or _Process.has_run):
        _Process.is_watched = True
        # atexit calls the last function registered first, so logging still works in this one.
        atexit.register(_at_exit)


def _at_exit() -> None:
    # A program that ended with a traceback has shown why its loop never ran.
    if not _Process.has_run and not hasattr(sys, "last_type"):
        log.warning(
            "nothing was connected: a channel was subscribed or connect() called, but no event "
            "loop ran before the program ended; end it with supabase.realtime.run()",
            extra=facts(),
        )

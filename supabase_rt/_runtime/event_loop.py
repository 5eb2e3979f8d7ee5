"""Which event loop an object belongs to, and its one timer there."""

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

__all__ = ["LoopBound", "loop_ran", "wake", "wanted_without_loop"]


_bound: weakref.WeakSet[LoopBound] = weakref.WeakSet()
"""Whatever has adopted a loop in this process."""


def _forked() -> None:
    """In the child: sockets of the parent are not ours to write to, and its loop does not run."""
    for each in list(_bound):
        each.is_of_parent = each.is_running
        if not each.is_of_parent:
            each.forget_loop()
        each.loop = None
    _bound.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def wake(waiter: asyncio.Future[None] | None) -> None:
    """Let go on who waits for this, if anybody still does: a loop may have ended under it."""
    if waiter is not None and not waiter.done() and not waiter.get_loop().is_closed():
        waiter.set_result(None)


class LoopBound:
    """Adopts the loop it is first used in; nothing captures a loop before.

    The owner says whether it ``is_running``, and what to drop in ``forget_loop``.
    """

    loop: asyncio.AbstractEventLoop | None = None
    context: contextvars.Context
    """That of the first use in the loop, for whatever lives on: else a link that a handler made
    or a timer that it set would be a part of this handler."""
    is_of_parent = False
    """Whether this process is the child of the one that it is at work in."""

    @property
    def is_running(self) -> bool:
        """Whether a task or a timer of this object is alive in its loop."""
        return False

    def forget_loop(self) -> None:
        """Drop what belonged to a loop that is gone."""

    def lose_loop(self) -> None:
        """The loop ended under it, and not by a call of ours: what is used next is another one."""
        if self.loop is not None:
            self.forget_loop()
            self.loop = None

    @property
    def is_loop_running(self) -> bool:
        """False where nothing can be awaited any more: what runs then is collected."""
        return self.loop is not None and self.loop.is_running()

    def in_loop(self, work: Callable[[], object]) -> None:
        """Do what has to be done in the loop: who is collected may be so in any thread."""
        loop = self.loop
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
        """Collected while at work."""
        if not self.is_of_parent:
            text = "await client.disconnect(), or use async with"
            warnings.warn(f"unclosed RealtimeClient of {host}: {text}", ResourceWarning, 2)

    def now(self) -> float:
        """Seconds by the loop's clock; before there is a loop, by the clock loops use."""
        return time.monotonic() if self.loop is None else self.loop.time()

    def enter_loop(self, *, required: str | None = None, is_wish: bool = False) -> bool:
        """Adopt the running loop; False where none runs: a wish then waits for one.

        Raises ``RuntimeError`` where a loop is ``required`` (the name of the call) and none
        runs, and ``InvalidState`` where the client is at work in another loop.
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
            if self.loop is not None and self.loop.is_running():
                raise InvalidState(
                    "this client is at work in another thread",
                    hint="call it through loop.call_soon_threadsafe",
                )
            if is_wish:
                wanted_without_loop()
            return False
        if self.loop is running:
            return True
        self._check_process()
        if self.loop is not None:
            self._leave_loop(self.loop)
        self.loop = running
        self.context = contextvars.copy_context()
        loop_ran()
        _bound.add(self)
        return True

    def _check_process(self) -> None:
        if self.is_of_parent:
            raise InvalidState(
                "this client is at work in the parent process",
                hint="make a client in the child, or fork before the first one connects",
            )

    def _leave_loop(self, old: asyncio.AbstractEventLoop) -> None:
        if self.is_running and not old.is_closed():
            raise InvalidState(
                "this client is at work in another event loop",
                hint="make one client for each loop; from another thread use "
                "loop.call_soon_threadsafe",
            )
        self.forget_loop()


log: Final = get_logger("supabase_rt")


class _Process:
    is_watched: bool = False
    has_run: bool = False


def wanted_without_loop() -> None:
    """Somebody subscribed or connected where no loop runs, which may still come."""
    if not (_Process.is_watched or _Process.has_run):
        _Process.is_watched = True
        # Later than logging's own, and so called before it.
        atexit.register(_at_exit)


def loop_ran() -> None:
    """A client is at work in a loop."""
    _Process.has_run = True


def _at_exit() -> None:
    # A program that ended with a traceback has told what kept it from its loop.
    if not _Process.has_run and not hasattr(sys, "last_type"):
        log.warning(
            "nothing was connected: a channel was subscribed or connect() called, but no event "
            "loop ran before the program ended; end it with supabase.realtime.run()",
            extra=facts(),
        )

"""Which event loop an object belongs to, and its one timer there."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import time
import warnings
import weakref
from collections.abc import Callable

from ..errors import InvalidState
from .unstarted import loop_ran, wanted_without_loop

__all__ = ["Alarm", "LoopBound", "wake"]


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


class Alarm:
    """One timer. It is moved forward only: set to later, it rings for nothing once, and is then
    set anew. Every request has a deadline and nearly every one is answered before it, and a timer
    that came and went with each would cost more than the request.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._at: float | None = None
        self._handle: asyncio.TimerHandle | None = None

    def set(
        self, loop: asyncio.AbstractEventLoop, at: float | None, context: contextvars.Context
    ) -> None:
        """Ring at ``at`` by the loop's clock or before, or not at all."""
        if at is None:
            self._stop()
        elif self._at is None or at < self._at:
            self._stop()
            self._at = at
            self._handle = loop.call_at(at, self._rang, context=context.copy())

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self.forget()

    def _rang(self) -> None:
        self.forget()
        self._ring()

    def forget(self) -> None:
        """The timer rang, or its loop is gone."""
        self._at = self._handle = None

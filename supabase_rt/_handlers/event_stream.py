"""The events of a channel as an async iterator, and the next one that fits.

Both are registrations like any handler, so several may run at once and each sees every event.
The channel holds a stream weakly: an ``async for`` that is left by ``break`` drops its iterator
without a word, and only collection tells.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

from .._protocol.channel_options import MAXBYTES
from .._runtime.event_loop import LoopBinding, wake
from .._runtime.outcome import Outcome
from .handler import Drops, Registration, Reports

__all__ = ["Stream", "wait_for_event", "weak_handler"]

P = TypeVar("P")


class Stream(Generic[P]):
    """An async iterator over the events of one filter; also an async context manager.

    Ends when the channel is closed; raises the error that ended the channel, if one did. At most
    ``maxsize`` events wait, of ``maxbytes`` bytes; then the oldest is dropped, counted and told
    by a ``gap`` event.
    """

    def __init__(
        self, reports: Reports, source: str, maxsize: int, maxbytes: int = MAXBYTES
    ) -> None:
        self._drops = Drops(reports, source)
        self._stopwatch = reports.stopwatch
        self._maxsize = maxsize
        self._maxbytes = maxbytes
        self._waiting: deque[P] = deque()
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._wakeup: asyncio.Future[None] | None = None
        self._over = False
        self._error: BaseException | None = None
        self._registration: Registration | None = None
        self._owner: LoopBinding | None = None

    def _attach(self, registration: Registration, owner: LoopBinding) -> None:
        self._registration, self._owner = registration, owner

    def _take(self, payload: P) -> None:
        size = self._stopwatch.size
        while self._waiting and (
            len(self._waiting) >= self._maxsize or self._bytes + size > self._maxbytes
        ):
            self._next_in_line()
            self._drops.add()
        self._waiting.append(payload)
        self._sizes.append(size)
        self._bytes += size
        self._wake()

    def _next_in_line(self) -> P:
        self._bytes -= self._sizes.popleft()
        return self._waiting.popleft()

    def _forget(self) -> None:
        """What waits is not wanted any more."""
        self._waiting.clear()
        self._sizes.clear()
        self._bytes = 0

    def _wake(self) -> None:
        wake(self._wakeup)

    def _end(self, error: BaseException | None) -> None:
        """The channel is over: what waits is still handed out, then the iteration ends."""
        if not self._over:
            self._over = True
            self._error = error
            self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> P:
        while not self._waiting:
            if self._over:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            if self._wakeup is not None and not self._wakeup.done():
                raise RuntimeError("this stream is being read already; make one for each reader")
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                await self._wakeup
            finally:
                self._wakeup = None
        return self._next_in_line()

    async def aclose(self) -> None:
        """Stop listening; what waits is dropped."""
        self._release()

    def _release(self) -> None:
        self._forget()
        if self._registration is not None:
            self._registration.end()
        self._end(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        owner, registration = getattr(self, "_owner", None), getattr(self, "_registration", None)
        if owner is not None and registration is not None:
            owner.call_in_loop(registration.end)


def weak_handler(stream: Stream[Any]) -> Callable[[Any], None]:
    """A handler that feeds the stream as long as somebody else keeps it."""
    found = weakref.ref(stream)

    def feed(payload: Any) -> None:
        target = found()
        if target is not None:
            target._take(payload)

    return feed


def wait_for_event(
    outcome: Outcome[Any], check: Callable[[Any], Any] | None
) -> Callable[[Any], None]:
    """A handler that settles ``outcome`` with the first payload that passes ``check``."""
    found = weakref.ref(outcome)

    def offer(payload: Any) -> None:
        outcome = found()
        if outcome is None:
            return
        try:
            fits = check is None or check(payload)
        except Exception as exc:
            outcome.fail(exc)
            return
        if fits:
            outcome.succeed(payload)

    return offer

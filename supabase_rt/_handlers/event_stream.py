"""The events of a channel as an async iterator, and the next event that fits.

Both are handlers like any other, so several may run at once and each of them sees every event.
The channel holds a stream weakly: ``break`` in an ``async for`` drops the iterator silently, and
only garbage collection shows that it is gone.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, Self, TypeVar

from .._protocol.channel_options import MAXBYTES
from .._runtime.event_loop import wake
from .._runtime.outcome import Outcome
from .handler import Handler, Reports
from .queue_bounds import Drops

__all__ = ["LoopOwner", "Stream", "wait_for_event", "weak_handler"]

P = TypeVar("P")


class LoopOwner(Protocol):
    """The connection, which knows the event loop of its client."""

    def call_in_loop(self, call: Callable[[], Any], /) -> None:
        """Calls a function in that loop; from any thread."""


class Stream(Generic[P]):
    """An async iterator over the events of one filter; also an async context manager.

    It ends when the channel is closed, with the error that closed it if there was one. At most
    ``maxsize`` events of ``maxbytes`` bytes wait; then the oldest is dropped, counted and
    reported by a ``gap`` event.
    """

    def __init__(
        self,
        reports: Reports,
        source: str,
        maxsize: int,
        maxbytes: int = MAXBYTES,
        on_taken: Callable[[bool], None] | None = None,
    ) -> None:
        self._drops = Drops(reports.events_dropped, source)
        self._stopwatch = reports.stopwatch
        self._maxsize = maxsize
        self._maxbytes = maxbytes
        self._on_taken = on_taken
        """Called with True when the last event has been dealt with, with False if it is dropped."""
        self._waiting: deque[P] = deque()
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._wakeup: asyncio.Future[None] | None = None
        self._over = False
        self._error: BaseException | None = None
        self._handler: Handler | None = None
        self._owner: LoopOwner | None = None

    def attach(self, handler: Handler, owner: LoopOwner) -> None:
        """Names the handler that feeds the stream; it ends with the stream."""
        self._handler, self._owner = handler, owner

    def put(self, payload: P) -> None:
        """Adds one event; drops the oldest ones if there is no room."""
        size = self._stopwatch.size
        while self._waiting and (
            len(self._waiting) >= self._maxsize or self._bytes + size > self._maxbytes
        ):
            self._pop()
            self._drops.add()
        self._waiting.append(payload)
        self._sizes.append(size)
        self._bytes += size
        wake(self._wakeup)

    def _pop(self) -> P:
        self._bytes -= self._sizes.popleft()
        return self._waiting.popleft()

    def release(self) -> None:
        """Drops the events that wait; the one that was given out counts as dealt with."""
        if self._on_taken is not None:
            self._on_taken(not self._waiting)
        self._waiting.clear()
        self._sizes.clear()
        self._bytes = 0

    def end(self, error: BaseException | None) -> None:
        """The channel has ended: waiting events are still handed out, then the iteration ends."""
        if not self._over:
            self._over = True
            self._error = error
            wake(self._wakeup)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> P:
        if self._on_taken is not None and not self._waiting:
            self._on_taken(True)
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
        return self._pop()

    async def aclose(self) -> None:
        """Stops listening; waiting events are dropped."""
        self.release()
        if self._handler is not None:
            self._handler.end()
        self.end(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        owner, handler = getattr(self, "_owner", None), getattr(self, "_handler", None)
        if owner is None or handler is None:
            return
        if self._on_taken is not None:
            owner.call_in_loop(functools.partial(self._on_taken, not self._waiting))
        owner.call_in_loop(handler.end)


def weak_handler(stream: Stream[Any]) -> Callable[[Any], None]:
    """Returns a function that feeds the stream as long as its user keeps it."""
    found = weakref.ref(stream)

    def feed(payload: Any) -> None:
        target = found()
        if target is not None:
            target.put(payload)

    return feed


def wait_for_event(
    outcome: Outcome[Any], check: Callable[[Any], Any] | None
) -> Callable[[Any], None]:
    """Returns a function that settles ``outcome`` with the first payload that passes ``check``."""
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

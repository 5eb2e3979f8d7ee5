"""A stream that says when an event is done with: for ``stream(..., backfill=...)``.

The next event is given out when it is asked for, and by that the one before counts as handled; so
does the last one when the loop is left. Others wait in the queue of the registration, where they
can be read again if the program ends.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from typing import Any, TypeVar

from .._handlers.event_stream import Stream
from .._handlers.handler import Reports

__all__ = ["Feed", "HandOver", "Unhandled"]

P = TypeVar("P")


class Unhandled(Exception):
    """Raised by a feed that could not hand its event on; nobody is told."""


class HandOver(Stream[P]):
    """As ``Stream``, one event at a time."""

    def __init__(self, reports: Reports, source: str) -> None:
        super().__init__(reports, source, 1)
        self._done: asyncio.Future[None] | None = None

    def offer(self, payload: P) -> asyncio.Future[None]:
        """Give out an event; the future ends when it is done with."""
        self._done = done = asyncio.get_running_loop().create_future()
        self._take(payload)
        return done

    async def __anext__(self) -> P:
        if not self._waiting:
            self.let_go()
        return await super().__anext__()

    def let_go(self) -> None:
        """What was taken is done with; what was not is not going to be."""
        if self._done is None or self._done.done():
            return
        is_taken = not self._waiting
        self._forget()
        _settle(self._done, is_taken)

    def _release(self) -> None:
        self.let_go()
        super()._release()

    def __del__(self) -> None:
        done = getattr(self, "_done", None)
        if done is not None and self._owner is not None:
            self._owner.call_in_loop(functools.partial(_settle, done, not self._waiting))
        super().__del__()


def _settle(done: asyncio.Future[None], is_taken: bool) -> None:
    if done.done():
        return
    if is_taken:
        done.set_result(None)
    else:
        done.set_exception(Unhandled())


class Feed:
    """The handler that feeds a stream, which somebody else keeps."""

    def __init__(self, stream: HandOver[Any]) -> None:
        self._stream = weakref.ref(stream)

    async def __call__(self, payload: Any) -> None:
        stream = self._stream()
        if stream is None:
            raise Unhandled
        done = stream.offer(payload)
        # Else a loop that was left could not be told by its stream being collected.
        del stream
        await done

    def release(self) -> None:
        """The worker should end: do not wait for whoever reads the stream."""
        stream = self._stream()
        if stream is not None:
            stream.let_go()

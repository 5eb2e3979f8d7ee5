"""The stream of ``stream(..., backfill=...)``, which says when an event has been handled.

It gives out one event at a time. An event counts as handled when the next one is asked for, or
when the loop over the stream is left. All others wait in the queue of the handler, so they can be
read again if the program ends.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from .._handlers.event_stream import Stream
from .._handlers.handler import Reports

__all__ = ["StreamHandler", "Unhandled", "backfill_stream"]


class Unhandled(Exception):
    """The reader of the stream did not get the event, and nobody is told of this error."""


class StreamHandler:
    """The function that is registered for a stream; it returns when its event is handled."""

    def __init__(self) -> None:
        self._stream: weakref.ref[Stream[Any]] | None = None
        self._handled: asyncio.Future[None] | None = None

    def attach(self, stream: Stream[Any]) -> None:
        """Names the stream, which must be kept alive by its user."""
        self._stream = weakref.ref(stream)

    async def __call__(self, payload: Any) -> None:
        stream = None if self._stream is None else self._stream()
        if stream is None:
            raise Unhandled
        self._handled = handled = asyncio.get_running_loop().create_future()
        stream.put(payload)
        # While this waits, it must not keep a stream alive whose loop was left by ``break``.
        del stream
        await handled

    def taken(self, is_taken: bool) -> None:
        """Ends the wait for an event: it was handled, or nobody will take it."""
        handled = self._handled
        if handled is None or handled.done():
            return
        if is_taken:
            handled.set_result(None)
        else:
            handled.set_exception(Unhandled())

    def release(self) -> None:
        """Stops the wait for the reader of the stream, because the worker should end."""
        stream = None if self._stream is None else self._stream()
        if stream is not None:
            stream.release()


def backfill_stream(reports: Reports, source: str) -> tuple[Stream[Any], StreamHandler]:
    """Makes a stream, and the function that has to be registered for it."""
    function = StreamHandler()
    stream: Stream[Any] = Stream(reports, source, 1, on_taken=function.taken)
    function.attach(stream)
    return stream, function

"""SIGINT and SIGTERM as the end of a client, unless the program handles them itself."""

from __future__ import annotations

import asyncio
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TypeAlias

__all__ = ["handle_signals"]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

Stop: TypeAlias = Callable[[signal.Signals], object]


@contextmanager
def handle_signals(stop: Stop, wanted: bool | None = None) -> Iterator[None]:
    """Calls ``stop`` at SIGINT or SIGTERM; the handlers found before are put back at the end.

    With None, only signals are taken that the program does not handle; with True all of them, with
    False none. The earlier handlers are put back at the first signal, so a second signal has its
    usual effect. ``stop`` runs in the main thread, between any two instructions of the program.

    Raises ``RuntimeError`` for True outside the main thread, where Python sets no handlers.
    """
    taken: list[_EndingHandler] = []
    if threading.current_thread() is threading.main_thread():
        taken = [found for number in SIGNALS if (found := _take(number, stop, wanted))]
    elif wanted:
        raise RuntimeError("handle_signals=True works in the main thread only")
    try:
        yield
    finally:
        for handler in taken:
            handler.release(stop)


def _take(number: signal.Signals, stop: Stop, wanted: bool | None) -> _EndingHandler | None:
    found = signal.getsignal(number)
    if wanted is False or found is None:
        # None means that a library in C set the handler, which Python could not put back.
        return None
    if isinstance(found, _EndingHandler):
        # Another client runs in this program; the signal ends both.
        found.stops.append(stop)
        return found
    if not wanted and not _is_default(found):
        return None
    handler = _EndingHandler(number, found, stop)
    signal.signal(number, handler)
    return handler


def _is_default(handler: Any) -> bool:
    """Returns whether Python or ``asyncio.Runner`` set the handler, and not the program."""
    if isinstance(handler, functools.partial):
        # ``asyncio.run`` sets one for SIGINT, which cancels the main task.
        method = getattr(handler.func, "__func__", None)
        return method is not None and method is getattr(asyncio.Runner, "_on_sigint", None)
    return handler in (signal.SIG_DFL, signal.default_int_handler)


class _EndingHandler:
    """The handler of one signal, for all clients that end at this signal."""

    def __init__(self, number: signal.Signals, found: Any, stop: Stop) -> None:
        self._number = number
        self._found = found
        self.stops: list[Stop] = [stop]

    def __call__(self, number: int, frame: FrameType | None) -> None:
        stops, self.stops = self.stops, []
        self._put_back()
        for stop in stops:
            stop(self._number)

    def release(self, stop: Stop) -> None:
        """Forgets one client; after the last one the earlier handler is put back."""
        if stop in self.stops:
            self.stops.remove(stop)
            if not self.stops:
                self._put_back()

    def _put_back(self) -> None:
        # The program may have set a handler meanwhile; then that one stays.
        present: object = signal.getsignal(self._number)
        if present is self:
            signal.signal(self._number, self._found)

"""The main line of a bot: stay until told to stop, then leave cleanly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from .._connection.connection import Connection
from .._printable import get_logger
from .._runtime.log_fields import facts
from ..errors import ConnectionFailed

__all__ = ["is_in_loop", "run_until_stopped"]

log: Final = get_logger("supabase_rt")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """Set ``stop`` at SIGINT or SIGTERM. A second signal does what it always did."""
    loop = asyncio.get_running_loop()
    installed: list[signal.Signals] = []

    def remove() -> None:
        while installed:
            loop.remove_signal_handler(installed.pop())

    def told(number: signal.Signals) -> None:
        log.info("%s: leaving", number.name, extra=facts(signal=number.name))
        stop.set()
        remove()

    for number in SIGNALS:
        try:
            loop.add_signal_handler(number, told, number)
        except (NotImplementedError, RuntimeError, ValueError):
            # Windows, or not the main thread: Ctrl+C then cancels the task that runs us.
            continue
        installed.append(number)
    try:
        yield
    finally:
        remove()


def is_in_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def run_until_stopped(connection: Connection, leave: Callable[[], Awaitable[None]]) -> None:
    """Wait for a signal or the end of the client; raises the final error if one ended it."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    ends = [
        loop.create_task(connection.wait_closed(), name="supabase_rt:wait_closed"),
        loop.create_task(stop.wait(), name="supabase_rt:signals"),
    ]
    with _signals(stop):
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            try:
                await asyncio.gather(*ends, return_exceptions=True)
            finally:
                # Cancelled right here, too: nobody is left who would do it later.
                gave_up = connection.gave_up
                await leave()
    if gave_up is None:
        return
    cause = gave_up.__cause__
    if isinstance(cause, ConnectionFailed) and not cause.retryable and not connection.ever_open:
        # Without the trace of the attempt: what the user reads is what to mend, and that is told.
        raise cause.with_traceback(None)
    raise gave_up.with_traceback(None)

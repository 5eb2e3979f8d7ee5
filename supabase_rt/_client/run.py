"""The main line of a bot: run until a signal or the end of the client, then leave cleanly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from .._connection.connection import Connection
from .._printable import get_logger
from .._runtime.log_fields import facts
from ..errors import ConnectionFailed
from .signals import handle_signals

__all__ = ["is_in_loop", "run_until_stopped"]

log: Final = get_logger("supabase_rt")


def is_in_loop() -> bool:
    """Returns whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def run_until_stopped(
    connection: Connection, leave: Callable[[], Awaitable[None]], signals: bool | None
) -> None:
    """Connects, then waits for a signal or the end of the client.

    Raises the final error if one ended it.
    """
    if not isinstance(signals, bool | None):
        raise TypeError(f"handle_signals is True, False or None, not {type(signals).__name__}")
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def log_and_stop(number: signal.Signals) -> None:
        log.info("%s: leaving", number.name, extra=facts(signal=number.name))
        stopped.set()

    def stop(number: signal.Signals) -> None:
        # A signal handler interrupts any code, so nothing else is done in it.
        loop.call_soon_threadsafe(log_and_stop, number)

    with handle_signals(stop, signals):
        connection.connect(patient=True)
        ends = [
            loop.create_task(connection.wait_closed(), name="supabase_rt:wait_closed"),
            loop.create_task(stopped.wait(), name="supabase_rt:signals"),
        ]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            try:
                await asyncio.gather(*ends, return_exceptions=True)
            finally:
                # Even if this task was cancelled during the gather: nobody would leave later.
                gave_up = connection.gave_up
                await leave()
    if gave_up is None:
        return
    cause = gave_up.__cause__
    if isinstance(cause, ConnectionFailed) and not cause.retryable and not connection.ever_open:
        # The message says what to correct; the traceback of the attempt would only hide it.
        raise cause.with_traceback(None)
    raise gave_up.with_traceback(None)

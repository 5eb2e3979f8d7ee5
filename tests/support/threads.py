"""A server in a loop and a thread of its own, for programs that start loops themselves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from supabase_rt.server import LocalRealtime

__all__ = ["threaded_server"]


@contextmanager
def threaded_server(**settings: Any) -> Iterator[LocalRealtime]:
    """Starts and stops a server; its attributes may be read from this thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(5)

    async def make() -> LocalRealtime:
        return await LocalRealtime(**settings).start()

    try:
        server = run(make())
        try:
            yield server
        finally:
            run(server.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()

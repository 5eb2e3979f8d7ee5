"""Work for a request that is cancelled when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiohttp import web

__all__ = ["ClientLeft", "while_connected"]

T = TypeVar("T")
PAUSE = 0.1


class ClientLeft(Exception):
    """The client has disconnected, so no response is needed."""


async def while_connected(request: web.Request, work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` until it is done; raises ``ClientLeft`` if the client disconnects before.

    aiohttp itself could cancel handlers of clients that are gone, but then it would also cancel
    those of open sockets.
    """
    name = "supabase_rt server: a request that asks the database"
    task = asyncio.get_running_loop().create_task(work, name=name)
    try:
        while True:
            await asyncio.wait([task], timeout=PAUSE)
            if task.done():
                return task.result()
            if request.transport is None or request.transport.is_closing():
                raise ClientLeft
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])

"""Requests that are given up when the client hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiohttp import web

__all__ = ["ClientLeft", "while_connected"]

T = TypeVar("T")
PAUSE = 0.1


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


async def while_connected(request: web.Request, work: Coroutine[Any, Any, T]) -> T:
    """Work for a request, until it is done or the client has hung up (``ClientLeft``).

    The server of aiohttp goes on with a request whose client is gone, unless all handlers are to
    be cancelled, those of open sockets too.
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

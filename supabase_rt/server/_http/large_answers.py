"""Answers over HTTP that wait for their reader; they count in the sum of all waiting data."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

from aiohttp import web

from .._machine.memory_bounds import size_of
from .._machine.server_state import Backend

__all__ = ["send_large"]

LARGE = 65_536
"""An answer above this many bytes is counted, and is sent in pieces of this size."""
_numbers = itertools.count(-1, -1)
"""Negative, because sockets have positive numbers."""


class _Answer:
    """An answer on its way, in the form in which waiting data of all clients is counted."""

    def __init__(self, transport: asyncio.Transport, body: bytes) -> None:
        self._transport = transport
        self._body = body

    @property
    def waiting(self) -> int:
        return size_of(self._body)

    def unread(self) -> Iterable[bytes]:
        yield self._body

    def cut(self) -> None:
        self._body = b""
        self._transport.abort()


async def send_large(
    request: web.Request, backend: Backend, response: web.Response
) -> web.StreamResponse:
    """Send an answer, a large one piece by piece.

    If it were sent in one piece, the connection would hold a copy of it. An unread answer counts as
    data that waits for all clients; it is cut if the sum is too large.
    """
    body, transport = response.body, request.transport
    if (
        not isinstance(body, bytes)
        or len(body) <= LARGE
        or transport is None
        or request.method == "HEAD"
    ):
        return response
    headers = {**response.headers, "Content-Length": str(len(body))}
    stream = web.StreamResponse(status=response.status, headers=headers)
    answer, number = _Answer(transport, body), next(_numbers)
    size = answer.waiting
    backend.readers[number] = answer
    backend.outgoing.add(size)
    try:
        await stream.prepare(request)
        for start in range(0, len(body), LARGE):
            await stream.write(body[start : start + LARGE])
        await stream.write_eof()
    except ConnectionError:
        # The client is gone, or was cut; aiohttp notices by itself.
        pass
    finally:
        del backend.readers[number]
        backend.outgoing.take(size)
    return stream

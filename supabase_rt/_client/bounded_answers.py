"""Answers of the other services with a bound: httpx reads and unpacks a body of any size.

A body is unpacked here, piece by piece, instead of by httpx. That one unpacks a piece as a whole,
and by Brotli or Zstandard too where these are installed: a kilobyte may become gigabytes there.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Final

import httpx

from .._runtime.http_session import MOST_ANSWER

__all__ = ["MOST_FILE", "ask_for_gzip", "bounded"]

MOST_FILE: Final = 2**30
"""Bytes of a file of the storage."""
PIECE: Final = 2**18
"""Bytes that are unpacked at once."""
GZIP: Final = zlib.MAX_WBITS | 16
FILES: Final = ("/storage/v1/object/", "/storage/v1/render/")


def ask_for_gzip(request: httpx.Request) -> None:
    """Sets the only packing that ``bounded`` reads."""
    request.headers["accept-encoding"] = "gzip"


def bounded(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    """The same answer, unpacked, whose body raises ``httpx.RequestError`` beyond its bound."""
    is_file = request.method == "GET" and any(part in request.url.path for part in FILES)
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    headers = [
        (name, value)
        for name, value in response.headers.raw
        if packing == "identity" or name.lower() not in (b"content-encoding", b"content-length")
    ]
    body = _Body(request, response, packing, MOST_FILE if is_file else MOST_ANSWER)
    return httpx.Response(
        response.status_code, headers=headers, stream=body, extensions=response.extensions
    )


class _Body(httpx.AsyncByteStream):
    def __init__(
        self, request: httpx.Request, response: httpx.Response, packing: str, most: int
    ) -> None:
        self._request = request
        self._response = response
        self._packing = packing
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._response.stream, httpx.AsyncByteStream)
        gzip = zlib.decompressobj(GZIP) if self._packing in ("gzip", "x-gzip") else None
        if gzip is None and self._packing != "identity":
            problem = "the server packed its answer in a way that was not asked for"
            raise httpx.DecodingError(problem, request=self._request)
        size = 0
        async for raw in self._response.stream:
            for part in (raw,) if gzip is None else self._unpacked(gzip, raw):
                size += len(part)
                if size > self._most:
                    problem = f"the answer is larger than {self._most:,} bytes"
                    raise httpx.RemoteProtocolError(problem, request=self._request)
                yield part
        if gzip is not None:
            # At most the end of one piece: all that came was unpacked above.
            yield gzip.flush()

    def _unpacked(self, gzip: zlib._Decompress, raw: bytes) -> Iterator[bytes]:
        try:
            while raw and not gzip.eof:
                yield gzip.decompress(raw, PIECE)
                raw = gzip.unconsumed_tail
        except zlib.error:
            problem = "the server's answer cannot be unpacked"
        else:
            return
        raise httpx.DecodingError(problem, request=self._request)

    async def aclose(self) -> None:
        await self._response.aclose()

"""The other services of a project: auth, tables, storage and functions (``supabase-rt[full]``).

The clients come from the Supabase packages. Here they get one HTTP connection pool, one set of
headers and one token. This module needs the extra, so it is imported when first used.
"""

from __future__ import annotations

import asyncio
import inspect
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

import httpx
from postgrest import AsyncPostgrestClient
from storage3 import AsyncStorageClient
from supabase_auth import AsyncGoTrueClient
from supabase_functions import AsyncFunctionsClient

from .._printable import get_logger
from .._runtime.http_session import MOST_ANSWER
from .._wire.redirects import is_redirect, redirect_hint

__all__ = ["Services"]

log: Final = get_logger("supabase_rt.services")

TIMEOUT = 60.0
"""Seconds for one request."""

MOST_FILE: Final = 2**30
"""Bytes of a file of the storage."""
PIECE: Final = 2**18
"""Bytes of an answer that are unpacked at once."""
GZIP: Final = zlib.MAX_WBITS | 16
FILES: Final = ("/storage/v1/object/", "/storage/v1/render/")

SIGNED_IN = ("SIGNED_IN", "TOKEN_REFRESHED", "INITIAL_SESSION")


class Services:
    """The clients of one project, made when one of them is first used.

    Args:
        url: the project's URL.
        key: the API key; also the token while nobody is signed in.
        headers: for every request.
        schema: the schema of ``from_`` and ``rpc``.
        auth: keyword options of the auth client.
        access_token: the user's own source of tokens, instead of the auth client.
        moved: called with the token of a new session, and with None at its end.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        headers: Mapping[str, str],
        schema: str,
        auth: Mapping[str, Any],
        access_token: Callable[[], str | Awaitable[str | None] | None] | None,
        moved: Callable[[str | None], None],
    ) -> None:
        self._origin = httpx.URL(url)
        self._key = key
        self._access_token = access_token
        self._moved = moved
        self._last_token: str | None = None
        self._refreshing: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._initialized = False
        common = {**headers, "apikey": key}
        self._transport = _PerLoop()
        self._http = httpx.AsyncClient(
            transport=self._transport,
            event_hooks={"request": [self._authorize]},
            follow_redirects=False,
            timeout=TIMEOUT,
        )
        base = url.rstrip("/")
        self.auth: AsyncGoTrueClient = AsyncGoTrueClient(
            url=f"{base}/auth/v1",
            headers={**common, "Authorization": f"Bearer {key}"},
            http_client=httpx.AsyncClient(
                transport=self._transport, follow_redirects=False, timeout=TIMEOUT
            ),
            **auth,
        )
        self.auth.on_auth_state_change(self._session_changed)
        self.postgrest: AsyncPostgrestClient = AsyncPostgrestClient(
            f"{base}/rest/v1", schema=schema, headers=common, http_client=self._http
        )
        self.storage: AsyncStorageClient = AsyncStorageClient(
            f"{base}/storage/v1/", common, http_client=self._http
        )
        self.functions: AsyncFunctionsClient = AsyncFunctionsClient(
            f"{base}/functions/v1", common, http_client=self._http
        )

    async def token(self) -> str:
        """Returns the user's own token, or that of the session, or the key."""
        if self._access_token is not None:
            found = self._access_token()
            return (await found if inspect.isawaitable(found) else found) or self._key
        # Two requests may find the session expired; a refresh token works only once.
        async with self._lock():
            if not self._initialized:
                self._initialized = True
                await self.auth.initialize()
            session = await self.auth.get_session()
        return session.access_token if session else self._key

    def _lock(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self._refreshing is None or self._refreshing[0] is not loop:
            self._refreshing = (loop, asyncio.Lock())
        return self._refreshing[1]

    async def _authorize(self, request: httpx.Request) -> None:
        """Adds the token to a request that has none yet."""
        if _origin(request.url) != _origin(self._origin):
            # The caller chose another host, which must not see the key.
            request.headers.pop("apikey", None)
        elif "authorization" not in request.headers:
            request.headers["authorization"] = f"Bearer {await self.token()}"

    def _session_changed(self, event: str, session: Any) -> None:
        """Called by the auth client, inside ``sign_in_...`` and the like."""
        if event == "SIGNED_OUT":
            self._last_token = None
            self._moved(None)
            return
        token = session.access_token if session is not None and event in SIGNED_IN else None
        if token is not None and token != self._last_token:
            self._last_token = token
            self._moved(token)

    async def aclose(self) -> None:
        """Closes the connections and stops renewing the session.

        The session is kept, and the next request opens connections again.
        """
        # The auth client has no call to stop its timer, and the timer outlives the client.
        timer = getattr(self.auth, "_refresh_token_timer", None)
        if timer is not None:
            timer.cancel()
        await self._transport.aclose()


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _redirected(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    """Returns a response that each service reads as a refusal, in place of a redirect.

    It has no Location, so httpx cannot follow it under any configuration of its client.
    """
    status = response.status_code
    hint = redirect_hint(response.headers.get("location"), str(request.url))
    text = f"the server answers with a redirect, HTTP {status}: {hint}"
    about = {"message": text, "error": text, "code": f"HTTP{status}", "hint": hint}
    found = {**about, "details": None, "statusCode": status}
    return httpx.Response(status, json=found, request=request)


def _bounded(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    """Returns the same answer, unpacked; its body raises ``httpx.RequestError`` beyond its bound.

    httpx unpacks each piece as a whole, also by Brotli or Zstandard if these are installed. So a
    kilobyte may become gigabytes in memory. Requests therefore accept gzip only, unpacked here.
    """
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
            # This exceeds the bound by the end of one piece at most: the rest was unpacked above.
            yield gzip.flush()

    def _unpacked(self, gzip: Any, raw: bytes) -> Iterator[bytes]:
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


class _PerLoop(httpx.AsyncBaseTransport):
    """An HTTP transport with connections for each event loop, and without redirects.

    ``asyncio.run(sign_in())`` and then ``supabase.realtime.run()`` are two event loops. httpx
    would try to use the connections of the first one in the second.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        loop = asyncio.get_running_loop()
        if self._transport is None or self._loop is not loop:
            self._loop, self._transport = loop, httpx.AsyncHTTPTransport()
        request.headers["accept-encoding"] = "gzip"
        response = await self._transport.handle_async_request(request)
        if not is_redirect(response.status_code):
            return _bounded(request, response)
        await response.aclose()
        return _redirected(request, response)

    async def aclose(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None and self._loop is asyncio.get_running_loop():
            await transport.aclose()

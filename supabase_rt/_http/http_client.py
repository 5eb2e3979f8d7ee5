"""Requests over HTTP, with the key and the token of the client."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import yarl

from .._protocol.reconnect import http_failure
from .._runtime.http_session import (
    AnswerTooLarge,
    TransportOptions,
    close_session,
    cut_on_failure,
    open_session,
    read_answer,
    session_closed,
)
from .._wire.json_codec import dumps, loads
from .._wire.redirects import is_redirect
from .._wire.urls import Endpoint
from ..errors import DecodeError, SendError

__all__ = ["JSON_TYPE", "HttpClient", "reason_in"]

MAX_BYTES_AT_ONCE: Final = 2**16
"""The size of a body above which it is written in pieces."""

JSON_TYPE: Final = "application/json"


@dataclass(slots=True, repr=False)
class HttpClient:
    """Sends requests to the services of one project.

    It has no ``repr``, which would show the key to tools that print local variables.

    Args:
        token: returns the access token; called for every request.
        http: returns the aiohttp session of the connection, or None.
    """

    endpoint: Endpoint
    api_key: str
    options: TransportOptions
    token: Callable[[], str | None]
    http: Callable[[], aiohttp.ClientSession | None]

    async def request(
        self,
        method: str,
        url: str,
        content_type: str,
        timeout: float,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str, bytes]:
        """Returns status, reason and body of the answer.

        Raises ``SendError`` for a redirect, and for a body beyond ``max_message_size``.
        """
        # The URL is encoded already, as supabase-js does it. yarl would turn %3A back into a colon.
        target = yarl.URL(url, encoded=True)
        headers = {**(headers or {}), **self._headers(content_type)}
        # aiohttp writes a file in pieces; long bytes it writes at once, with a warning.
        is_long = body is not None and len(body) > MAX_BYTES_AT_ONCE
        data = io.BytesIO(body) if body is not None and is_long else body
        async with self._session() as http:
            with cut_on_failure():
                async with (
                    asyncio.timeout(timeout),
                    http.request(
                        method, target, data=data, headers=headers, **self._kwargs()
                    ) as response,
                ):
                    if is_redirect(response.status):
                        # Its body is a page for people, of any length, and is not read.
                        raise _redirected(response.status, response.headers.get("Location"), url)
                    return response.status, response.reason or "", await self._read(response)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            return await read_answer(response, self.options.max_message_size)
        except AnswerTooLarge as exc:
            problem = str(exc)
        raise SendError(
            problem,
            status=response.status,
            code="AnswerTooLarge",
            retryable=False,
            hint="raise max_message_size, or ask for less: page_size= of a backfill",
        )

    def _headers(self, content_type: str) -> dict[str, str]:
        headers = {**(self.options.headers or {}), "apikey": self.api_key}
        headers["Content-Type"] = content_type
        token = self.token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _kwargs(self) -> dict[str, Any]:
        # On a redirect aiohttp would send our headers, the key among them, to any address.
        return {**self.options.request_kwargs(), "allow_redirects": False}

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Give the session of the connection, or a new one for this request alone.

        A session of our own that stays open would need a close. A client that never connects is
        never told to close.
        """
        http = self.http()
        if http is not None:
            if http.closed:
                raise session_closed(SendError)
            yield http
            return
        own = open_session()
        try:
            yield own
        finally:
            await close_session(own)


def _redirected(status: int, location: str | None, url: str) -> SendError:
    retryable, hint, code = http_failure(status, location=location, asked=url)
    text = f"the server answers with a redirect, HTTP {status}"
    return SendError(text, status=status, code=code, retryable=retryable, hint=hint)


def reason_in(text: bytes, otherwise: str) -> str:
    """Returns ``error`` or ``message`` of a JSON body, as supabase-js does, or ``otherwise``."""
    try:
        found = loads(text) if text else None
    except DecodeError:
        return otherwise
    if not isinstance(found, dict):
        return otherwise
    for key in ("error", "message"):
        if isinstance(found.get(key), str):
            return str(found[key])
    return dumps(found["errors"]).decode() if "errors" in found else otherwise

"""Broadcast over HTTP (docs/protocol.md#broadcasts-by-http-in-batches, #one-broadcast-by-http).

``post_batch`` is what ``send`` falls back to while the channel is not joined and never raises, as
in supabase-js; ``post_event`` is ``http_send`` and raises ``SendError``.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec
import yarl

from .._printable import get_logger
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
from .._runtime.log_fields import facts
from .._wire.envelope import TOPIC_PREFIX
from .._wire.json_codec import UNREADABLE, dumps, loads
from .._wire.redirects import is_redirect
from .._wire.serializer import is_binary
from .._wire.urls import Endpoint
from ..errors import DecodeError, SendError, TimedOut

__all__ = ["JSON_TYPE", "Rest", "holds_flags", "reason_in"]

log: Final = get_logger("supabase_rt.rest")

PIECE: Final = 2**16
"""Bytes of a body that are written at once."""

JSON_TYPE = "application/json"
_BYTES = "application/octet-stream"

_HINTS = {
    401: "the token or the key was not accepted: is it expired, or of another project?",
    403: "the policies on realtime.messages do not let this token write to the topic",
    404: "self-hosted servers need Realtime 2.97.0 or newer for this; or use send()",
    413: "the payload is larger than the server allows",
    422: "the server found the message wrong; its text says where",
    429: "too many messages for the project's limit: send fewer, or later",
}


@dataclass(slots=True, repr=False)
class Rest:
    """Where and as whom to post. ``token`` is asked for at every request.

    No ``repr``: it would show the key to whatever collects local variables.
    """

    endpoint: Endpoint
    api_key: str
    params: dict[str, Any]
    vsn: str
    options: TransportOptions
    token: Callable[[], str | None]
    http: Callable[[], aiohttp.ClientSession | None]

    def _headers(self, content_type: str) -> dict[str, str]:
        headers = {**(self.options.headers or {}), "apikey": self.api_key}
        headers["Content-Type"] = content_type
        token = self.token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _kwargs(self) -> dict[str, Any]:
        # aiohttp would hand our headers, the key among them, to whatever address it is sent to.
        return {**self.options.request_kwargs(), "allow_redirects": False}

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """The connection's session; without one, a session for this request alone.

        Keeping one of our own open for a client that never connects would leave something
        running that nobody is told to close.
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
        """Status, reason and body of the answer.

        Raises ``SendError`` for a redirect, and for a body beyond ``max_message_size``.
        """
        # Encoded already, as supabase-js does it; yarl would write %3A as a colon again.
        target = yarl.URL(url, encoded=True)
        headers = {**(headers or {}), **self._headers(content_type)}
        # aiohttp writes a file piece by piece, and warns of long bytes that it writes at once.
        data = io.BytesIO(body) if body is not None and len(body) > PIECE else body
        async with self._session() as http:
            with cut_on_failure():
                async with (
                    asyncio.timeout(timeout),
                    http.request(
                        method, target, data=data, headers=headers, **self._kwargs()
                    ) as response,
                ):
                    if is_redirect(response.status):
                        # Its body is not read: it is a page for people, of any length.
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

    async def post_batch(
        self, sub_topic: str, message: dict[str, Any], private: bool, timeout: float
    ) -> str:
        """Post one message to the batch endpoint: ``ok``, ``error`` or ``timed out``."""
        # A message without a payload stays one: null would be something else.
        content = {key: message[key] for key in ("event", "payload") if key in message}
        known = {"topic": TOPIC_PREFIX + sub_topic, "event": message.get("event")}
        url = self._with_params(self.endpoint.http_url)
        body = dumps({"messages": [{"topic": sub_topic, **content, "private": private}]})
        try:
            status, _, text = await self.request("POST", url, JSON_TYPE, timeout, body=body)
        except TimeoutError:
            return "timed out"
        except SendError as exc:
            log.warning("broadcast over HTTP failed: %s", exc, extra=facts(exc, **known))
            return "error"
        except (aiohttp.ClientError, OSError) as exc:
            words = "broadcast over HTTP failed: %s"
            log.warning(words, type(exc).__name__, extra=facts(exc, **known))
            return "error"
        if 200 <= status < 300:
            return "ok"
        words = "broadcast over HTTP failed: HTTP %d %s"
        log.warning(words, status, reason_in(text, ""), extra=facts(http_status=status, **known))
        return "error"

    def _with_params(self, url: str) -> str:
        """supabase-js keeps the query of the socket URL here, and so do we."""
        query = self.endpoint.socket_url(self.params, self.vsn).partition("?")[2]
        return f"{url.partition('?')[0]}?{query}"

    async def post_event(
        self,
        sub_topic: str,
        event: str,
        payload: Any,
        *,
        private: bool,
        persist: Any,
        timeout: float,
    ) -> dict[str, bool]:
        """Post one message to the endpoint of its event; raises ``SendError`` or ``TimedOut``.

        A payload that ``holds_flags`` goes to the batch endpoint, which reads them outside of it.
        """
        url = self.endpoint.broadcast_url(
            sub_topic, event, private, persist, params={**self.params, "vsn": self.vsn}
        )
        if is_binary(payload):
            kind, body = _BYTES, bytes(payload)
        else:
            kind, body = JSON_TYPE, dumps(payload)
            if holds_flags(body):
                url = self._with_params(self.endpoint.http_url)
                message = {"topic": sub_topic, "event": event, "payload": msgspec.Raw(body)}
                body = dumps({"messages": [{**message, "private": private}]})
        try:
            status, reason, text = await self.request("POST", url, kind, timeout, body=body)
        except TimeoutError:
            error: SendError | TimedOut = TimedOut(f"no answer within {timeout:g} s")
        except (aiohttp.ClientError, OSError) as exc:
            error = _unreachable(exc)
        else:
            if status == 202:
                return {"success": True}
            error = _refusal(status, reason, text)
        # Outside the except blocks: aiohttp's exceptions quote the URL, key included.
        raise error


class _Flags(msgspec.Struct):
    """What the endpoint of an event reads from the body as well as from the query."""

    private: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    persist: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_flags = msgspec.json.Decoder(_Flags)


def holds_flags(body: bytes) -> bool:
    """Whether a JSON payload has a top-level key that its endpoint takes for one of our flags.

    The server puts the body over the query, so ``private`` in a payload would decide who reads
    the message (docs/protocol.md#one-broadcast-by-http).
    """
    try:
        found = _flags.decode(body)
    except UNREADABLE:
        other = loads(body)
        return isinstance(other, dict) and not other.keys().isdisjoint(_Flags.__struct_fields__)
    return found.private is not msgspec.UNSET or found.persist is not msgspec.UNSET


def _unreachable(exc: Exception) -> SendError:
    text = f"cannot reach the server: {type(exc).__name__}"
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        hint = "pass ssl=, an ssl.SSLContext that knows the issuer of the certificate"
        return SendError(text, code="CertificateError", retryable=False, hint=hint)
    return SendError(text, retryable=True, hint="check the URL and the network")


def _redirected(status: int, location: str | None, url: str) -> SendError:
    retryable, hint, code = http_failure(status, location=location, asked=url)
    text = f"the server answers with a redirect, HTTP {status}"
    return SendError(text, status=status, code=code, retryable=retryable, hint=hint)


def _refusal(status: int, reason: str, text: bytes) -> SendError:
    found = reason_in(text, reason or f"HTTP {status}")
    if status == 404:
        found = (
            "httpSend() requires Realtime server v2.97.0 or newer; the endpoint returned 404. "
            f"({found})"
        )
    return SendError(
        found,
        status=status,
        code=f"HTTP{status}",
        retryable=status in (408, 425, 429) or status >= 500,
        hint=_HINTS.get(status, "the server could not take the message"),
    )


def reason_in(text: bytes, otherwise: str) -> str:
    """What the body says: ``error`` or ``message``, as in supabase-js."""
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

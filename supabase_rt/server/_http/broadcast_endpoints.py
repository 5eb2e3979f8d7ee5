"""Broadcasts by HTTP: one message in the path, or a batch in the body.

See docs/protocol.md#broadcasts-by-http-in-batches, #one-broadcast-by-http.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from ..._wire.envelope import TOPIC_PREFIX, UserBroadcast
from ..._wire.json_codec import dumps, loads
from ...errors import DecodeError
from .._machine.memory_bounds import MOST_DECODED_BODY, weigh
from .._machine.outgoing import Fanout
from .._machine.server_state import Backend
from ..tokens import Token, TokenError
from .client_left import ClientLeft, while_connected
from .turns import Usage

__all__ = ["Bodies", "HttpApi", "json_response"]

BLANK = "can't be blank"
INVALID = "is invalid"
TOO_LARGE = "Payload size exceeds tenant limit"
TOO_MANY = "You have exceeded your rate limit"
TOO_LONG = "Too many messages to broadcast, please reduce the batch size"
NO_DATABASE = "Tenant database unavailable"
MEDIA_TYPE = "Unsupported Media Type. Use application/json or application/octet-stream"
LARGE = 65_536
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "authorization, apikey, content-type, x-client-info",
    "Access-Control-Allow-Methods": "POST, OPTIONS",
}


def json_response(body: Any, status: int = 200) -> web.Response:
    """Returns a response of compact JSON, as the real server writes it."""
    return web.Response(
        body=dumps(body), status=status, content_type="application/json", charset="utf-8"
    )


class Bodies:
    """Reads the bodies of requests; a large one is heavy work, and waits for its turn."""

    def __init__(self, backend: Backend) -> None:
        self._turns = backend.turns
        self._usage = Usage()
        self._alone = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def read(self, request: web.Request) -> AsyncIterator[bytes]:
        """Read a body, which is handled within the block.

        Large bodies are handled one at a time, because they are much larger once decoded. Raises
        ``HTTPRequestEntityTooLarge`` for a body that would be too large then.
        """
        try:
            data = await request.read()
        except ConnectionError:
            # The client left; aiohttp would treat that as a failure of the handler.
            raise web.HTTPBadRequest from None
        if len(data) <= LARGE:
            yield data
            return
        if weigh(data) > MOST_DECODED_BODY:
            raise web.HTTPRequestEntityTooLarge(MOST_DECODED_BODY, weigh(data))
        async with self._alone:
            await self._turns.wait(self._usage)
            began = time.monotonic()
            yield data
            now = time.monotonic()
            self._turns.count(self._usage, now - began, now)


class HttpApi:
    """The handlers of the HTTP routes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._bodies = Bodies(backend)

    async def ping(self, request: web.Request) -> web.Response:
        """``GET /api/ping``."""
        return await self._counted(request, self._ping)

    async def health(self, _request: web.Request) -> web.Response:
        """``GET /healthcheck``."""
        return web.Response(text="ok")

    async def preflight(self, _request: web.Request) -> web.Response:
        """``OPTIONS``, which a browser sends before it posts."""
        return web.Response(status=204, headers=CORS)

    async def batch(self, request: web.Request) -> web.Response:
        """``POST /api/broadcast``."""
        return await self._counted(request, self._batch)

    async def single(self, request: web.Request) -> web.Response:
        """``POST /api/broadcast/{topic}/events/{event}``."""
        if _media_type(request) is None:
            # As recorded: this comes before requests are counted, so their headers are missing.
            return _with_headers(json_response({"error": MEDIA_TYPE}, 415), {})
        return await self._counted(request, self._single)

    async def _counted(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.Response]]
    ) -> web.Response:
        """Count a request, and answer it unless there are too many.

        See docs/protocol.md#broadcasts-by-http-in-batches.
        """
        limits = self._backend.limits
        limits.requests.count += 1
        if not _takes_json(request):
            response = json_response({"errors": {"detail": "Not Acceptable"}}, 406)
        elif limits.requests.tripped:
            response = json_response({"message": "Too many requests"}, 429)
        else:
            response = await handler(request)
        return _with_headers(response, limits.request_headers())

    async def _ping(self, _request: web.Request) -> web.Response:
        return json_response({"message": "Success"})

    def _token(self, request: web.Request) -> Token | None:
        """Returns the caller's token: the bearer token, or else the apikey header."""
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        text = bearer if scheme.lower() == "bearer" else request.headers.get("apikey", "")
        try:
            token = self._backend.tokens.verify(text, time.time())
        except TokenError:
            return None
        headers = {
            name.lower(): value
            for name, value in request.headers.items()
            if name.lower().startswith("x-")
        }
        return dataclasses.replace(token, headers=headers)

    async def _batch(self, request: web.Request) -> web.Response:
        token = self._token(request)
        if token is None:
            return json_response({"message": "Unauthorized"}, 401)
        async with self._bodies.read(request) as data:
            try:
                return await self._broadcast(request, data, token)
            except (DecodeError, ValueError):
                # JSON, but nested so deeply that it cannot be written again.
                return json_response({"errors": {"detail": "Bad Request"}}, 400)

    async def _broadcast(self, request: web.Request, data: bytes, token: Token) -> web.Response:
        body = loads(data)
        messages = body.get("messages") if isinstance(body, dict) else None
        if not isinstance(messages, list) or not messages:
            return json_response({"errors": {"messages": [BLANK]}}, 422)
        # Encoded once, because the surrounding JSON may be nested deeper than the encoder can go.
        encoded = [_encoded_payload(message) for message in messages]
        problems = [self._problems(*each) for each in zip(messages, encoded, strict=True)]
        if any(problems):
            return json_response({"errors": {"messages": problems}}, 422)
        events = self._backend.limits.events
        if events.tripped:
            return json_response({"message": TOO_MANY}, 429)
        if events.would_exceed(len(messages)):
            return json_response({"message": TOO_LONG}, 429)
        for message, payload in zip(messages, encoded, strict=True):
            await self._send(request, message, payload, token)
        return web.Response(status=202)

    def _problems(self, message: Any, encoded: bytes) -> dict[str, list[str]]:
        message = message if isinstance(message, dict) else {}
        found: dict[str, list[str]] = {}
        for name, kind in (("payload", dict), ("event", str), ("topic", str)):
            value = message.get(name)
            if value is None or (isinstance(value, str) and not value.strip()):
                found[name] = [BLANK]
            elif not isinstance(value, kind):
                found[name] = [INVALID]
        if len(encoded) > self._backend.settings.max_payload_size:
            found["payload"] = [TOO_LARGE]
        return found

    async def _may_send(
        self, request: web.Request, sub_topic: str, private: bool, token: Token
    ) -> bool | None:
        """Returns whether a token may send; None if the database cannot tell."""
        if not private:
            return True
        try:
            rights = await while_connected(request, self._backend.rights_of(token, sub_topic))
        except ClientLeft:
            return None
        return None if rights is None else rights.broadcast_write

    async def _send(
        self, request: web.Request, message: dict[str, Any], encoded: bytes, token: Token
    ) -> None:
        topic, private = message["topic"], message.get("private") is True
        if not await self._may_send(request, topic, private, token):
            # Like the real server, skip the message without telling the caller.
            return
        payload = {
            "event": message["event"],
            "payload": msgspec.Raw(encoded),
            "type": "broadcast",
        }
        if isinstance(message.get("id"), str):
            payload["meta"] = {"id": message["id"]}
        fanout = Fanout(TOPIC_PREFIX + topic, "broadcast", payload)
        self._backend.hub.broadcast((topic, private), fanout)

    async def _single(self, request: web.Request) -> web.Response:
        kind = _media_type(request)
        token = self._token(request)
        if token is None:
            return json_response({"message": "Unauthorized"}, 401)
        async with self._bodies.read(request) as body:
            return await self._single_of(request, kind, body, token)

    async def _single_of(
        self, request: web.Request, kind: str | None, body: bytes, token: Token
    ) -> web.Response:
        private = request.query.get("private") == "true"
        is_json = kind != "application/octet-stream"
        if is_json:
            try:
                content = _payload(body) if kind else {}
                body = dumps(content)
            except (DecodeError, ValueError):
                return json_response({"errors": {"detail": "Bad Request"}}, 400)
            # Parameters of the body take precedence over those of the query.
            private = content["private"] is True if "private" in content else private
        return await self._send_single(
            request, UserBroadcast("", is_json, b"", body), private, token
        )

    async def _send_single(
        self, request: web.Request, frame: UserBroadcast, private: bool, token: Token
    ) -> web.Response:
        topic, frame.event = request.match_info["topic"], request.match_info["event"]
        named = {"topic": topic, "event": frame.event}
        blank = {name: [BLANK] for name, value in named.items() if not value.strip()}
        if blank:
            return json_response({"errors": blank}, 422)
        if self._backend.limits.events.tripped:
            return json_response({"message": TOO_MANY}, 429)
        allowed = await self._may_send(request, topic, private, token)
        if allowed is None:
            return json_response({"message": NO_DATABASE}, 422)
        if not allowed:
            return json_response({"message": "Unauthorized"}, 403)
        if len(frame.body) > self._backend.settings.max_payload_size:
            return json_response({"errors": {"payload": [TOO_LARGE]}}, 422)
        fanout = Fanout(TOPIC_PREFIX + topic, "broadcast", frame)
        try:
            self._backend.hub.broadcast((topic, private), fanout)
        except ValueError as exc:
            # The name is too long for a binary frame, which some member would get.
            return json_response({"errors": {"detail": f"Internal Server Error: {exc}"}}, 500)
        return web.Response(status=202)


def _encoded_payload(message: Any) -> bytes:
    return dumps(message.get("payload") if isinstance(message, dict) else None)


def _media_type(request: web.Request) -> str | None:
    """Returns the type of a body, empty if none is given; None for another kind of type."""
    kind = request.content_type if "Content-Type" in request.headers else ""
    return kind if kind in ("", "application/json", "application/octet-stream") else None


def _takes_json(request: web.Request) -> bool:
    accepted = request.headers.get("Accept", "*/*")
    kinds = {each.partition(";")[0].strip() for each in accepted.split(",")}
    return bool(kinds & {"*/*", "application/*", "application/json", ""})


def _payload(body: bytes) -> dict[str, Any]:
    """Returns a JSON body as an object: another value is wrapped, an empty body is an empty
    object.
    """
    content = loads(body) if body else {}
    return content if isinstance(content, dict) else {"_json": content}


def _with_headers(response: web.Response, more: dict[str, str]) -> web.Response:
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["X-Request-ID"] = secrets.token_urlsafe(15)
    response.headers.update(more)
    return response

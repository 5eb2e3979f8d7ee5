"""Broadcast over HTTP: one message in the path, or a batch in the body.

See docs/protocol.md#broadcasts-by-http-in-batches, #one-broadcast-by-http.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

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

__all__ = ["HttpApi", "json_response"]

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


class HttpApi:
    """The handlers of the HTTP routes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._alone = asyncio.Lock()

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
        """Returns the caller's verified token: the bearer, or else the apikey header."""
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
        data = await self._body(request)
        async with self._one_of(data):
            return await self._broadcast(request, data, token)

    async def _body(self, request: web.Request) -> bytes:
        """Read the body of a request; a large one waits for its turn, like all heavy work."""
        data = await request.read()
        if len(data) > LARGE:
            if weigh(data) > MOST_DECODED_BODY:
                raise web.HTTPRequestEntityTooLarge(MOST_DECODED_BODY, weigh(data))
            await self._backend.turns.wait(Usage())
        return data

    def _one_of(self, data: bytes) -> AbstractAsyncContextManager[None]:
        """Returns the lock for large bodies: they grow when decoded, so only one is at a time."""
        return self._alone if len(data) > LARGE else contextlib.nullcontext()

    async def _broadcast(self, request: web.Request, data: bytes, token: Token) -> web.Response:
        try:
            body = loads(data)
        except DecodeError:
            return json_response({"errors": {"detail": "Bad Request"}}, 400)
        messages = body.get("messages") if isinstance(body, dict) else None
        if not isinstance(messages, list) or not messages:
            return json_response({"errors": {"messages": [BLANK]}}, 422)
        problems = [self._problems(message) for message in messages]
        if any(problems):
            return json_response({"errors": {"messages": problems}}, 422)
        events = self._backend.limits.events
        if events.tripped:
            return json_response({"message": TOO_MANY}, 429)
        if events.would_exceed(len(messages)):
            return json_response({"message": TOO_LONG}, 429)
        for message in messages:
            await self._send(request, message, token)
        return web.Response(status=202)

    def _problems(self, message: Any) -> dict[str, list[str]]:
        message = message if isinstance(message, dict) else {}
        found: dict[str, list[str]] = {}
        for name, kind in (("payload", dict), ("event", str), ("topic", str)):
            value = message.get(name)
            if value is None or (isinstance(value, str) and not value.strip()):
                found[name] = [BLANK]
            elif not isinstance(value, kind):
                found[name] = [INVALID]
        payload = message.get("payload")
        if len(dumps(payload)) > self._backend.settings.max_payload_size:
            found["payload"] = [TOO_LARGE]
        return found

    async def _may_send(
        self, request: web.Request, sub_topic: str, private: bool, token: Token
    ) -> bool | None:
        """Returns True if a token may send, None if the database does not answer."""
        if not private:
            return True
        try:
            rights = await while_connected(request, self._backend.rights_of(token, sub_topic))
        except ClientLeft:
            return None
        return None if rights is None else rights.broadcast_write

    async def _send(self, request: web.Request, message: dict[str, Any], token: Token) -> None:
        topic, private = message["topic"], message.get("private") is True
        if not await self._may_send(request, topic, private, token):
            # Like the real server, skip the message without telling the caller.
            return
        payload = {"event": message["event"], "payload": message["payload"], "type": "broadcast"}
        if isinstance(message.get("id"), str):
            payload["meta"] = {"id": message["id"]}
        fanout = Fanout(TOPIC_PREFIX + topic, "broadcast", payload)
        self._backend.hub.broadcast((topic, private), fanout)

    async def _single(self, request: web.Request) -> web.Response:
        kind = _media_type(request)
        token = self._token(request)
        if token is None:
            return json_response({"message": "Unauthorized"}, 401)
        body = await self._body(request)
        async with self._one_of(body):
            return await self._single_of(request, kind, body, token)

    async def _single_of(
        self, request: web.Request, kind: str | None, body: bytes, token: Token
    ) -> web.Response:
        private = request.query.get("private") == "true"
        is_json = kind != "application/octet-stream"
        if is_json:
            try:
                content = _payload(body) if kind else {}
            except DecodeError:
                return json_response({"errors": {"detail": "Bad Request"}}, 400)
            # Parameters of the body take precedence over those of the query.
            private = content["private"] is True if "private" in content else private
            body = dumps(content)
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
            # The name is too long for a binary frame, and one of the channels gets such frames.
            return json_response({"errors": {"detail": f"Internal Server Error: {exc}"}}, 500)
        return web.Response(status=202)


def _media_type(request: web.Request) -> str | None:
    """Returns the media type of a body, empty without one; None if it is not supported."""
    kind = request.content_type if "Content-Type" in request.headers else ""
    return kind if kind in ("", "application/json", "application/octet-stream") else None


def _takes_json(request: web.Request) -> bool:
    accepted = request.headers.get("Accept", "*/*")
    kinds = {each.partition(";")[0].strip() for each in accepted.split(",")}
    return bool(kinds & {"*/*", "application/*", "application/json", ""})


def _payload(body: bytes) -> dict[str, Any]:
    """Decode a JSON body as an object: another value is wrapped, an empty body is an empty one."""
    content = loads(body) if body else {}
    return content if isinstance(content, dict) else {"_json": content}


def _with_headers(response: web.Response, more: dict[str, str]) -> web.Response:
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["X-Request-ID"] = secrets.token_urlsafe(15)
    response.headers.update(more)
    return response

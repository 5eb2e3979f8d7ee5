"""Broadcast over HTTP: one message in the path, or a batch in the body (sections 7.6 and 7.7)."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from ..errors import DecodeError
from ..protocol.messages import UserBroadcast, dumps, loads
from .auth import Token, TokenError
from .backend import Backend
from .outgoing import Fanout

__all__ = ["HttpApi", "json_response"]

BLANK = "can't be blank"
INVALID = "is invalid"
TOO_LARGE = "Payload size exceeds tenant limit"
MEDIA_TYPE = "Unsupported Media Type. Use application/json or application/octet-stream"
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "authorization, apikey, content-type, x-client-info",
    "Access-Control-Allow-Methods": "POST, OPTIONS",
}


def json_response(body: Any, status: int = 200) -> web.Response:
    """A JSON answer, compact as the real server writes it."""
    return web.Response(
        body=dumps(body), status=status, content_type="application/json", charset="utf-8"
    )


class HttpApi:
    """The handlers of the HTTP routes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def ping(self, _request: web.Request) -> web.Response:
        """``GET /api/ping``."""
        return json_response({"message": "Success"})

    async def health(self, _request: web.Request) -> web.Response:
        """``GET /healthcheck``."""
        return web.Response(text="ok")

    async def preflight(self, _request: web.Request) -> web.Response:
        """``OPTIONS``, asked by browsers before they post."""
        return web.Response(status=204, headers=CORS)

    async def batch(self, request: web.Request) -> web.Response:
        """``POST /api/broadcast``."""
        return _with_cors(await self._batch(request))

    async def single(self, request: web.Request) -> web.Response:
        """``POST /api/broadcast/{topic}/events/{event}``."""
        return _with_cors(await self._single(request))

    def _token(self, request: web.Request) -> Token | None:
        """The caller's token: the bearer where there is one, else the apikey header."""
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        text = bearer if scheme.lower() == "bearer" else request.headers.get("apikey", "")
        try:
            return self._backend.tokens.verify(text, time.time())
        except TokenError:
            return None

    async def _batch(self, request: web.Request) -> web.Response:
        token = self._token(request)
        if token is None:
            return json_response({"message": "Unauthorized"}, 401)
        try:
            body = loads(await request.read())
        except DecodeError:
            return json_response({"errors": {"detail": "Bad Request"}}, 400)
        messages = body.get("messages") if isinstance(body, dict) else None
        if not isinstance(messages, list) or not messages:
            return json_response({"errors": {"messages": [BLANK]}}, 422)
        problems = [self._problems(message) for message in messages]
        if any(problems):
            return json_response({"errors": {"messages": problems}}, 422)
        for message in messages:
            await self._send(message, token)
        return web.Response(status=202)

    def _problems(self, message: Any) -> dict[str, list[str]]:
        message = message if isinstance(message, dict) else {}
        found: dict[str, list[str]] = {}
        for name, kind in (("payload", dict), ("event", str), ("topic", str)):
            value = message.get(name)
            if value is None or value == "":
                found[name] = [BLANK]
            elif not isinstance(value, kind):
                found[name] = [INVALID]
        payload = message.get("payload")
        if len(dumps(payload)) > self._backend.settings.max_payload_size:
            found["payload"] = [TOO_LARGE]
        return found

    async def _may_send(self, sub_topic: str, private: bool, token: Token) -> bool:
        return not private or (await self._backend.rights_of(token, sub_topic)).broadcast_write

    async def _send(self, message: dict[str, Any], token: Token) -> None:
        topic, private = message["topic"], message.get("private") is True
        if not await self._may_send(topic, private, token):
            # Skipped, and the caller is not told.
            return
        payload = {"event": message["event"], "payload": message["payload"], "type": "broadcast"}
        if isinstance(message.get("id"), str):
            payload["meta"] = {"id": message["id"]}
        fanout = Fanout(f"realtime:{topic}", "broadcast", payload)
        self._backend.hub.broadcast((topic, private), fanout)

    async def _single(self, request: web.Request) -> web.Response:
        given = "Content-Type" in request.headers
        kind = request.content_type if given else ""
        if kind not in ("", "application/json", "application/octet-stream"):
            return json_response({"error": MEDIA_TYPE}, 415)
        token = self._token(request)
        if token is None:
            return json_response({"message": "Unauthorized"}, 401)
        body = await request.read()
        private = request.query.get("private") == "true"
        is_json = kind != "application/octet-stream"
        if is_json:
            try:
                content = _payload(body) if kind else {}
            except DecodeError:
                return json_response({"errors": {"detail": "Bad Request"}}, 400)
            # The parameters are merged, and those of the body win over those of the query.
            private = content["private"] is True if "private" in content else private
            body = dumps(content)
        return await self._send_single(
            request, UserBroadcast("", is_json, b"", body), private, token
        )

    async def _send_single(
        self, request: web.Request, frame: UserBroadcast, private: bool, token: Token
    ) -> web.Response:
        topic, frame.event = request.match_info["topic"], request.match_info["event"]
        if not await self._may_send(topic, private, token):
            return json_response({"message": "Unauthorized"}, 403)
        if len(frame.body) > self._backend.settings.max_payload_size:
            return json_response({"errors": {"payload": [TOO_LARGE]}}, 422)
        fanout = Fanout(f"realtime:{topic}", "broadcast", frame)
        self._backend.hub.broadcast((topic, private), fanout)
        return web.Response(status=202)


def _payload(body: bytes) -> dict[str, Any]:
    """A JSON body as an object: another value is wrapped, none at all is an empty one."""
    content = loads(body) if body else {}
    return content if isinstance(content, dict) else {"_json": content}


def _with_cors(response: web.Response) -> web.Response:
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response

"""The aiohttp application: its routes, and the WebSocket handshake with its refusals."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import urllib.parse
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from ..._printable import get_logger
from .._machine.server_state import Backend
from ..activity import Activity, Happening
from ..tokens import TokenError
from .broadcast_endpoints import HttpApi, json_response
from .gate import Gate, RefusedRequest, gated
from .listening_socket import attend
from .postgrest.endpoints import RestApi
from .status_page import EditableRows, StatusPage
from .websocket import Socket

__all__ = ["SOCKETS", "http_logger", "make_app"]

SOCKETS = web.AppKey("sockets", dict[int, Socket])
"""The open sockets, by connection number."""

MAX_BODY = 8_000_000


class _Mistakes(logging.Filter):
    """Leaves out records of requests that are not HTTP.

    aiohttp logs each of them with a traceback that quotes the bad line, a key perhaps. Otherwise
    anyone who reaches the port could fill a disk with these lines.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets only records of the server's own mistakes pass."""
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


http_logger: Final = get_logger("supabase_rt.server.http")
"""Logs the messages of aiohttp."""
http_logger.addFilter(_Mistakes())


def make_app(backend: Backend, gate: Gate, page_token: str, rows: EditableRows) -> web.Application:
    """Returns the application, with the paths of Supabase's gateway and of the bare server.

    ``page_token`` opens the status page; ``rows`` gives it access to the tables.
    """
    # The gate comes last, so that watchers see the requests it refuses.
    ahead = [attend(backend.turns), _watched(backend.activity), gated(gate)]
    app = web.Application(client_max_size=MAX_BODY, middlewares=ahead)
    sockets = app[SOCKETS] = dict[int, Socket]()
    handshakes = _Handshakes(backend, sockets)
    app.on_response_prepare.append(_complete)
    # Any method: the handler refuses all but GET with a status of its own.
    app.router.add_route("*", "/socket/websocket", handshakes.handle)
    app.router.add_route("*", "/realtime/v1/websocket", handshakes.handle)
    api = HttpApi(backend)
    app.router.add_get("/healthcheck", api.health)
    for prefix in ("", "/realtime/v1"):
        app.router.add_get(f"{prefix}/api/ping", api.ping)
        for path, handler in (
            (f"{prefix}/api/broadcast", api.batch),
            (prefix + "/api/broadcast/{topic}/events/{event}", api.single),
        ):
            app.router.add_post(path, handler)
            app.router.add_options(path, api.preflight)
    rest = RestApi(backend)
    app.router.add_get("/rest/v1/{table}", rest.read)
    app.router.add_options("/rest/v1/{table}", rest.preflight)
    if backend.settings.status_page:
        StatusPage(page_token, rows, backend, sockets).add_to(app)
    return app


def _watched(activity: Activity) -> Middleware:
    """Returns the middleware that reports requests to watchers: the path only.

    The query is left out because it may hold a key.
    """

    def report(request: web.Request, response: web.StreamResponse) -> None:
        refused = request.path.endswith("/websocket") or isinstance(response, RefusedRequest)
        kind = "refuse" if refused else "request"
        text = f"{response.status} {response.reason}"
        if isinstance(response, RefusedRequest):
            text = f"{text}: {response.why}"
        activity.report(Happening(kind, None, request.path, request.method, text))

    @web.middleware
    async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not activity.watched:
            return await handler(request)
        try:
            response = await handler(request)
        except web.HTTPException as exc:
            report(request, exc)
            raise
        if not isinstance(response, web.WebSocketResponse):
            report(request, response)
        return response

    return watch


async def _complete(_request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every response of the real server has."""
    response.headers.setdefault("Cache-Control", "max-age=0, private, must-revalidate")
    response.headers.setdefault("Vary", "accept-encoding")


def _vsn(text: str) -> str | None:
    """Returns the protocol version for a ``vsn`` parameter; None if it is unknown.

    See docs/protocol.md#query-parameters.
    """
    found = re.fullmatch(r"([12])\.0\.\d+", text)
    return f"{found[1]}.0.0" if found else None


class _Refused(Exception):
    """A refused handshake, with the status and the message of its response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handshakes:
    def __init__(self, backend: Backend, sockets: dict[int, Socket]) -> None:
        self._backend = backend
        self._sockets = sockets

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Accept a socket and serve it, or refuse it (docs/protocol.md#refused-handshakes)."""
        faults = self._backend.faults
        await faults.handshakes.wait()
        transport = request.transport
        if transport is None or faults.refused_status == 0:
            if transport is not None:
                transport.abort()
            return web.Response(status=503)
        if faults.refused_status is not None:
            return json_response(_phrase(faults.refused_status), faults.refused_status)
        if request.method != "GET":
            return web.Response(status=400)
        vsn = _vsn(request.query.get("vsn", "1.0.0"))
        if vsn is None:
            return web.Response(status=403)
        key = request.headers.get("x-api-key", request.query.get("apikey"))
        try:
            token = self._check(key)
        except _Refused as exc:
            await asyncio.sleep(self._backend.settings.connect_error_delay)
            return json_response({"error": str(exc)}, exc.status)
        problem = _upgrade_problem(request)
        if problem is not None:
            return web.Response(text=problem, status=400)
        return await self._serve(request, transport, vsn, token)

    def _check(self, key: str | None) -> str:
        """Check a key in the real server's order; returns its token, or raises ``_Refused``.

        See docs/protocol.md#refused-handshakes.
        """
        if key is None:
            raise _Refused(401, "API key is missing")
        token = "".join(urllib.parse.unquote(key).split())
        try:
            self._backend.tokens.verify(token, time.time())
        except TokenError as exc:
            status = 500 if exc.code == "UnknownErrorOnChannel" else 401
            problem = exc.handshake
        else:
            limits = self._backend.limits
            if limits.full:
                raise _Refused(429, "Too many connected users")
            if limits.joins.tripped:
                raise _Refused(429, "Too many joins per second")
            return token
        raise _Refused(status, problem)

    async def _serve(
        self, request: web.Request, transport: asyncio.Transport, vsn: str, token: str
    ) -> web.StreamResponse:
        # The socket itself echoes the close code, and counts a ping as a sign of life.
        ws = web.WebSocketResponse(
            autoping=False,
            autoclose=False,
            compress=False,
            decode_text=False,
            timeout=self._backend.settings.close_timeout,
            max_msg_size=self._backend.settings.max_frame_size,
        )
        try:
            await ws.prepare(request)
        except ConnectionError:
            # The client is gone already; aiohttp would treat that as a failure of the handler.
            return web.Response(status=503)
        self._backend.connections += 1
        number = self._backend.connections
        headers = {
            name.lower(): value
            for name, value in request.headers.items()
            if name.lower().startswith("x-")
        }
        socket = Socket(ws, transport, self._backend, vsn, token, number, headers)
        self._sockets[number] = socket
        self._report("connect", number, f"{request.remote}, vsn {vsn}")
        try:
            await socket.run()
        finally:
            del self._sockets[number]
            self._report("disconnect", number)
        return ws

    def _report(self, kind: str, number: int | None, text: str = "") -> None:
        activity = self._backend.activity
        if activity.watched:
            activity.report(Happening(kind, number, text=text))


def _upgrade_problem(request: web.Request) -> str | None:
    """Returns the reason why a request is not a handshake by RFC 6455; None if it is one."""
    for name, wanted in (("upgrade", "websocket"), ("connection", "upgrade")):
        found = [word.strip() for word in request.headers.get(name, "").split(",") if word.strip()]
        if wanted not in (word.lower() for word in found):
            return f"'{name}' header must contain '{wanted}', got {_elixir_list(found)}"
    version = request.headers.getall("sec-websocket-version", [])
    if version != ["13"]:
        return f"'sec-websocket-version' header must equal '13', got {_elixir_list(version)}"
    if not request.headers.get("sec-websocket-key"):
        return "'sec-websocket-key' header is absent"
    return None


def _elixir_list(words: list[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def _phrase(status: int) -> dict[str, str]:
    known = {
        403: "Realtime was disabled for this tenant",
        404: "Tenant not found",
        429: "Too many connected users",
        500: "Error connecting to Realtime",
    }
    try:
        return {"error": known.get(status) or HTTPStatus(status).phrase}
    except ValueError:
        return {"error": "refused"}

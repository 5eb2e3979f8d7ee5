"""Serves the status page, its live socket and its forms.

The page itself contains no secret. It takes a token from the fragment of its address, which
browsers put into no request line, no ``Referer`` and no log. Each request of the page has the
token in a header. The socket has it as a subprotocol, the only header that a page can set there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Protocol

import msgspec
from aiohttp import web

from ...._wire.envelope import TOPIC_PREFIX
from ...._wire.json_codec import dumps, loads
from ....errors import DecodeError
from ..._machine.outgoing import Fanout
from ..._machine.server_state import Backend
from ..broadcast_endpoints import Bodies, json_response
from .live_view import Inspector, Watched

__all__ = ["EditableRows", "RowRefused", "StatusPage", "new_page_token"]

SUBPROTOCOL = "supabase-rt.inspector"
HEARTBEAT = 20.0
CLOSE_TIMEOUT = 0.25
LONGEST_FRAME = 4096
"""The page sends nothing on its socket, so a small limit is enough."""
PRIVATE = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
NOT_THE_PAGE = "this address is no longer good; open the one that the server printed"
Work = Callable[[web.Request], Awaitable[web.Response]]


def new_page_token() -> str:
    """Returns a random token that opens the page."""
    return f"srt_page_{secrets.token_urlsafe(32)}"


class RowRefused(Exception):
    """The row cannot be inserted; the message says why."""


class EditableRows(Protocol):
    """The tables that the page lists and inserts rows into."""

    async def tables(self) -> Sequence[str]:
        """Returns the tables whose changes are published, as ``schema.table``."""

    async def insert(self, schema: str, table: str, record: Mapping[str, Any]) -> Any:
        """Insert a row and return it; raises ``RowRefused``."""


class RefusedAction(Exception):
    """A request of the page that is refused; the message says why."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class StatusPage:
    """The page and the routes behind its token."""

    def __init__(
        self, token: str, rows: EditableRows, backend: Backend, sockets: Mapping[int, Watched]
    ) -> None:
        self._token = token.encode()
        self._rows = rows
        self._backend = backend
        self._bodies = Bodies(backend)
        self._inspector = Inspector(backend, sockets)

    def add_to(self, app: web.Application) -> None:
        """Add the routes, and close the page's sockets when the application stops."""
        app.router.add_get("/", self.page)
        app.router.add_get("/inspector/socket", self.socket)
        app.router.add_get("/inspector/rows", self._guarded(self.tables))
        app.router.add_post("/inspector/rows", self._guarded(self.insert))
        app.router.add_post("/inspector/broadcast", self._guarded(self.broadcast))

        async def close(_: web.Application) -> None:
            await self._inspector.close()

        app.on_shutdown.append(close)

    async def page(self, request: web.Request) -> web.Response:
        """``GET /``."""
        text, policy = _page()
        return web.Response(
            text=text,
            content_type="text/html",
            headers={
                **PRIVATE,
                "Content-Security-Policy": policy,
                "Cross-Origin-Opener-Policy": "same-origin",
                "X-Frame-Options": "DENY",
            },
        )

    # -- the token ---------------------------------------------------------------------

    def _opens(self, token: str) -> bool:
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token)

    def _guarded(self, work: Work) -> Work:
        """Returns a handler that requires the page's token."""

        async def answer(request: web.Request) -> web.Response:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not self._opens(token):
                response = json_response({"error": NOT_THE_PAGE}, 401)
            else:
                try:
                    response = await work(request)
                except RefusedAction as exc:
                    response = json_response({"error": str(exc)}, exc.status)
            response.headers.update(PRIVATE)
            return response

        return answer

    # -- reading -----------------------------------------------------------------------

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """``GET /inspector/socket``: the live events and state."""
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        words = [word.strip() for word in offered.split(",")]
        if SUBPROTOCOL not in words or not any(self._opens(word) for word in words):
            return web.json_response({"error": NOT_THE_PAGE}, status=401, headers=PRIVATE)
        # The response names this subprotocol only, and so does not repeat the token.
        ws = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            heartbeat=HEARTBEAT,
            timeout=CLOSE_TIMEOUT,
            compress=False,
            max_msg_size=LONGEST_FRAME,
        )
        if not ws.can_prepare(request).ok:
            return web.json_response({"error": "no WebSocket"}, status=400, headers=PRIVATE)
        await ws.prepare(request)
        await self._inspector.show(ws)
        return ws

    async def tables(self, request: web.Request) -> web.Response:
        """``GET /inspector/rows``: the tables."""
        return json_response({"tables": list(await self._rows.tables())})

    # -- writing -----------------------------------------------------------------------

    async def insert(self, request: web.Request) -> web.Response:
        """``POST /inspector/rows``: a new row; the answer is the row as inserted."""
        async with self._bodies.read(request) as data:
            return await self._insert(_object(data))

    async def _insert(self, body: dict[str, Any]) -> web.Response:
        name = body.get("table")
        if not isinstance(name, str) or not isinstance(body.get("record"), dict):
            raise RefusedAction("a row is a JSON object with the names of columns")
        schema, _, table = name.rpartition(".")
        try:
            row = await self._rows.insert(schema or "public", table, body["record"])
            return json_response({"row": row})
        except (RowRefused, ValueError) as exc:
            # A row that is nested too deeply cannot be written as JSON.
            problem = str(exc)
        raise RefusedAction(problem)

    async def broadcast(self, request: web.Request) -> web.Response:
        """``POST /inspector/broadcast``: a message for a topic; the answer is how many got it."""
        async with self._bodies.read(request) as data:
            return self._broadcast(_object(data))

    def _broadcast(self, body: dict[str, Any]) -> web.Response:
        topic, event, payload = (body.get(name) for name in ("topic", "event", "payload"))
        if not (isinstance(topic, str) and topic and isinstance(event, str) and event):
            raise RefusedAction("a broadcast has a topic and an event")
        if self._backend.limits.events.tripped:
            raise RefusedAction("Too many messages per second", 429)
        try:
            encoded = dumps(payload)
        except ValueError as exc:
            # JSON, but nested so deeply that it cannot be written again.
            raise RefusedAction(str(exc)) from None
        if len(encoded) > self._backend.settings.max_payload_size:
            raise RefusedAction("the payload is larger than max_payload_size", 422)
        content = {"type": "broadcast", "event": event, "payload": msgspec.Raw(encoded)}
        fanout = Fanout(TOPIC_PREFIX + topic, "broadcast", content)
        reached = self._backend.hub.broadcast((topic, body.get("private") is True), fanout)
        return json_response({"reached": reached})


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = loads(data)
    except DecodeError:
        body = None
    if isinstance(body, dict):
        return body
    raise RefusedAction("the body is a JSON object")


@cache
def _page() -> tuple[str, str]:
    """Returns the page, and the policy that runs only the page's own script."""
    folder = resources.files(__package__)
    text, style, script = (
        folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js")
    )
    policy = {
        "default-src": "'none'",
        "script-src": _digest(script),
        "style-src": _digest(style),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    text = text.replace("@STYLE@", style).replace("@SCRIPT@", script)
    return text, "; ".join(f"{name} {value}" for name, value in policy.items())


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

"""Serves the page, and does what its forms ask for beyond a broadcast."""

from __future__ import annotations

import base64
import hashlib
import html
import ipaddress
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Protocol

from aiohttp import web

from ...errors import DecodeError
from ...protocol.messages import loads
from ..auth import TokenError, Tokens
from ..http_api import json_response

__all__ = ["RowRefused", "Rows", "StatusPage"]

VALID = 12 * 3600.0
"""Seconds for which the token lives that a page on this machine is handed."""
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")


class RowRefused(Exception):
    """The row cannot be inserted; the message says why."""


class Rows(Protocol):
    """What the page may do with tables."""

    async def tables(self) -> Sequence[str]:
        """The tables whose changes are told, as ``schema.table``."""

    async def insert(self, schema: str, table: str, record: Mapping[str, Any]) -> Any:
        """Insert a row and give it back; raises ``RowRefused``."""


class StatusPage:
    """The handlers of the page.

    The page itself holds no secret. Where browser and server are the same machine it is handed
    a token of the service for half a day; anywhere else it asks for the service key.
    """

    def __init__(self, tokens: Tokens, rows: Rows) -> None:
        self._tokens = tokens
        self._rows = rows

    async def page(self, request: web.Request) -> web.Response:
        """``GET /``."""
        key = ""
        if _is_here(request):
            key = self._tokens.issue("service_role", now=time.time(), expires_in=VALID)
        text, policy = _page()
        return web.Response(
            text=text.replace("@KEY@", html.escape(key, quote=True)),
            content_type="text/html",
            headers={
                "Cache-Control": "no-store",
                "Content-Security-Policy": policy,
                "Referrer-Policy": "no-referrer",
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
            },
        )

    async def tables(self, request: web.Request) -> web.Response:
        """``GET /inspector/rows``: the tables."""
        if not self._is_service(request):
            return json_response({"error": "Unauthorized"}, 401)
        return json_response({"tables": list(await self._rows.tables())})

    async def insert(self, request: web.Request) -> web.Response:
        """``POST /inspector/rows``: a new row; the answer is the row as inserted."""
        if not self._is_service(request):
            return json_response({"error": "Unauthorized"}, 401)
        try:
            body = loads(await request.read())
        except DecodeError:
            body = None
        name = body.get("table") if isinstance(body, dict) else None
        if not isinstance(name, str) or not isinstance(body.get("record"), dict):
            return json_response({"error": "a row is a JSON object with the names of columns"}, 400)
        schema, _, table = name.rpartition(".")
        try:
            row = await self._rows.insert(schema or "public", table, body["record"])
        except RowRefused as exc:
            return json_response({"error": str(exc)}, 400)
        return json_response({"row": row})

    def _is_service(self, request: web.Request) -> bool:
        _, _, text = request.headers.get("Authorization", "").partition(" ")
        try:
            return self._tokens.verify(text, time.time()).role == "service_role"
        except TokenError:
            return False


def _is_here(request: web.Request) -> bool:
    """Whether a browser on this machine asked for this very machine.

    The name in ``Host`` counts too: a page from elsewhere may have its own name resolve to
    127.0.0.1 and read what is served there. A proxy may come from here and speak for others.
    """
    if any(name in request.headers for name in FORWARDED):
        return False
    try:
        host = request.url.host or ""
    except ValueError:
        # No name and no address at all.
        return False
    return _is_loopback(request.remote or "") and (host == "localhost" or _is_loopback(host))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


@cache
def _page() -> tuple[str, str]:
    """The page but for the key, and the policy that lets nothing run but what is in it."""
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

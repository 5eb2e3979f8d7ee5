"""The gate before every route: the ``Host`` and the ``Origin`` that a request may have.

A foreign page can make a browser send requests here. The browser names that page in ``Origin``,
and in ``Host`` the name by which the page found this server. Both are checked before all else.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterable, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .broadcast_endpoints import json_response

__all__ = ["Gate", "Refusal", "RefusedRequest", "gated"]

LETTERS = re.ASCII | re.IGNORECASE
AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::([0-9]{0,5}))?", LETTERS)
ORIGIN = re.compile(r"([a-z][a-z0-9+.-]{0,31})://(.+)", LETTERS)
TARGET = re.compile(r"[a-z][a-z0-9+.-]*://([^/?#]*).*", LETTERS | re.DOTALL)
"""A request target with a server in it, as clients send it to a proxy."""
PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
"""The schemes of local pages, and their ports. Browsers never send ``ws``; other clients do."""


@dataclasses.dataclass(frozen=True)
class Refusal:
    """The status and the text for a request that does not pass."""

    status: int
    text: str


class RefusedRequest(web.Response):
    """The response with the reason; it closes the connection, so no body is read."""

    def __init__(self, refusal: Refusal) -> None:
        plain = json_response({"error": refusal.text}, refusal.status)
        super().__init__(
            body=plain.body,
            status=refusal.status,
            content_type="application/json",
            charset="utf-8",
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )
        self.why: str = refusal.text
        self.force_close()


class Gate:
    """Decides whether a request may pass, by its head.

    ``allow_hosts`` are further names of this server. ``allow_origins`` are further pages, in the
    form of browsers: ``https://app.example``. If ``listens_on`` is a name, it is allowed too.
    Raises ``ValueError`` for an invalid name or origin.
    """

    def __init__(
        self,
        allow_hosts: Iterable[str] = (),
        allow_origins: Iterable[str] = (),
        *,
        listens_on: str = "localhost",
    ) -> None:
        for name, given in (("allow_hosts", allow_hosts), ("allow_origins", allow_origins)):
            if isinstance(given, str):
                raise TypeError(f"{name} is a list of texts, not a text")
        self._hosts = frozenset((*map(_name, allow_hosts), _bare(listens_on)))
        self._origins = frozenset(map(_origin, allow_origins))

    def refusal(
        self,
        target: str,
        hosts: Sequence[str],
        origins: Sequence[str] = (),
        site: str = "",
        mode: str = "",
    ) -> Refusal | None:
        """Decide on one request; returns None if it may pass.

        ``target`` is the second word of the request line. ``hosts`` and ``origins`` are the values
        of all such headers. ``site`` and ``mode`` are the values of ``Sec-Fetch-Site`` and
        ``Sec-Fetch-Mode``.
        """
        if len(hosts) != 1:
            return Refusal(400, "a request has one Host header")
        named = [hosts[0]]
        if not target.startswith("/") and target != "*":
            found = TARGET.fullmatch(target)
            if found is None:
                return Refusal(400, "the request target is no path of this server")
            # The target overrides the header (RFC 9112, 3.2.2), so neither may be foreign.
            named.append(found[1])
        for authority in named:
            refusal = self._host(authority)
            if refusal is not None:
                return refusal
        if not origins:
            # Browsers send no Origin for images, scripts and prefetching, which need no permission.
            # This server sends no such content to another site.
            if site.lower() == "cross-site" and mode.lower() != "navigate":
                return Refusal(403, "another site may not load anything from here")
            return None
        return self._page(origins, named[-1])

    def _host(self, authority: str) -> Refusal | None:
        found = AUTHORITY.fullmatch(authority)
        if found is None:
            return Refusal(400, "the Host is no name and no address")
        name = _bare(found[1])
        if _is_address(name) or _is_loopback(name) or name in self._hosts:
            return None
        return Refusal(
            403,
            f"Host {name} is not a name of this server; to allow it: --allow-host {name} "
            f"(in Python allow_hosts=[{name!r}])",
        )

    def _page(self, origins: Sequence[str], authority: str) -> Refusal | None:
        parts = _parts(origins[0]) if len(origins) == 1 else None
        if parts is None:
            return Refusal(
                403,
                "the Origin is null or unreadable, as of a file or a framed page; "
                "open the page from http://localhost instead",
            )
        scheme, name, port = parts
        local = scheme in PORTS and (
            _is_loopback(name) or _parts(f"{scheme}://{authority}") == parts
        )
        origin = _text(scheme, name, port)
        if local or origin in self._origins:
            return None
        return Refusal(
            403,
            f"Origin {origin} is not allowed; to allow it: --allow-origin {origin} "
            f"(in Python allow_origins=[{origin!r}])",
        )


def gated(gate: Gate) -> Middleware:
    """Returns the gate as a middleware, which runs for every request, also without a route."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = request.headers
        refusal = gate.refusal(
            request.raw_path,
            headers.getall("Host", []),
            headers.getall("Origin", []),
            headers.get("Sec-Fetch-Site", ""),
            headers.get("Sec-Fetch-Mode", ""),
        )
        return await handler(request) if refusal is None else RefusedRequest(refusal)

    return check


# -- names ---------------------------------------------------------------------------------


def _bare(name: str) -> str:
    """Returns a host name in lower case, without the final dot of a fully qualified one."""
    return name.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    """Returns True for an IP address, which no DNS entry can redirect."""
    return _address(name) is not None


def _is_loopback(name: str) -> bool:
    address = _address(name)
    if address is not None:
        return address.is_loopback
    # Browsers resolve these by themselves (RFC 6761, 6.3).
    return name == "localhost" or name.endswith(".localhost")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        if name.startswith("["):
            return ipaddress.IPv6Address(name[1:-1])
        return ipaddress.IPv4Address(name)
    except ValueError:
        return None


def _parts(origin: str) -> tuple[str, str, int | None] | None:
    """Returns scheme, name and port of an origin; None for ``null`` and for invalid ones."""
    split = ORIGIN.fullmatch(origin)
    found = AUTHORITY.fullmatch(split[2]) if split else None
    if split is None or found is None:
        return None
    scheme = split[1].lower()
    return scheme, _bare(found[1]), int(found[2]) if found[2] else PORTS.get(scheme)


def _text(scheme: str, name: str, port: int | None) -> str:
    return f"{scheme}://{name}" + ("" if port == PORTS.get(scheme) else f":{port}")


def _name(text: str) -> str:
    found = AUTHORITY.fullmatch(text)
    if found is None or found[2] is not None:
        raise ValueError(f"allow_hosts has names such as 'dev.example', without a port: {text!r}")
    return _bare(found[1])


def _origin(text: str) -> str:
    parts = _parts(text)
    if parts is None:
        raise ValueError(f"allow_origins has origins such as 'https://app.example': {text!r}")
    return _text(*parts)

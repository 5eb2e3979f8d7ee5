"""The URLs that this client requests, derived from the URL that the user gave."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlsplit

__all__ = ["Endpoint", "path_segment", "realtime_endpoint", "redact"]

_SOCKET_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_HTTP_SCHEMES: Final = {"ws": "http", "wss": "https"}
_EXAMPLE: Final = "wss://<project ref>.supabase.co/realtime/v1"
# supabase-js removes these one after the other: /websocket/socket loses both.
_SOCKET_PATHS: Final = tuple(
    re.compile(rf"/{name}\Z", re.IGNORECASE) for name in ("socket/websocket", "socket", "websocket")
)


def encode_component(text: str) -> str:
    """Percent-encode as ``encodeURIComponent`` of JavaScript does."""
    return quote(text, safe="!~*'()")


def path_segment(text: str) -> str:
    """Returns a name as one segment of a path.

    ``.`` and ``..`` are escaped too: as they are, they lead to another address.
    """
    return text.replace(".", "%2E") if text in (".", "..") else encode_component(text)


def _word(name: str, value: Any) -> str:
    """Returns a value of the query as JavaScript writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    raise TypeError(f"params[{name!r}] is text or a number, not {type(value).__name__}")


def _query(params: Mapping[str, Any]) -> str:
    return "&".join(
        f"{encode_component(name)}={encode_component(_word(name, value))}"
        for name, value in params.items()
    )


def _join(url: str, *queries: str) -> str:
    found = "&".join(query for query in queries if query)
    return f"{url}?{found}" if found else url


def _split(url: Any, example: str) -> SplitResult:
    """Returns the parts of a URL; raises ``TypeError`` or ``ValueError`` for an unusable one."""
    if not isinstance(url, str):
        raise TypeError(f"the URL is a str such as {example!r}, not {type(url).__name__}")
    shown = redact(url)
    # urlsplit removes line breaks and tabs silently, so another address would be called.
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError(f"URL {shown!r} holds a blank or a control character; take it out")
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        # Without the cause, which quotes the host part: it may hold a password.
        raise ValueError(
            f"URL {shown!r} has a host or a port that cannot be read; write {example!r}"
        ) from None
    if parts.scheme not in _SOCKET_SCHEMES:
        raise ValueError(
            f"URL {shown!r} must start with ws://, wss://, http:// or https://, such as {example!r}"
        )
    if not host:
        raise ValueError(f"URL {shown!r} names no host; write {example!r}")
    return parts


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Endpoint:
    """The URL of a Realtime service, the part before ``/websocket``.

    ``url`` is the user's, such as ``wss://x.supabase.co/realtime/v1``. The scheme may also be
    ``ws``, ``http`` or ``https``; the path may be any, with or without a trailing slash. Raises
    ``ValueError`` or ``TypeError`` with a remedy.
    """

    base: str
    """Scheme ``ws`` or ``wss``, host and path, without a trailing slash."""
    query: str = field(default="")
    """The query of the user's URL; it comes before our own parameters."""

    def __init__(self, url: str) -> None:
        parts = _split(url, _EXAMPLE)
        scheme = _SOCKET_SCHEMES[parts.scheme]
        object.__setattr__(self, "base", f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}")
        object.__setattr__(self, "query", parts.query)

    def __repr__(self) -> str:
        return f"Endpoint({redact(_join(self.base, self.query))!r})"

    def socket_url(self, params: Mapping[str, Any], vsn: str, log_level: str | None = None) -> str:
        """Returns the URL of the socket: ``params`` in their order, ``log_level``, then ``vsn``.

        Raises ``TypeError`` for a parameter that is neither text nor a number
        (docs/protocol.md#query-parameters).
        """
        given = {name: value for name, value in params.items() if name != "vsn"}
        if log_level:
            given["log_level"] = log_level
        return _join(f"{self.base}/websocket", self.query, _query({**given, "vsn": vsn}))

    def _http_base(self) -> str:
        scheme, _, rest = self.base.partition("://")
        host, slash, path = rest.partition("/")
        path = slash + path
        for suffix in _SOCKET_PATHS:
            path = suffix.sub("", path)
        return f"{_HTTP_SCHEMES[scheme]}://{host}{path}/api/broadcast"

    @property
    def tables_url(self) -> str | None:
        """The URL of PostgREST in a Supabase project; None if the path is not ``/realtime/v1``."""
        scheme, _, rest = self.base.partition("://")
        if not rest.endswith("/realtime/v1"):
            return None
        return f"{_HTTP_SCHEMES[scheme]}://{rest.removesuffix('/realtime/v1')}/rest/v1"

    @property
    def http_url(self) -> str:
        """The URL for batches of broadcasts (docs/protocol.md#broadcasts-by-http-in-batches)."""
        return _join(self._http_base(), self.query)

    def broadcast_url(
        self,
        sub_topic: str,
        event: str,
        private: bool = False,
        persist: bool | Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
    ) -> str:
        """Returns the URL for one broadcast (docs/protocol.md#one-broadcast-by-http).

        ``sub_topic`` is the topic without ``realtime:``; ``persist`` is True or ``{"ttl": n}``;
        ``params`` come first in the query (supabase-js sends ``apikey`` and ``vsn`` there).
        """
        path = f"{path_segment(sub_topic)}/events/{path_segment(event)}"
        flags: dict[str, Any] = dict(params or {})
        if private:
            flags["private"] = True
        if isinstance(persist, Mapping):
            flags.update({f"persist[{name}]": value for name, value in persist.items()})
        elif persist:
            flags["persist"] = True
        return _join(f"{self._http_base()}/{path}", self.query, _query(flags))


def realtime_endpoint(supabase_url: str) -> str:
    """Returns the Realtime URL of a Supabase project: ``{url}/realtime/v1`` with ``ws`` or ``wss``.

    A base path is kept and a query dropped, as in supabase-js. Raises ``ValueError`` or
    ``TypeError`` with a remedy.
    """
    parts = _split(supabase_url, "https://<project ref>.supabase.co")
    scheme = _SOCKET_SCHEMES[parts.scheme]
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/realtime/v1"


_MASK: Final = "***"
_SECRETS: Final = (
    # name=value of a query, of libpq or a repr, "name": "value" of JSON, name: value of a header
    (
        re.compile(
            r"""(?ix) ((?<![a-z]) (?:[a-z]{1,30}[_-]){0,3}
            (?:api[_-]?key|token|jwt|secret|(?:ssl)?password)
            ["']? \s* (?:=|:|%3D) \s*)
            (?: (["']) (?:[^\\"'] | \\. | (?!\2)["'])* \2
              | ["']? (?:\\. | [^\\\s&"',;})\]#])+ )"""
        ),
        rf"\1\2{_MASK}\2",
    ),
    (re.compile(r"(?i)(\bbearer\s+)[^\s\"',;]+"), rf"\1{_MASK}"),
    # A slash in a password must be percent-encoded; a password with a plain one is masked too.
    (
        re.compile(r"(?<=://)(?:[^/?#\s]*@|[^/?#\s@:]*:(?!\d+(?:[/?#]|\Z))\S*@)"),
        f"{_MASK}@",
    ),
    # A JWT, whole or truncated: its header is a JSON object, whose base64 begins with eyJ.
    (re.compile(r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,2}"), _MASK),
    (re.compile(r"(?:\bsb_|sb_(?:publishable|secret)_)[A-Za-z0-9_-]+"), _MASK),
)


def redact(text: str) -> str:
    """Returns ``text`` with keys, tokens and passwords masked, for logs and ``repr``."""
    for pattern, mask in _SECRETS:
        text = pattern.sub(mask, text)
    return text

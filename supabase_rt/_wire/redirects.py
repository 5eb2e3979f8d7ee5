"""The hint for a redirect. No redirect is followed, because the request carries a key.

The hint names only scheme, host and port of the target, since its path and query may repeat secrets
of the request. The other side chooses the target, so characters beyond ASCII are percent-encoded.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urljoin, urlsplit

__all__ = ["is_redirect", "redirect_hint"]

_PLAIN: Final = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_LONGEST_NAME: Final = 253


def is_redirect(status: int) -> bool:
    """Returns True for a status of a redirect: 3xx but 304, which means "not modified"."""
    return 300 <= status < 400 and status != 304


def redirect_hint(location: str | None, asked: str) -> str:
    """Returns the hint for a redirect of the URL ``asked`` to ``location``, as in the header."""
    here, there = _origin(asked), _origin(_absolute(location, asked))
    if there is None:
        return "the URL leads elsewhere, to no usable address: check the URL, and ask its owner"
    if here is not None and here.startswith("https:") and there.startswith("http:"):
        return (
            f"the URL leads to {there}, without TLS: no key goes there; "
            "use the https:// address of your project"
        )
    if there == here:
        return f"the URL leads to another path of {there}: mend the path; no redirect is followed"
    return f"the URL leads elsewhere: if that server is yours, use {there}; no redirect is followed"


def _absolute(location: str | None, asked: str) -> str:
    if not location:
        return ""
    scheme, mark, rest = asked.partition("://")
    try:
        return urljoin(f"{_PLAIN.get(scheme, scheme)}{mark}{rest}", location)
    except ValueError:
        return ""


def _origin(url: str) -> str | None:
    """Returns scheme, host and port of ``url`` in ASCII, or None for an unusable URL."""
    try:
        parts = urlsplit(url)
        scheme, port = _PLAIN.get(parts.scheme), parts.port
        host = quote(parts.hostname or "", safe=":")
    except ValueError:
        return None
    if scheme is None or not host or len(host) > _LONGEST_NAME:
        return None
    if ":" in host:
        host = f"[{host}]"
    is_default = port is None or port == {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{host}" if is_default else f"{scheme}://{host}:{port}"

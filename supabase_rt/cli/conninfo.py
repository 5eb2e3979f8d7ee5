"""Masks the passwords in a database's URL or in libpq's keywords."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["without_password"]

SECRET = {
    "password",
    "sslpassword",
    "oauth_client_secret",
    "scram_client_key",
    "scram_server_key",
    "sslkeylogfile",
}
"""Keywords that libpq marks as secret, and two more that are as good as a password."""

MASK = "***"
PAIR = re.compile(r"(\s*([^\s=]+)\s*=\s*)('(?:[^'\\]|\\.)*'?|(?:[^\s\\]|\\.|\\$)*)", re.DOTALL)
"""A keyword and its value, quoted or not; a backslash escapes the next character."""
USER = re.compile(r"(://[^/@:]*:).*@", re.DOTALL)
"""The password in a URL, up to the last ``@``: passwords may contain an unencoded ``@``."""


def without_password(url: str) -> str:
    """Returns the URL or the keywords of a database with all passwords masked.

    Keywords that libpq reads differently, or not at all, are masked as a whole.
    """
    if "://" in url.split("=", 1)[0]:
        return _url(url)
    shown = _keywords(url)
    return shown if _is_clean(shown) else MASK


def _keywords(text: str) -> str:
    return PAIR.sub(lambda pair: f"{pair[1]}{MASK if pair[2] in SECRET else pair[3]}", text)


def _url(text: str) -> str:
    place, mark, query = USER.sub(rf"\1{MASK}@", text).partition("?")
    pairs = [each.partition("=") for each in query.split("&")]
    shown = (
        # libpq also decodes keywords: p%61ssword is password.
        f"{word}{sign}{MASK if sign and unquote(word) in SECRET else value}"
        for word, sign, value in pairs
    )
    return f"{place}{mark}{'&'.join(shown)}"


def _is_clean(shown: str) -> bool:
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:  # pragma: no cover - a command that shows a database needs it anyway
        return True
    try:
        found = conninfo_to_dict(shown)
    except ProgrammingError:
        return False
    return all(found.get(word) in (None, MASK) for word in SECRET)

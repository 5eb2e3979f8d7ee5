"""How a database is found, written in either way libpq reads, fit to be shown."""

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
"""Words that libpq itself marks as not to be shown, and two more that are as good as a password."""

MASK = "***"
PAIR = re.compile(r"(\s*([^\s=]+)\s*=\s*)('(?:[^'\\]|\\.)*'?|(?:[^\s\\]|\\.|\\$)*)", re.DOTALL)
"""A word and its value: quoted or not, with a backslash before what belongs to the value."""
USER = re.compile(r"(://[^/@:]*:).*@", re.DOTALL)
"""To the last ``@``: a password that should have been percent-encoded is one all the same."""


def without_password(url: str) -> str:
    """The URL or the keywords of a database, fit to be shown.

    Of keywords that libpq reads in another way, or not at all, nothing is shown.
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
        # libpq reads p%61ssword for password, too.
        f"{word}{sign}{MASK if sign and unquote(word) in SECRET else value}"
        for word, sign, value in pairs
    )
    return f"{place}{mark}{'&'.join(shown)}"


def _is_clean(shown: str) -> bool:
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:  # pragma: no cover - who shows a database has it
        return True
    try:
        found = conninfo_to_dict(shown)
    except ProgrammingError:
        return False
    return all(found.get(word) in (None, MASK) for word in SECRET)

"""The tokens of a recording, created again.

A placeholder names only role and subject. The other properties of a token are in the check that
the script made after sending it.
"""

from __future__ import annotations

import re
import time

from supabase_rt.server import LocalRealtime
from supabase_rt.server.tokens import Tokens
from tests.contract.replay.recordings import Recording

from .tables import OTHER, OWNER

__all__ = ["SHORT", "Credentials", "kinds"]

SHORT = 1.0
"""Seconds that a short-lived token is valid here; in the recording it was four."""

PLACEHOLDER = re.compile(r"JWT:[a-z_:]+")
KINDS = {
    r"^(access_token|join|handshake) expired": "expired",
    r"^(access_token|join|handshake) (bad|wrong) signature": "badly signed",
    r"^(join|handshake) no exp": "without exp",
    r"^handshake no role": "without role",
    r"^handshake malformed": "malformed",
    r"^handshake no apikey": "missing",
    r"^unknown tenant": "unknown tenant",
    r"^unknown vsn": "unknown vsn",
    r"a token that lives 4 s$": "short",
}


def kinds(recording: Recording) -> dict[int, str]:
    """Returns the checks of tokens, by the number of the step that sends the token."""
    found: dict[int, str] = {}
    last = -1
    for step in recording.steps:
        if step.direction in ("send", "http_req"):
            last = step.number
        for pattern, kind in KINDS.items():
            if step.direction == "check" and re.search(pattern, step.about["what"]):
                found.setdefault(last, kind)
    return found


class Credentials:
    """Tokens of one server; the same placeholder is the same token."""

    def __init__(self, server: LocalRealtime) -> None:
        self._server = server
        self._known: dict[tuple[str, str], str] = {}

    def fill(self, text: str, conn: str = "", kind: str | None = None) -> str:
        """Replace the placeholders in a text by tokens."""
        return PLACEHOLDER.sub(lambda found: self.token(found[0], conn, kind), text)

    def token(self, placeholder: str, conn: str = "", kind: str | None = None) -> str:
        """Returns the token of a placeholder; the second user of a recording is on socket B."""
        role = placeholder.split(":")[1]
        if kind is not None or role == "norole":
            return self._odd(role, kind)
        if role == "anon":
            return self._server.anon_key
        who = OTHER if conn == "B" else OWNER
        return self._known.setdefault((placeholder, who), self._server.token(role, who))

    def _odd(self, role: str, kind: str | None) -> str:
        mint, now = self._server.backend.tokens.mint, time.time()
        if kind == "malformed":
            return "not-a-jwt"
        if kind == "badly signed":
            return Tokens("another-secret-of-at-least-32-bytes-").mint(
                {"role": role, "exp": now + 3600}
            )
        if kind == "without exp":
            return mint({"role": role})
        if kind == "without role" or role == "norole":
            return mint({"exp": now + 3600})
        lives = {"expired": -60.0, "short": SHORT}.get(kind or "", 3600.0)
        return mint({"role": role, "sub": OWNER, "exp": now + lives})

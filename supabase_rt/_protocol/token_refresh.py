"""When to ask for the next token: some time before the one in use expires.

Heartbeats look for a new token too, but they may be rarer than tokens are short, and the one
before the end may come too early for a callback that keeps its token while it is good. The server
ends a channel in the second its token expires.
"""

from __future__ import annotations

import math

from .events import TokenWanted
from .shared_state import SharedState

__all__ = ["AHEAD", "TokenRefresh"]

AHEAD = 30.0
"""Seconds before the end; for a short-lived token half of its time."""
LAST_CALL = 2.0
"""Nearer to the end another asking would come too late."""


class TokenRefresh:
    """Asks for a token by one timer of the session, ``"token"``, while a link is open."""

    def __init__(self, context: SharedState) -> None:
        self._context = context

    def plan(self, now: float) -> None:
        """There is a link, or another token: ask before it ends."""
        context = self._context
        lifetime = context.token_lifetime(now)
        if context.has_token_source and context.is_open and LAST_CALL <= lifetime < math.inf:
            ahead = min(AHEAD, lifetime / 2)
            context.outbox.deadlines.set("token", now + lifetime - ahead)
        else:
            self.stop()

    def stop(self) -> None:
        """The link is gone: the next one is opened with a token that is asked for first."""
        self._context.outbox.deadlines.cancel("token")

    def due(self, now: float) -> None:
        """Ask; and once more in half of the time that is left, if nothing better comes."""
        self._context.outbox.emit(TokenWanted(blocking=False))
        self.plan(now)

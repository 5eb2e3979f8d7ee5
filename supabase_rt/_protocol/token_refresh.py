"""The request for the next access token, made some time before the current one expires.

Each heartbeat asks for a token too, but a token may live for less than one heartbeat interval. The
last heartbeat may also be too early: a callback often returns its cached token until shortly
before the end. The server ends a channel in the second its token expires.
"""

from __future__ import annotations

import math

from .events import TokenWanted
from .shared_state import SharedState

__all__ = ["AHEAD", "TokenRefresh"]

AHEAD = 30.0
"""Seconds before the end; for a short-lived token, half of its lifetime."""
LAST_CALL = 2.0
"""Seconds before the end; after that moment another request would be too late."""


class TokenRefresh:
    """Asks for a token by one deadline of the client, ``"token"``, while a link is open."""

    def __init__(self, context: SharedState) -> None:
        self._context = context

    def plan(self, now: float) -> None:
        """Set the deadline: a link was opened or the token changed."""
        context = self._context
        lifetime = context.token_lifetime(now)
        if context.has_token_source and context.is_open and LAST_CALL <= lifetime < math.inf:
            ahead = min(AHEAD, lifetime / 2)
            context.outbox.deadlines.set("token", now + lifetime - ahead)
        else:
            self.stop()

    def stop(self) -> None:
        """Cancel the deadline: the link is gone, and the next one begins with a fresh token."""
        self._context.outbox.deadlines.cancel("token")

    def due(self, now: float) -> None:
        """Ask now, and again after half of the remaining time unless the token changes."""
        self._context.outbox.emit(TokenWanted(blocking=False))
        self.plan(now)

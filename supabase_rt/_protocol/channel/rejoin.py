"""How a channel that was lost or refused comes back: soon, later, after a token, or not at all.

Attempts of a channel are numbered from 1: something was wrong with it, so at once would be too
soon. ``rest`` holds the error after which no attempt follows by itself: for ever, or until the
token changes.
"""

from __future__ import annotations

import math
from typing import Any

from ...errors import RealtimeError
from ..events import ErrorReported
from ..refusals import Verdict
from ..shared_state import SharedState

__all__ = ["Rejoin"]

RATE_LIMIT_PAUSE = 30.0
TOKEN_REFUSALS = 3
"""After this many refusals of one cause in a row a fresh token is no remedy."""


class Rejoin:
    """Counts the failures of one channel and decides when it is joined again."""

    def __init__(self, channel: Any, context: SharedState) -> None:
        self.final_error: RealtimeError | None = None
        self.refusals: int = 0
        self.told_token: str | None = None
        """The token that the server was told last, with the join or after it."""
        self._channel = channel
        self._context = context
        self._until_token = False
        self._token_refusals = 0
        self._failures = 0
        self._paused_until = 0.0
        self._pushed_at: float | None = None

    # -- what happened -------------------------------------------------------------------

    def wanted(self) -> None:
        """The user asks (again): what was final before is tried once more."""
        self.final_error = None
        self._until_token = False

    def joined(self) -> None:
        self.refusals = self._token_refusals = 0

    def lost(self, lived: float) -> None:
        """A join is over after ``lived`` seconds; if it was a good one, counting starts anew."""
        if lived >= self._context.policy.stable_after:
            self._failures = 0

    def told(self, token: str | None, pushed_at: float | None = None) -> None:
        """The server was told the token: with a join, or by a push into a running one."""
        self.told_token = token
        self._pushed_at = pushed_at

    # -- what follows --------------------------------------------------------------------

    def follow(self, error: RealtimeError, verdict: Verdict, now: float) -> None:
        """Do what the table of refusals says."""
        if verdict in (Verdict.AFTER_TOKEN, Verdict.FINAL_UNTIL_TOKEN):
            self._token_refused(error, verdict, now)
        elif verdict is Verdict.FINAL:
            self.stop_rejoining(error, until_token=False)
        else:
            pause = RATE_LIMIT_PAUSE if verdict is Verdict.RETRY_LATER else 0.0
            self.schedule(now, at_least=pause)

    def _token_refused(self, error: RealtimeError, verdict: Verdict, now: float) -> None:
        # Refused was what the server had been told; the token may have changed since.
        again = self._context.token != self.told_token
        if verdict is Verdict.AFTER_TOKEN:
            self._token_refusals += 1
            is_remedy = self._context.has_token_source or self._may_have_crossed(now)
            again = again or (is_remedy and self._token_refusals < TOKEN_REFUSALS)
        if again and self._context.policy.enabled:
            error.retryable = True
            self.schedule(now)
        else:
            self.stop_rejoining(error, until_token=True)

    def _may_have_crossed(self, now: float) -> bool:
        """Whether a good token was on its way to the server when the old one expired."""
        context = self._context
        return (
            self._pushed_at is not None
            and now - self._pushed_at < context.timeout
            and 0 < context.token_lifetime(now) < math.inf
        )

    def stop_rejoining(self, error: RealtimeError, *, until_token: bool) -> None:
        self.final_error = error
        self._until_token = until_token
        self._context.outbox.emit(ErrorReported(error, self._channel))

    def schedule(self, now: float, *, at_least: float = 0.0) -> None:
        """Join again by the policy."""
        if not self._context.policy.enabled:
            return
        self._failures += 1
        self._paused_until = now + at_least
        delay = max(self._context.delay(self._failures), at_least)
        self._context.outbox.deadlines.set((self._channel, "rejoin"), now + delay)

    # -- what wakes it -------------------------------------------------------------------

    def paused_until(self, now: float) -> float | None:
        """When a rate limit lets the channel join, if it does not now.

        The pause outlives the link: the server cuts the socket after refusing a join for its
        rate, and joining at once on the next one would meet the same limit.
        """
        return self._paused_until if self._paused_until > now else None

    def token_changed(self) -> bool:
        """Whether the channel rested for its token, and so may go now."""
        if not self._until_token:
            return False
        self.wanted()
        self._token_refusals = 0
        return True

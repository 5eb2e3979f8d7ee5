"""The decision about a lost or refused channel: join again soon, later, after a token, or never.

The attempts of a channel are numbered from 1, because attempt 0 has no delay and the channel has
just failed. After ``final_error`` no attempt follows by itself, either for ever or until the token
changes.

A refusal of the final kind stops a channel that was never joined. A channel that was joined once is
tried again for ``final_after`` seconds, because what it asks for was right before.
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
"""After this many refusals of one cause in a row, a fresh token does not help."""


class Rejoin:
    """Counts the failures of one channel and decides when it is joined again."""

    def __init__(self, channel: Any, context: SharedState) -> None:
        self.final_error: RealtimeError | None = None
        self.refusals: int = 0
        self.sent_token: str | None = None
        """The token that was sent last, with the join or after it."""
        self._channel = channel
        self._context = context
        self._until_token = False
        self._token_refusals = 0
        self._failures = 0
        self._paused_until = 0.0
        self._pushed_at: float | None = None
        self._ever_joined = False
        self._final_since: float | None = None
        """The time since which all failures are of the final kind."""

    # -- what happened -------------------------------------------------------------------

    def allow(self) -> None:
        """Allow joins again after a final error: the user called ``subscribe``."""
        self.final_error = self._final_since = None
        self._until_token = False

    def joined(self) -> None:
        self.refusals = self._token_refusals = 0
        self._ever_joined = True
        self._until_token = False

    def link_lost(self) -> None:
        """Note a loss of the link, after which refusals of the final kind count anew."""
        self._final_since = None

    def lost(self, lived: float) -> None:
        """Count failures anew if the join that ended had ``lived`` for ``stable_after`` seconds."""
        if lived >= self._context.policy.stable_after:
            self._failures = 0
            # A server that joins a channel only to close it is not "something else".
            self._final_since = None

    def token_sent(self, token: str | None, pushed_at: float | None = None) -> None:
        """Note the token that was sent with a join or, at ``pushed_at``, into a running one."""
        self.sent_token = token
        self._pushed_at = pushed_at

    @property
    def retries_final(self) -> bool:
        """True if the last refusal was of the final kind, and the channel is joined again."""
        return self._final_since is not None and self.final_error is None

    # -- what follows --------------------------------------------------------------------

    def act_on(self, error: RealtimeError, verdict: Verdict, now: float) -> None:
        """Act on the verdict of a refusal."""
        if verdict in (Verdict.AFTER_TOKEN, Verdict.FINAL_UNTIL_TOKEN):
            self._token_refused(error, verdict, now)
        elif verdict is Verdict.FINAL:
            self._refused_for_good(error, now, until_token=False)
        else:
            pause = RATE_LIMIT_PAUSE if verdict is Verdict.RETRY_LATER else 0.0
            self.schedule(now, at_least=pause)

    def _token_refused(self, error: RealtimeError, verdict: Verdict, now: float) -> None:
        # The refusal is about the token sent last; the token may have changed since.
        again = self._context.token != self.sent_token
        if verdict is Verdict.AFTER_TOKEN:
            self._token_refusals += 1
            is_remedy = self._context.has_token_source or self._may_have_crossed(now)
            again = again or (is_remedy and self._token_refusals < TOKEN_REFUSALS)
        if again and self._context.policy.enabled:
            error.retryable = True
            self.schedule(now)
        elif verdict is Verdict.AFTER_TOKEN:
            self.stop_rejoining(error, until_token=True)
        else:
            self._refused_for_good(error, now, until_token=True)

    def _refused_for_good(self, error: RealtimeError, now: float, *, until_token: bool) -> None:
        """Act on a refusal of the final kind: stop, or try again if the channel was joined once."""
        policy = self._context.policy
        since = now if self._final_since is None else self._final_since
        if not self._ever_joined or not policy.enabled or now - since >= policy.final_after:
            self.stop_rejoining(error, until_token=until_token)
            return
        error.retryable = True
        self._context.outbox.emit(ErrorReported(error, self._channel))
        self.schedule(now)
        self._final_since = since
        # A new token joins the channel before the pause is over.
        self._until_token = until_token

    def _may_have_crossed(self, now: float) -> bool:
        """Returns True if a valid token was under way when the old one expired."""
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
        self._final_since = None
        self._until_token = False
        if not self._context.policy.enabled:
            return
        self._failures += 1
        self._paused_until = now + at_least
        delay = max(self._context.delay(self._failures), at_least)
        self._context.outbox.deadlines.set((self._channel, "rejoin"), now + delay)

    # -- what wakes it -------------------------------------------------------------------

    def paused_until(self, now: float) -> float | None:
        """Returns the time until which a rate limit forbids to join, or None.

        The pause outlives the link. The server closes the socket after a join beyond the limit,
        and an immediate join on the next socket would exceed it again.
        """
        return self._paused_until if self._paused_until > now else None

    def token_changed(self) -> bool:
        """Returns True if the channel waited for a new token and may join now."""
        if not self._until_token:
            return False
        self.allow()
        self._token_refusals = 0
        return True

"""When to try again, and when to stop.

Whether a link is wanted is our own intent; the close code or the HTTP status only chooses the
delay and whether another attempt makes sense at all.
"""

from __future__ import annotations

from ..errors import ConnectionFailed, ConnectionLost, GaveUp, RealtimeError
from .events import ConnectDue, ReconnectScheduled
from .shared_state import Context
from .verdicts import close_code, http_failure, http_starts_slow

__all__ = ["Reconnector"]


def starts_slow(error: BaseException) -> bool:
    """Whether the server asked for distance: 1012, 1013, 429 and 5xx."""
    if isinstance(error, ConnectionLost):
        return close_code(error.close_code)[1]
    status = error.status if isinstance(error, ConnectionFailed) else None
    return status is not None and http_starts_slow(status)


def is_final(error: BaseException) -> bool:
    """Whether the same attempt would fail again until somebody changes something."""
    if isinstance(error, ConnectionLost):
        return not close_code(error.close_code)[0]
    if isinstance(error, ConnectionFailed) and error.status is not None:
        return not http_failure(error.status)[0]
    return isinstance(error, RealtimeError) and not error.retryable


class Reconnector:
    """Counts attempts. The count goes back to zero only after a link has proved itself."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._attempt = 0
        self._made = 0
        self._up_at: float | None = None

    def start(self) -> None:
        """The user asked for a link: at once, and with all attempts ahead."""
        self._attempt = self._made = 0
        self._up_at = None
        self._context.outbox.tell(ConnectDue())

    def stop(self) -> None:
        self._context.outbox.timers.cancel("connect")
        self._up_at = None

    def link_up(self, now: float) -> None:
        self._up_at = now

    def next_attempt(self, error: BaseException, now: float) -> GaveUp | None:
        """Schedule the next attempt after ``error``, or say why there is none."""
        policy = self._context.policy
        if self._up_at is None:
            self._attempt = max(self._attempt, 1)
        elif now - self._up_at >= policy.stable_after:
            self._attempt = self._made = 0
        self._up_at = None
        if is_final(error) or not policy.allows(self._made):
            return self._gave_up(error)
        # The table of supabase-js has no attempt at once, and no zeroth entry to ask for.
        first = 1 if self._context.reconnect_after is not None or policy.steps else 0
        attempt = max(self._attempt, 1 if starts_slow(error) else first)
        delay = self._context.delay(attempt) if attempt else 0.0
        self._attempt = attempt + 1
        self._made += 1
        self._context.outbox.tell(ReconnectScheduled(attempt, delay, error))
        self._context.outbox.timers.set("connect", now + delay)
        return None

    def _gave_up(self, error: BaseException) -> GaveUp:
        hint = error.hint if isinstance(error, RealtimeError) else ""
        if is_final(error):
            text = f"gave up: {error}"
        elif not self._context.policy.enabled:
            text = f"gave up, reconnecting is switched off: {error}"
        else:
            text = f"gave up after {self._made} attempts: {error}"
        found = GaveUp(text, attempts=self._made, hint=hint)
        found.__cause__ = error
        return found

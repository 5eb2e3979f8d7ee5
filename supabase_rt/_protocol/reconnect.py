"""The decision about the next attempt to connect: its delay, or the end of all attempts.

The user's wish decides whether a link is wanted. A close code or an HTTP status only decides on
the delay, and whether another attempt can succeed at all.

A failure of the final kind ends the client if no link was ever open: the set-up is wrong then.
After a first success the set-up was right, so the cause may pass: a gateway restarts, for example.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from .._wire.redirects import is_redirect, redirect_hint
from ..errors import (
    ConnectionFailed,
    ConnectionLost,
    GaveUp,
    RealtimeError,
)
from .events import ConnectDue, ErrorReported, ReconnectScheduled
from .refusals import (
    UNKNOWN,
    rule_for,
)
from .shared_state import SharedState

__all__ = ["Reconnector", "close_code", "http_failure", "http_skips_immediate_retry"]


def skip_immediate_retry(error: BaseException) -> bool:
    """True if the first attempt after ``error`` must wait: 1012, 1013, 429 and 5xx.

    The server is restarting or overloaded then.
    """
    if isinstance(error, ConnectionLost):
        return close_code(error.close_code)[1]
    status = error.status if isinstance(error, ConnectionFailed) else None
    return status is not None and http_skips_immediate_retry(status)


FAST_ATTEMPTS = 20
"""The attempts within ``FAST_WINDOW`` after which short-lived links are tried again slowly."""
FAST_WINDOW = 60.0


def is_final(error: BaseException) -> bool:
    """True if ``error`` is of the final kind: the user must change something.

    ``Reconnector`` tries it again nevertheless once a link has been open.
    """
    if isinstance(error, ConnectionLost):
        return not close_code(error.close_code)[0]
    if isinstance(error, ConnectionFailed) and error.status is not None:
        return not http_failure(error.status)[0]
    return isinstance(error, RealtimeError) and not error.retryable


class Reconnector:
    """Counts attempts. The count starts anew after a link that lived for ``stable_after``."""

    def __init__(self, context: SharedState) -> None:
        self._context = context
        self._attempt = 0
        self._made = 0
        self._up_at: float | None = None
        self._ever_up = False
        self._away_since: float | None = None
        """The time at which the last link was lost, or the first attempt failed."""
        self._final_since: float | None = None
        """The time since which all failures are of the final kind."""
        self._begun: deque[float] = deque(maxlen=FAST_ATTEMPTS)
        """The times at which the last attempts begin."""
        self._is_counted = False
        """True if the present attempt is in ``_begun``."""
        self._died_young = False
        """True if the last link did not live for ``stable_after``."""

    def start(self) -> None:
        """Connect at once, with all attempts left: the user asked for a link."""
        self._attempt = self._made = 0
        self._died_young = self._is_counted = False
        self._final_since = None
        self.stop()
        self._context.outbox.emit(ConnectDue())

    def loop_ended(self, now: float) -> None:
        """Connect at once in the next event loop: that is neither a loss nor an attempt."""
        if self._up_at is not None:
            self._end_link(now)
        self._died_young, self._is_counted = False, True
        self.stop()
        self._context.outbox.emit(ConnectDue())

    def stop(self) -> None:
        self._context.outbox.deadlines.cancel("connect")
        self._up_at = self._away_since = None

    def link_up(self, now: float) -> None:
        self._count_attempt(now)
        self._up_at = now
        self._ever_up = True
        self._away_since = None

    def next_attempt(self, error: BaseException, now: float) -> GaveUp | None:
        """Schedule the next attempt after ``error``, or return the reason for giving up."""
        policy = self._context.policy
        was_up = self._up_at is not None
        self._count_attempt(now)
        self._end_link(now)
        if self._is_over(error, now) or not policy.allows(self._made):
            return self._gave_up(error)
        is_final_kind = is_final(error)
        if is_final_kind:
            self._report(error)
        # supabase-js never tries at once: its table of delays begins with attempt 1.
        first = 1 if self._context.reconnect_after is not None or policy.steps else 0
        attempt = max(self._attempt, 1 if skip_immediate_retry(error) else first)
        delay = self._pause(attempt, now, was_up=was_up)
        self._attempt = attempt + 1
        self._made += 1
        self._begun.append(now + delay)
        self._context.outbox.emit(ReconnectScheduled(attempt, delay, error, is_final_kind))
        self._context.outbox.deadlines.set("connect", now + delay)
        return None

    def _count_attempt(self, now: float) -> None:
        """Count an attempt that the user asked for; its beginning was not told."""
        if not self._is_counted:
            self._is_counted = True
            self._begun.append(now)

    def _end_link(self, now: float) -> None:
        """Note the end of a link, or of an attempt to open one."""
        if self._away_since is None:
            self._away_since = now
        if self._up_at is None:
            self._attempt = max(self._attempt, 1)
            return
        self._died_young = now - self._up_at < self._context.policy.stable_after
        if not self._died_young:
            self._attempt = self._made = 0
            # A server that opens a link only to refuse it is not "something else".
            self._final_since = None
        self._up_at = None

    def _is_over(self, error: BaseException, now: float) -> bool:
        """Returns True if ``error`` ends the client, because it is final or was so for long."""
        if not is_final(error):
            self._final_since = None
            return False
        if self._final_since is None:
            self._final_since = now
        return not self._ever_up or now - self._final_since >= self._context.policy.final_after

    def _report(self, error: BaseException) -> None:
        if isinstance(error, RealtimeError):
            error.retryable = True
        if isinstance(error, ConnectionLost):
            error.hint = error.hint or _CLOSE_HINT
            # The connection itself reports an attempt that failed.
            self._context.outbox.emit(ErrorReported(error))

    def _pause(self, attempt: int, now: float, *, was_up: bool) -> float:
        """Returns the seconds before ``attempt``; ``was_up`` is True after the loss of a link."""
        policy = self._context.policy
        delay = self._context.delay(attempt) if attempt else 0.0
        if self._context.reconnect_after is not None or policy.outage_share is None:
            return delay
        is_spent = len(self._begun) == FAST_ATTEMPTS and now - self._begun[0] < FAST_WINDOW
        if self._died_young and is_spent:
            return max(delay, self._begun[0] + FAST_WINDOW - now) if was_up else delay
        away = 0.0 if self._away_since is None else now - self._away_since
        return min(delay, policy.longest_pause(away))

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


_KEY_HINT: Final = (
    "the key was not accepted: it is missing, mistyped, expired or of another project, or it is "
    "an sb_... key sent to a Realtime server without the gateway that exchanges those for JWTs"
)

_CLOSE_HINT: Final = (
    "the server closed the connection for its policy: check the key, the token, and that the "
    "project is not paused"
)

_STATUSES: Final[dict[int, tuple[bool, str]]] = {
    400: (False, "the request was not understood: check the URL and what stands in between"),
    401: (False, _KEY_HINT),
    402: (True, "the project is restricted, often for its quota: see its dashboard"),
    403: (
        False,
        (
            "check vsn, and that Realtime is switched on for the project; servers before 2.115 "
            "answer so to any mistake, a wrong key too; supabase-rt serve does so to a name of "
            "another machine, which --allow-host lets in"
        ),
    ),
    404: (
        False,
        (
            "nothing is there: check the URL (without /websocket at its end; for create_client "
            "without /realtime/v1, too), the project ref, and that the project is not paused"
        ),
    ),
    405: (False, "the URL is not a WebSocket endpoint of Realtime"),
    406: (False, "the URL is not a WebSocket endpoint of Realtime"),
    407: (True, "the proxy wants credentials: see proxy= of the client"),
    408: (True, "the server or a proxy did not wait long enough; try again"),
    410: (False, "the URL is gone: check the project"),
    413: (True, "the payload is larger than the project allows"),
    414: (False, "the URL is too long, over 8000 bytes: shorten params, or api_key_in='header'"),
    415: (False, "the server does not take this kind of body"),
    422: (True, "the server could not use the message: see its text"),
    425: (True, "try again"),
    426: (False, "something in between does not pass WebSocket upgrades: check proxies"),
    429: (
        True,
        "too many connections, joins or messages: a limit of the project; wait or raise it",
    ),
    431: (False, "a header is too long, over 4096 bytes: use api_key_in='url' or a shorter token"),
    500: (True, "the server failed; see its logs if it stays"),
    502: (True, "the gateway does not reach Realtime; it may be restarting"),
    503: (True, "Realtime is not available; it may be restarting"),
    504: (True, "the gateway got no answer from Realtime in time"),
}
_STATUS_TEXTS: Final = (
    ("API key is missing", "MissingAPIKey", "give the key: params={'apikey': key}"),
    ("Tenant not found", "TenantNotFound", None),
    ("Realtime was disabled for this tenant", "RealtimeDisabledForTenant", None),
    ("Too many connected users", "ConnectionRateLimitReached", None),
    ("Too many joins per second", "JoinsRateLimitReached", None),
    ("Error connecting to Realtime", "ErrorConnectingToWebsocket", None),
    ("Token has expired", "InvalidJWTToken", None),
    ("Fields `role` and `exp`", "InvalidJWTToken", None),
    ("The token provided is not a valid JWT", "MalformedJWT", None),
    ("Failed to validate JWT signature", "JwtSignatureError", None),
    ("Failed to generate JWT signer", "JwtSignerError", None),
)
_FINAL_CLOSE_CODES: Final = frozenset((1008, 1010, 3000, 3003))
_SLOW_CLOSE_CODES: Final = frozenset((1012, 1013))


def http_failure(
    status: int, *, body: str = "", location: str | None = None, asked: str = ""
) -> tuple[bool, str, str]:
    """Returns the meaning of an unexpected HTTP ``status``: retryable, hint, code.

    ``body`` is the text of the response. If it is a text of Realtime, the code is the server's and
    the hint is more exact. The status alone decides about a retry, because older and newer servers
    send different bodies for one cause (docs/protocol.md#refused-handshakes). ``location`` is the
    target of a redirect of ``asked``; the hint names the target, but it is never followed.
    """
    retryable, hint = _status(status)
    if is_redirect(status):
        hint = redirect_hint(location, asked)
    for text, code, special in _STATUS_TEXTS:
        if text in body:
            rule = rule_for(code, text)
            return retryable, special or (hint if rule is UNKNOWN else rule.hint), code
    return retryable, hint, f"HTTP{status}"


def _status(status: int) -> tuple[bool, str]:
    if status in _STATUSES:
        return _STATUSES[status]
    if 300 <= status < 400:
        return False, redirect_hint(None, "")
    if status >= 500:
        return True, _STATUSES[500][1]
    return True, f"unexpected answer {status}: the URL may not be a Realtime endpoint"


def http_skips_immediate_retry(status: int) -> bool:
    """True if a failed attempt with this status must not be repeated at once: 429 and 5xx."""
    return status == 429 or status >= 500


def close_code(code: int | None) -> tuple[bool, bool]:
    """Returns two flags for a close code: retry, and skip the immediate retry.

    None is a link that ended without a close frame. 1000 and 1001 are retryable, because only the
    user's wish ends a connection (docs/protocol.md#11-ends-of-a-socket).
    """
    return code not in _FINAL_CLOSE_CODES, code in _SLOW_CLOSE_CODES

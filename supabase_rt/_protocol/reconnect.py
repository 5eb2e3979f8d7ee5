"""The decision about the next attempt to connect: its delay, or the end of all attempts.

The user's wish decides whether a link is wanted. A close code or an HTTP status only decides on
the delay, and whether another attempt can succeed at all.
"""

from __future__ import annotations

from typing import Final

from .._wire.redirects import is_redirect, redirect_hint
from ..errors import (
    ConnectionFailed,
    ConnectionLost,
    GaveUp,
    RealtimeError,
)
from .events import ConnectDue, ReconnectScheduled
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


def is_final(error: BaseException) -> bool:
    """True if every further attempt would fail too, until the user changes something."""
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

    def start(self) -> None:
        """Connect at once, with all attempts left: the user asked for a link."""
        self._attempt = self._made = 0
        self._up_at = None
        self._context.outbox.emit(ConnectDue())

    def stop(self) -> None:
        self._context.outbox.deadlines.cancel("connect")
        self._up_at = None

    def link_up(self, now: float) -> None:
        self._up_at = now

    def next_attempt(self, error: BaseException, now: float) -> GaveUp | None:
        """Schedule the next attempt after ``error``, or return the reason for giving up."""
        policy = self._context.policy
        if self._up_at is None:
            self._attempt = max(self._attempt, 1)
        elif now - self._up_at >= policy.stable_after:
            self._attempt = self._made = 0
        self._up_at = None
        if is_final(error) or not policy.allows(self._made):
            return self._gave_up(error)
        # supabase-js never tries at once: its table of delays begins with attempt 1.
        first = 1 if self._context.reconnect_after is not None or policy.steps else 0
        attempt = max(self._attempt, 1 if skip_immediate_retry(error) else first)
        delay = self._context.delay(attempt) if attempt else 0.0
        self._attempt = attempt + 1
        self._made += 1
        self._context.outbox.emit(ReconnectScheduled(attempt, delay, error))
        self._context.outbox.deadlines.set("connect", now + delay)
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


_KEY_HINT: Final = (
    "the key was not accepted: it is missing, mistyped, expired or of another project, or it is "
    "an sb_... key sent to a Realtime server without the gateway that exchanges those for JWTs"
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

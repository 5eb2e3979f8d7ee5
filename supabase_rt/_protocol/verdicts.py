"""The one place that decides what a refusal, a close code or an HTTP status means."""

from __future__ import annotations

import re
from typing import Any, Final

from .._wire.envelope import dumps
from .._wire.redirects import is_redirect, redirect_hint
from ..errors import AuthError, Refused, SubscribeError
from .refusals import BY_CODE, CHANGE_REMEDIES, CHANGE_RULES, RULES, UNKNOWN, Rule, Verdict

__all__ = [
    "Verdict",
    "close_code",
    "close_error",
    "http_failure",
    "http_starts_slow",
    "join_refusal",
    "system_close",
    "system_error",
]

_CODE: Final = re.compile(r"([A-Z][A-Za-z0-9]+)(?:: |\Z)")
_RETRYABLE: Final = (Verdict.RETRY, Verdict.RETRY_LATER)
_TOKEN_CODES: Final = ("InvalidJWTToken", "MalformedJWT", "JwtSignatureError", "JwtSignerError")


def _rule(code: str, text: str) -> Rule:
    for rule in BY_CODE.get(code, ()):
        if text.startswith(rule.text):
            return rule
    if code in BY_CODE:
        return BY_CODE[code][-1]
    # No code, or one that another age of the server gave to a text we know. An empty text
    # would fit everything.
    for rule in RULES:
        if rule.text and text.startswith(rule.text):
            return rule
    return UNKNOWN


def _sort(text: str) -> tuple[str, Rule]:
    """The server's code, or ours where it gave none, and what is known about the text."""
    match = _CODE.match(text)
    if match is None:
        rule = _rule("", text)
        return rule.code, rule
    code = match[1]
    rule = _rule(code, text[match.end() :])
    if rule is UNKNOWN and code.endswith("RateLimitReached"):
        rule = rule._replace(verdict=Verdict.RETRY_LATER)
    return code, rule


# -- joins -------------------------------------------------------------------------------


def _word(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else dumps(value).decode()


def _text(response: Any) -> str:
    """The text of a refusal as supabase-js makes it: every value of the response."""
    if isinstance(response, dict):
        response = list(response.values())
    if isinstance(response, list):
        return ", ".join(map(_word, response)) or "error"
    return _word(response) or "error"


def join_refusal(response: Any, topic: str) -> tuple[Refused, Verdict]:
    """What the ``response`` of a refused join means (protocol reference, section 3.5).

    The error's text is the server's whole text, its ``code`` the server's code or, for texts
    without one, a word of ours; ``retryable`` is True where the same join may succeed later
    with nothing changed, so not for an expired token.
    """
    text = _text(response)
    reason = response.get("reason") if isinstance(response, dict) else None
    code, rule = _sort(reason if isinstance(reason, str) else text)
    error = Refused(
        text,
        response=response,
        topic=topic,
        code=code or None,
        retryable=rule.verdict in _RETRYABLE,
        hint=rule.hint,
    )
    return error, rule.verdict


# -- system messages ---------------------------------------------------------------------


def system_close(message: str) -> Verdict:
    """What follows when the server closed a channel after this ``system`` error.

    Protocol reference, section 4.
    """
    return _sort(message)[1].verdict


def close_error(message: str | None, topic: str) -> tuple[SubscribeError | AuthError, Verdict]:
    """The CHANNEL_ERROR of a channel that the server closed unasked, and what follows.

    ``message`` is the ``system`` error that came before the close, None where there was none.
    ``AuthError`` where a token was the reason.
    """
    if not message:
        hint = "the server does not say why; the client joins again by itself"
        error = SubscribeError(
            "channel closed by the server", topic=topic, code="Closed", retryable=True, hint=hint
        )
        return error, Verdict.RETRY
    code, rule = _sort(message)
    text = f"channel closed by the server: {message}"
    retryable = rule.verdict in _RETRYABLE
    if code in _TOKEN_CODES:
        return AuthError(text, code=code, retryable=retryable, hint=rule.hint), rule.verdict
    lost = SubscribeError(
        text, topic=topic, code=code or "Closed", retryable=retryable, hint=rule.hint
    )
    return lost, rule.verdict


def system_error(message: str, topic: str) -> SubscribeError:
    """Why no database changes flow: a ``system`` error of the extension ``postgres_changes``.

    The channel stays joined. ``retryable`` is True where the server tries again by itself
    (protocol reference, section 9.10).
    """
    rule = next(rule for rule in CHANGE_RULES if message.startswith(rule.text))
    remedies = (hint for part, hint in CHANGE_REMEDIES if part in message)
    final = rule.verdict is Verdict.FINAL
    return SubscribeError(
        message,
        topic=topic,
        code=rule.code,
        retryable=not final,
        hint=next(remedies, rule.hint) if final else rule.hint,
    )


# -- HTTP statuses and close codes -------------------------------------------------------

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
    """What an unexpected HTTP ``status`` means: retryable, hint, code.

    ``body`` is the text of the answer; where it is one of Realtime's, the code is the server's
    word and the hint more exact. Whether to retry goes by the status alone, because servers
    of different age give one cause different bodies. Protocol reference, section 1.6.
    ``location`` is where a redirect of ``asked`` leads; it is named, never followed.
    """
    retryable, hint = _status(status)
    if is_redirect(status):
        hint = redirect_hint(location, asked)
    for text, code, special in _STATUS_TEXTS:
        if text in body:
            rule = _rule(code, text)
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


def http_starts_slow(status: int) -> bool:
    """Whether the server asked for distance: 429 and 5xx are not tried again at once."""
    return status == 429 or status >= 500


def close_code(code: int | None) -> tuple[bool, bool]:
    """Whether a link closed with ``code`` may be tried again, and whether not at once.

    None is a link that ended without a close frame. 1000 and 1001 are retryable: only our own
    intent ends a connection (protocol reference, section 11).
    """
    return code not in _FINAL_CLOSE_CODES, code in _SLOW_CLOSE_CODES

"""The refusals of the server: the next step of the client, and a hint for the user.

Texts and codes: docs/protocol.md#refused-joins, docs/protocol.md#4-system-messages and
docs/protocol.md#refused-subscriptions.
"""

from __future__ import annotations

import enum
import re
from typing import Any, Final, NamedTuple

from .._wire.json_codec import dumps
from ..errors import AuthError, Refused, SubscribeError

__all__ = [
    "BY_CODE",
    "CHANGE_REMEDIES",
    "CHANGE_RULES",
    "RULES",
    "UNKNOWN",
    "Rule",
    "Verdict",
    "close_error",
    "join_refusal",
    "rule_for",
    "system_close",
    "system_error",
]


class Verdict(enum.Enum):
    """The consequence of a refusal."""

    RETRY = "retry"
    """Join again by the policy: the same join may succeed."""
    RETRY_LATER = "retry later"
    """Join again, but not within 30 s: a rate limit is an average over time."""
    AFTER_TOKEN = "after token"
    """Get another token and join again: the present one expired."""
    FINAL_UNTIL_TOKEN = "final until token"
    """Stop until the token changes: the server will never accept the present one."""
    FINAL = "final"
    """Stop: only a change by the user helps."""


RETRY, RETRY_LATER, FINAL = Verdict.RETRY, Verdict.RETRY_LATER, Verdict.FINAL
AFTER_TOKEN, FINAL_UNTIL_TOKEN = Verdict.AFTER_TOKEN, Verdict.FINAL_UNTIL_TOKEN


class Rule(NamedTuple):
    """The consequence of one text of the server, which begins with ``text``.

    If the server sent a code, only the rules of that code apply; the last of these rules fits every
    text. Otherwise the text is looked up in all rules.
    """

    code: str
    text: str
    verdict: Verdict
    hint: str


_NEW_TOKEN: Final = "give a fresh token: set_auth(token), or access_token=callback on the client"
_WHOLE_TOKEN: Final = (
    "give the token exactly as the sign-in returned it: three parts joined by dots, signed with "
    "the project's own JWT secret or key, with the claims role and exp"
)
_SIGNER: Final = (
    "the project has no key for this token: check that it was issued by this very project and "
    "that its kid is among the project's JWT signing keys"
)
_POLICY: Final = (
    "no row level security policy on realtime.messages lets the role of this token read this "
    "topic: add a SELECT policy, sign in as somebody who may, or join with private: False"
)
_QUOTA: Final = "a rate limit of the project; the client waits at least 30 s. Send less or raise "
_DATABASE: Final = "the project's database did not take part; the client tries again by itself"
_NODES: Final = "a fault between the servers of Realtime; the client tries again by itself"
_INITIALIZING: Final = "the server is connecting to the database; the client tries again by itself"
_POOL: Final = (
    "the database pool of Realtime is exhausted; the client tries again by itself. If it stays, "
    "raise the pool size in the Realtime settings of the project"
)
_SUSPENDED: Final = "Realtime is switched off for this project: switch it on in its settings"

RULES: Final = (
    # -- tokens
    Rule("InvalidJWTToken", "Token has expired", AFTER_TOKEN, _NEW_TOKEN),
    Rule("InvalidJWTToken", "Token expiration time is invalid", AFTER_TOKEN, _NEW_TOKEN),
    Rule("InvalidJWTToken", "Fields `role` and `exp`", FINAL_UNTIL_TOKEN, _WHOLE_TOKEN),
    Rule("MalformedJWT", "The token provided is not a valid JWT", FINAL_UNTIL_TOKEN, _WHOLE_TOKEN),
    Rule("JwtSignatureError", "Failed to validate JWT signature", FINAL_UNTIL_TOKEN, _WHOLE_TOKEN),
    Rule("JwtSignatureError", ":signature_error", FINAL_UNTIL_TOKEN, _WHOLE_TOKEN),
    Rule("JwtSignerError", "Failed to generate JWT signer", FINAL_UNTIL_TOKEN, _SIGNER),
    Rule("Unauthorized", "You do not have permissions to", FINAL_UNTIL_TOKEN, _POLICY),
    Rule("Unauthorized", "You no longer have permission to", FINAL_UNTIL_TOKEN, _POLICY),
    # -- what was asked for
    Rule(
        "TopicNameRequired",
        "You must provide a topic name",
        FINAL,
        "name the channel: client.channel('room1')",
    ),
    Rule(
        "UnmatchedTopic",
        "unmatched topic",
        FINAL,
        "the topic must start with 'realtime:'; client.channel(name) adds that by itself",
    ),
    Rule(
        "FrameTooLarge",
        "",
        FINAL,
        "what the join asks for is larger than a frame may be: fewer or shorter filters, a "
        "smaller update_join_payload()",
    ),
    Rule(
        "PrivateOnly",
        "",
        FINAL,
        "this project allows private channels only: give {'config': {'private': True}} and a "
        "policy, or allow public access in its Realtime settings",
    ),
    Rule(
        "UnableToReplayMessages",
        "Replay params are not valid",
        FINAL,
        "replay is {'since': milliseconds of Unix time, 'limit': 1 to 25}, both whole numbers",
    ),
    Rule(
        "UnableToReplayMessages",
        "Replay is not allowed for public channels",
        FINAL,
        "replay needs a private channel: give {'config': {'private': True}} or leave replay out",
    ),
    Rule("UnableToReplayMessages", "", RETRY, _DATABASE),
    # -- the project
    Rule(
        "TenantNotFound",
        "",
        FINAL,
        "there is no such project: check the project ref in the URL, and that it is not paused",
    ),
    Rule("RealtimeDisabledForTenant", "", FINAL, _SUSPENDED),
    # -- limits
    Rule(
        "ChannelRateLimitReached",
        "Too many channels",
        FINAL,
        "this socket holds as many channels as the project allows: leave some with "
        "unsubscribe() or raise max_channels_per_client, then subscribe again",
    ),
    Rule("ConnectionRateLimitReached", "", RETRY_LATER, _QUOTA + "max_concurrent_users"),
    Rule("ClientJoinRateLimitReached", "", RETRY_LATER, _QUOTA + "max_joins_per_second"),
    Rule("JoinsRateLimitReached", "", RETRY_LATER, _QUOTA + "max_joins_per_second"),
    Rule(
        "MessagePerSecondRateLimitReached",
        "Too many messages per second",
        RETRY_LATER,
        _QUOTA + "max_events_per_second",
    ),
    Rule(
        "PresenceRateLimitReached",
        "Too many presence messages per second",
        RETRY_LATER,
        _QUOTA + "max_presence_events_per_second",
    ),
    Rule(
        "ClientPresenceRateLimitReached",
        "Client presence rate limit exceeded",
        RETRY_LATER,
        "more track and untrack calls than the server allows one channel (5 in 30 s by default): "
        "keep presence_limit of the client at or below that",
    ),
    Rule(
        "DatabaseConnectionRateLimitReached",
        ":connect_rate_limit_reached",
        RETRY_LATER,
        "too many attempts to reach the database; the client waits at least 30 s",
    ),
    Rule(
        "TrackMessageSizeExceeded",
        "Track message size exceeded",
        RETRY,
        "the tracked payload is larger than the project allows (3 MB by default): track less; "
        "it is not tracked again after the rejoin",
    ),
    # -- faults of the server
    Rule(
        "RealtimeRestarting",
        "",
        RETRY,
        "the server restarts; the client joins again by itself",
    ),
    Rule("IncreaseConnectionPool", ":increase_connection_pool", RETRY, _POOL),
    Rule(
        "DatabaseLackOfConnections",
        "",
        RETRY,
        "the database has no connection left for Realtime; the client tries again by itself. "
        "If it stays, raise max_connections or close connections of others",
    ),
    Rule("UnableToConnectToProject", "", RETRY, _DATABASE),
    Rule(
        "UnableToSetPolicies",
        "Realtime was unable to connect to the project database",
        RETRY,
        _DATABASE,
    ),
    Rule("InitializingProjectConnection", "", RETRY, _INITIALIZING),
    Rule(
        "QueryCanceled",
        "Query was cancelled",
        RETRY,
        "the database stopped the policy check for its time: make the policies on "
        "realtime.messages cheaper. The client tries again by itself",
    ),
    Rule(
        "MissingPartition",
        "",
        RETRY,
        "realtime.messages has no partition for today; the server makes it. The client tries "
        "again by itself",
    ),
    Rule("TimeoutOnRpcCall", "Node request timeout", RETRY, _NODES),
    Rule("ErrorOnRpcCall", "RPC call error", RETRY, _NODES),
    Rule("RpcError", "", RETRY, _NODES),
    Rule("MusterJoinError", "", RETRY, _NODES),
    Rule(
        "ReplicationConnectionTimeout",
        "Replication connection was not established in time",
        RETRY,
        "broadcasts from the database are not available yet; the client joins again by itself",
    ),
    Rule(
        "UnknownErrorOnChannel",
        "Unknown Error on Channel",
        RETRY,
        "the server failed while joining and does not say why: see its logs. The client tries "
        "again by itself",
    ),
    Rule(
        "UnknownErrorOnChannel",
        "",
        RETRY,
        "the server failed while joining, often over a config of the wrong shape: see the text "
        "and the server's logs. The client tries again by itself",
    ),
    Rule(
        "JoinCrashed",
        "join crashed",
        RETRY,
        "the channel died on the server while joining; the client tries again by itself",
    ),
    Rule(
        "TooManyChannels",
        "too many channels joined",
        FINAL,
        "this socket holds as many channels as the server can count: leave some",
    ),
    Rule(
        "ServerRequestedDisconnect",
        "Server requested disconnect",
        RETRY,
        "the settings of the project changed; the client connects again by itself",
    ),
)

BY_CODE: Final[dict[str, list[Rule]]] = {}
for _known in RULES:
    BY_CODE.setdefault(_known.code, []).append(_known)

UNKNOWN: Final = Rule("", "", RETRY, "see the server's logs; the client tries again by itself")


_CHANGES_CONFIG: Final = "correct the filter of on('postgres_changes', ...) and subscribe again"

CHANGE_RULES: Final = (
    Rule(
        "RealtimeDisabledForConfiguration",
        "Error parsing `filter` params",
        FINAL,
        "a filter is 'column=operator.value', several joined by commas, 'in' with its values in "
        "parentheses: id=in.(1,2). postgres_changes_filter() writes them",
    ),
    Rule(
        "RealtimeDisabledForConfiguration",
        "Error parsing `select` params",
        FINAL,
        "select is a list of column names: {'select': ['id', 'name']}",
    ),
    Rule(
        "RealtimeDisabledForConfiguration",
        "Column selection is not supported for wildcard",
        FINAL,
        "with select, name one schema and one table instead of '*'",
    ),
    Rule(
        "RealtimeDisabledForConfiguration",
        "No subscription params provided",
        FINAL,
        "give at least a schema: {'event': '*', 'schema': 'public', 'table': 'todos'}",
    ),
    Rule(
        "RealtimeDisabledForConfiguration",
        "Unable to subscribe to changes with given parameters",
        FINAL,
        _CHANGES_CONFIG,
    ),
    Rule(
        "IncreaseSubscriptionConnectionPool", '{:error, "Too many database timeouts"}', RETRY, _POOL
    ),
    Rule(
        "UnableToSubscribeToPostgres",
        "",
        RETRY,
        "the server tries again by itself after 5 to 10 s",
    ),
)

CHANGE_REMEDIES: Final = (
    (
        "Please check Realtime is enabled",
        "check the table's spelling, and: alter publication supabase_realtime add table <table>",
    ),
    ("invalid column for filter", "the filter names a column that the table does not have"),
    ("invalid column for select", "select names a column that the table does not have"),
    ("failed to lookup type", "the filter is on a column whose type the server does not know"),
    ("too many values for `in` filter", "an 'in' filter takes at most 100 values"),
    ("invalid value for is filter", "an 'is' filter takes null, true, false or unknown"),
    ("requires a boolean column", "is.true, is.false and is.unknown need a boolean column"),
    ("requires a text-compatible column", "this operator compares text; the column is not text"),
    ("invalid regular expression", "the pattern of the filter is no regular expression"),
    ("Error parsing `filter` params: filter must not", "the filter has a comma too many"),
    (
        "filter value must be wrapped by parentheses",
        "the values of an 'in' filter stand in parentheses: id=in.(1,2)",
    ),
    ("invalid input syntax", "the value of the filter does not fit the type of its column"),
)
"""Hints by a part of the text. A part is more exact than the beginning."""


_CODE: Final = re.compile(r"([A-Z][A-Za-z0-9]+)(?:: |\Z)")
_RETRYABLE: Final = (Verdict.RETRY, Verdict.RETRY_LATER)
_TOKEN_CODES: Final = ("InvalidJWTToken", "MalformedJWT", "JwtSignatureError", "JwtSignerError")


def rule_for(code: str, text: str) -> Rule:
    """Returns the rule for a refusal; ``text`` is without the code."""
    for rule in BY_CODE.get(code, ()):
        if text.startswith(rule.text):
            return rule
    if code in BY_CODE:
        return BY_CODE[code][-1]
    # There is no code, or an older or newer server uses an unknown code with a known text.
    # A rule with an empty text would fit everything.
    for rule in RULES:
        if rule.text and text.startswith(rule.text):
            return rule
    return UNKNOWN


def _sort(text: str) -> tuple[str, Rule]:
    """Returns the code and the rule of a text. If the server sent no code, the code of the rule is
    used.
    """
    match = _CODE.match(text)
    if match is None:
        rule = rule_for("", text)
        return rule.code, rule
    code = match[1]
    rule = rule_for(code, text[match.end() :])
    if rule is UNKNOWN and code.endswith("RateLimitReached"):
        rule = rule._replace(verdict=Verdict.RETRY_LATER)
    return code, rule


def _word(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else dumps(value).decode()


def _text(response: Any) -> str:
    """Returns the text of a refusal as in supabase-js: all values of the response."""
    if isinstance(response, dict):
        response = list(response.values())
    if isinstance(response, list):
        return ", ".join(map(_word, response)) or "error"
    return _word(response) or "error"


def join_refusal(response: Any, topic: str) -> tuple[Refused, Verdict]:
    """Returns the error of a refused join and its verdict (docs/protocol.md#refused-joins).

    The error has the whole text of the server. Its ``code`` is the server's, or one of ours for a
    text without a code. ``retryable`` is True if the same join may succeed later without any
    change; an expired token needs a change.
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


def system_close(message: str) -> Verdict:
    """Returns the verdict after a ``system`` error with which the server closed a channel.

    See docs/protocol.md#4-system-messages.
    """
    return _sort(message)[1].verdict


def close_error(message: str | None, topic: str) -> tuple[SubscribeError | AuthError, Verdict]:
    """Returns the error of a channel that the server closed by itself, and its verdict.

    ``message`` is the ``system`` error that came before the close, or None. The error is an
    ``AuthError`` if the token was the reason.
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
    """Returns the error for a ``system`` error of the extension ``postgres_changes``.

    The channel stays joined but receives no database changes. ``retryable`` is True if the server
    tries again by itself (docs/protocol.md#refused-subscriptions).
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

"""The errors that a channel's own losses are told with.

What the server refuses is sorted in verdicts.py; these need no sorting.
"""

from __future__ import annotations

from typing import Any

from ...errors import BindingMismatch, InvalidState, SubscribeError

__all__ = ["crash_error", "mismatch_error", "over_error", "too_early_error"]


def crash_error(payload: Any, topic: str) -> SubscribeError:
    """For a ``phx_error`` (protocol reference, section 3.8)."""
    return SubscribeError(
        _crash_text(payload),
        topic=topic,
        code="channel_crash",
        retryable=True,
        hint="the server dropped the channel; it is joined again by itself",
    )


def _crash_text(payload: Any) -> str:
    """The words of supabase-js; a reason that is given comes instead of its general one."""
    if not isinstance(payload, dict):
        return str(payload) if isinstance(payload, str) else "channel error: connection lost"
    code, reason = payload.get("code"), payload.get("reason")
    if isinstance(code, int) and not isinstance(code, bool):
        return f"socket closed: {code} ({reason})" if reason else f"socket closed: {code}"
    return f"channel error: {reason or 'transport failure'}"


def mismatch_error(difference: str, topic: str) -> BindingMismatch:
    """For a join whose reply lists other postgres_changes than were asked for."""
    return BindingMismatch(
        "mismatch between server and client bindings for postgres changes",
        topic=topic,
        hint=f"the server joined something else than was asked for: {difference}",
    )


def too_early_error(event: str, topic: str) -> InvalidState:
    """For a request on a channel that was never subscribed, in the words of supabase-js."""
    return InvalidState(
        f"tried to push '{event}' to '{topic}' before joining. "
        "Use channel.subscribe() before pushing events",
        hint="call channel.subscribe() first; what is pushed then waits for the join",
    )


def over_error(text: str, sub_topic: str) -> InvalidState:
    """For a channel object that cannot be joined any more."""
    return InvalidState(text, hint=f"make a new one: client.channel({sub_topic!r})")

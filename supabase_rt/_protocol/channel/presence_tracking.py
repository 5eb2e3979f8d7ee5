"""The presence that this client tracks, kept across rejoins and within the server's limit.

The server closes a channel at its sixth presence call within 30 s
(docs/protocol.md#presence-limits). So calls beyond the limit wait here. The latest call replaces
an earlier one that waits, and both get the same result. The server counts anew for each join, and
so does this module.
"""

from __future__ import annotations

import json
from typing import Any

from ..._wire.json_codec import plain
from ...errors import DecodeError
from ..events import RequestEnded
from ..requests import Request, RequestKind
from ..shared_state import SharedState

__all__ = ["PresenceTracker"]

_NOTHING = object()


def _is_same(one: Any, other: Any) -> bool:
    """Returns True for two payloads that are equal as JSON, in any order of keys."""
    # As text, because 1 == 1.0 == True in Python.
    try:
        first, second = (json.dumps(plain(payload), sort_keys=True) for payload in (one, other))
    except (DecodeError, RecursionError):
        # One of them is nested too deeply.
        return False
    return first == second


class PresenceTracker:
    """The tracked payload of one channel: the user's, and the one sent in this join."""

    def __init__(self, channel: Any, context: SharedState) -> None:
        self._channel = channel
        self._context = context
        self._wanted: Any = _NOTHING
        self._sent: Any = _NOTHING
        self._next: Request | None = None
        self._superseded: list[object] = []
        self._followers: dict[Request, list[object]] = {}
        self._calls: list[float] = []

    def call(self, request: Request, now: float) -> None:
        """Send ``track`` or ``untrack`` now, when the limit allows, or after the join."""
        tracked = request.payload.get("payload", _NOTHING)
        if self._is_sent(tracked):
            self._context.outbox.emit(RequestEnded(request.outcome, "ok", {}))
            return
        self._wanted = tracked
        self._supersede(request)
        if not self._channel.can_push:
            self._wait(request, now)
            return
        self.pump(now)

    def _is_sent(self, tracked: Any) -> bool:
        return (
            tracked is not _NOTHING
            and self._next is None
            and self._channel.can_push
            and self._sent is not _NOTHING
            and _is_same(tracked, self._sent)
        )

    def _supersede(self, request: Request) -> None:
        if self._next is not None:
            self._superseded.append(self._next.outcome)
        self._next = request

    def pump(self, now: float) -> None:
        """Send the waiting call, or set a deadline for the time when the limit allows it."""
        request = self._next
        if request is None or not self._channel.can_push:
            return
        ready_at = self._ready_at(now)
        if ready_at > now:
            self._context.outbox.deadlines.set((self._channel, "track"), ready_at)
            return
        self._next = None
        self._calls.append(now)
        self._sent = request.payload.get("payload", _NOTHING)
        self._followers[request] = self._superseded
        self._superseded = []
        self._context.requests.write(request, self._channel.join_ref, self._channel.topic, now)

    def _ready_at(self, now: float) -> float:
        limit = self._context.presence_limit
        if limit is None:
            return now
        count, window = limit
        while self._calls and self._calls[0] <= now - window:
            self._calls.pop(0)
        return now if len(self._calls) < count else self._calls[0] + window

    def joined(self, now: float) -> None:
        """Track again after a join: the server knows no payload and counts from zero."""
        self._calls.clear()
        self._sent = _NOTHING
        self._context.outbox.deadlines.cancel((self._channel, "track"))
        if self._next is None and self._wanted is not _NOTHING:
            payload = {"type": "presence", "event": "track", "payload": self._wanted}
            self._next = Request(
                self._channel, RequestKind.PRESENCE, "presence", payload, self._context.timeout
            )
        self.pump(now)

    def woken(self, now: float) -> None:
        """Handle the ``track`` deadline: the limit allows a call, or no join came in time."""
        if self._channel.can_push:
            self.pump(now)
        else:
            # Only the call times out: the payload is still tracked after the next join.
            self.end_waiting("timed out")

    def ended(self, request: Request, result: str, response: Any) -> None:
        """Settle a call that was sent, and those that it replaced."""
        for outcome in (request.outcome, *self._followers.pop(request, ())):
            self._context.outbox.emit(RequestEnded(outcome, result, response))
        tracked = request.payload.get("payload", _NOTHING)
        if result != "ok" and self._sent is tracked:
            self._sent = _NOTHING

    def refused(self, request: Request) -> None:
        """Do not track this payload again after a rejoin: the server refused it."""
        if self._wanted is request.payload.get("payload", _NOTHING):
            self._wanted = _NOTHING

    def forget(self) -> None:
        """Forget the payload: it was too large for the server, or the channel is closed."""
        self._wanted = _NOTHING

    def lost(self, now: float) -> None:
        """Let the waiting call wait for the next join instead of the limit."""
        if self._next is not None:
            self._wait(self._next, now)

    def _wait(self, request: Request, now: float) -> None:
        self._context.outbox.deadlines.set((self._channel, "track"), now + request.timeout)

    def end_waiting(self, result: str) -> None:
        """End the calls that were not sent yet. The payload is kept for the next join."""
        request, self._next = self._next, None
        superseded, self._superseded = self._superseded, []
        self._context.outbox.deadlines.cancel((self._channel, "track"))
        waiting = superseded if request is None else [request.outcome, *superseded]
        for outcome in waiting:
            self._context.outbox.emit(RequestEnded(outcome, result))

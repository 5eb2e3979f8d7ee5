"""What this client says of itself in presence, kept across rejoins and under the server's limit.

The server closes a channel on its sixth presence call within 30 s
(docs/protocol.md#presence-limits), so
calls beyond the limit wait here and the latest wins; those it overtook share its result. The
window counts per join on the server, and so it does here.
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
    """Whether two payloads are the same JSON, in whatever order their keys stand."""
    # Compared as text, where 1 is neither 1.0 nor true.
    try:
        first, second = (json.dumps(plain(payload), sort_keys=True) for payload in (one, other))
    except (DecodeError, RecursionError):
        # Too deep for one or the other.
        return False
    return first == second


class PresenceTracker:
    """The tracked payload of one channel: what is wanted, and what this join was told."""

    def __init__(self, channel: Any, context: SharedState) -> None:
        self._channel = channel
        self._context = context
        self._wanted: Any = _NOTHING
        self._told: Any = _NOTHING
        self._next: Request | None = None
        self._overtaken: list[object] = []
        self._followers: dict[Request, list[object]] = {}
        self._calls: list[float] = []

    def call(self, request: Request, now: float) -> None:
        """``track`` or ``untrack``: now, when the limit allows, or after the join."""
        tracked = request.payload.get("payload", _NOTHING)
        if self._is_told(tracked):
            self._context.outbox.emit(RequestEnded(request.outcome, "ok", {}))
            return
        self._wanted = tracked
        self._supersede(request)
        if not self._channel.can_push:
            self._wait(request, now)
            return
        self.pump(now)

    def _is_told(self, tracked: Any) -> bool:
        return (
            tracked is not _NOTHING
            and self._next is None
            and self._channel.can_push
            and self._told is not _NOTHING
            and _is_same(tracked, self._told)
        )

    def _supersede(self, request: Request) -> None:
        if self._next is not None:
            self._overtaken.append(self._next.outcome)
        self._next = request

    def pump(self, now: float) -> None:
        """Send the waiting call if the limit allows, or wake when it will."""
        request = self._next
        if request is None or not self._channel.can_push:
            return
        ready_at = self._ready_at(now)
        if ready_at > now:
            self._context.outbox.deadlines.set((self._channel, "track"), ready_at)
            return
        self._next = None
        self._calls.append(now)
        self._told = request.payload.get("payload", _NOTHING)
        self._followers[request] = self._overtaken
        self._overtaken = []
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
        """A new join: the server knows nothing, and counts from zero."""
        self._calls.clear()
        self._told = _NOTHING
        self._context.outbox.deadlines.cancel((self._channel, "track"))
        if self._next is None and self._wanted is not _NOTHING:
            payload = {"type": "presence", "event": "track", "payload": self._wanted}
            self._next = Request(
                self._channel, RequestKind.PRESENCE, "presence", payload, self._context.timeout
            )
        self.pump(now)

    def woken(self, now: float) -> None:
        """The channel's ``track`` timer: the window moved on, or the wait for a join is over."""
        if self._channel.can_push:
            self.pump(now)
        else:
            # It is tracked after the next join all the same.
            self.end_waiting("timed out")

    def ended(self, request: Request, result: str, response: Any) -> None:
        """The call that was sent got its reply, ran out of time or lost its link."""
        for outcome in (request.outcome, *self._followers.pop(request, ())):
            self._context.outbox.emit(RequestEnded(outcome, result, response))
        tracked = request.payload.get("payload", _NOTHING)
        if result != "ok" and self._told is tracked:
            self._told = _NOTHING

    def refused(self, request: Request) -> None:
        """The server will not have this payload: do not offer it again after a rejoin."""
        if self._wanted is request.payload.get("payload", _NOTHING):
            self._wanted = _NOTHING

    def forget(self) -> None:
        """Drop the wish: the server closed the channel for its size, or the channel is over."""
        self._wanted = _NOTHING

    def lost(self, now: float) -> None:
        """What waited for the limit waits for the next join now, which has a window of its own."""
        if self._next is not None:
            self._wait(self._next, now)

    def _wait(self, request: Request, now: float) -> None:
        self._context.outbox.deadlines.set((self._channel, "track"), now + request.timeout)

    def end_waiting(self, result: str) -> None:
        """Tell who waits for a call that was not sent yet. The wish stays."""
        request, self._next = self._next, None
        overtaken, self._overtaken = self._overtaken, []
        self._context.outbox.deadlines.cancel((self._channel, "track"))
        waiting = overtaken if request is None else [request.outcome, *overtaken]
        for outcome in waiting:
            self._context.outbox.emit(RequestEnded(outcome, result))

"""Requests that wait for a reply of the server, and requests that wait for a join."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .._wire.envelope import Message
from .outbox import Outbox

__all__ = [
    "REQUEST_BUFFER_LIMIT",
    "PendingRequests",
    "Request",
    "RequestBuffer",
    "RequestKind",
]

REQUEST_BUFFER_LIMIT = 100
"""Requests held for a channel that is not joined; as many as supabase-js holds."""


class RequestKind(enum.Enum):
    """The purpose of a request, by which its channel treats the reply."""

    JOIN = enum.auto()
    LEAVE = enum.auto()
    PRESENCE = enum.auto()
    """``track`` and ``untrack``, which pass the presence limit first."""
    PUSH = enum.auto()
    """Any other event."""


@dataclass(slots=True, eq=False)
class Request:
    """A message that the server answers. ``outcome`` is the object that its caller awaits."""

    channel: Any
    kind: RequestKind
    event: str
    payload: Any
    timeout: float
    outcome: object | None = None
    ref: str | None = None
    sent_at: float = 0.0


class PendingRequests:
    """Pending requests by ref. Each ends exactly once: reply, deadline, or taken away."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._pending: dict[str, Request] = {}
        # A second way in: asking every request for its channel would be quadratic.
        self._by_channel: dict[Any, dict[str, Request]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._pending.values()))

    def write(self, request: Request, join_ref: str | None, topic: str, now: float) -> None:
        """Give the request a ref and send it. A join's own ref is its join_ref."""
        ref = self.expect(request, now)
        if request.kind is RequestKind.JOIN:
            join_ref = ref
        self._outbox.send(Message(join_ref, ref, topic, request.event, request.payload))

    def expect(self, request: Request, now: float) -> str:
        """Give the request a ref, which is returned, and wait for the reply to it."""
        ref = request.ref = self._outbox.next_ref()
        request.sent_at = now
        self._pending[ref] = request
        mine = self._by_channel.get(request.channel)
        if mine is None:
            mine = self._by_channel[request.channel] = {}
        mine[ref] = request
        self._outbox.deadlines.set(request, now + request.timeout)
        return ref

    def pop(self, ref: Any) -> Request | None:
        """The request that a reply with this ref answers; it is pending no longer."""
        request = self._pending.pop(ref, None)
        if request is not None:
            self._outbox.deadlines.cancel(request)
            mine = self._by_channel[request.channel]
            del mine[ref]
            if not mine:
                del self._by_channel[request.channel]
        return request

    def of(self, channel: Any) -> list[Request]:
        """The pending requests of one channel."""
        return list(self._by_channel.get(channel, {}).values())


class RequestBuffer:
    """Requests of one channel that wait for its join; the oldest falls out when it is full."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        # Not a deque, which takes 700 bytes when empty; each channel has one of these.
        self._waiting: list[Request] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: Request, now: float) -> Request | None:
        """Hold the request; its time runs already. Returns the one that fell out, if any."""
        dropped = None
        if len(self._waiting) >= REQUEST_BUFFER_LIMIT:
            dropped = self._waiting.pop(0)
            self._outbox.deadlines.cancel(dropped)
        self._waiting.append(request)
        self._outbox.deadlines.set(request, now + request.timeout)
        return dropped

    def remove(self, request: Request) -> None:
        if request in self._waiting:
            self._waiting.remove(request)
            self._outbox.deadlines.cancel(request)

    def pop_all(self) -> list[Request]:
        taken, self._waiting = self._waiting, []
        for request in taken:
            self._outbox.deadlines.cancel(request)
        return taken

"""Requests that wait for a reply, and the token bucket that paces joins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .._wire.envelope import Message
from .outbox import Outbox

__all__ = ["REQUEST_BUFFER_LIMIT", "PendingRequests", "Request", "RequestBuffer"]

REQUEST_BUFFER_LIMIT = 100
"""Requests held for a channel that is not joined; as many as supabase-js holds."""


@dataclass(slots=True, eq=False)
class Request:
    """One request. ``kind`` tells its owner what the reply is for; ``outcome`` is the caller's."""

    channel: Any
    kind: str
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

    def write(self, push: Request, join_ref: str | None, topic: str, now: float) -> None:
        """Give the request a ref and send it. A join's own ref is its join_ref."""
        ref = self.expect(push, now)
        if push.kind == "join":
            join_ref = ref
        self._outbox.send(Message(join_ref, ref, topic, push.event, push.payload))

    def expect(self, push: Request, now: float) -> str:
        """Give the request a ref, which is returned, and wait for the reply to it."""
        ref = push.ref = self._outbox.next_ref()
        push.sent_at = now
        self._pending[ref] = push
        mine = self._by_channel.get(push.channel)
        if mine is None:
            mine = self._by_channel[push.channel] = {}
        mine[ref] = push
        self._outbox.timers.set(push, now + push.timeout)
        return ref

    def take(self, ref: Any) -> Request | None:
        """The request that a reply with this ref answers; it is pending no longer."""
        push = self._pending.pop(ref, None)
        if push is not None:
            self._outbox.timers.cancel(push)
            mine = self._by_channel[push.channel]
            del mine[ref]
            if not mine:
                del self._by_channel[push.channel]
        return push

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

    def add(self, push: Request, now: float) -> Request | None:
        """Hold the request; its time runs already. Returns the one that fell out, if any."""
        dropped = None
        if len(self._waiting) >= REQUEST_BUFFER_LIMIT:
            dropped = self._waiting.pop(0)
            self._outbox.timers.cancel(dropped)
        self._waiting.append(push)
        self._outbox.timers.set(push, now + push.timeout)
        return dropped

    def remove(self, push: Request) -> None:
        if push in self._waiting:
            self._waiting.remove(push)
            self._outbox.timers.cancel(push)

    def take_all(self) -> list[Request]:
        taken, self._waiting = self._waiting, []
        for push in taken:
            self._outbox.timers.cancel(push)
        return taken

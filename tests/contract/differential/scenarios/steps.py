"""Steps with which many scenarios begin."""

from __future__ import annotations

from typing import Any

__all__ = ["ACK", "PRIVATE", "heard", "joined", "on", "opening"]

ACK = {"config": {"broadcast": {"ack": True}}}
PRIVATE = {"config": {"private": True}}


def on(kind: str, event: Any = "*", handler: str = "h", **about: Any) -> tuple[Any, ...]:
    """A registration on channel ``a``; ``event`` is an event or the whole filter."""
    filter = event if isinstance(event, dict) else {"event": event}
    return ("on", "a", kind, filter, handler, about)


def opening(*registrations: Any, opts: Any = None, **about: Any) -> list[Any]:
    """Channel ``a`` of topic ``room``, subscribed."""
    return [("channel", "a", "room", opts), *registrations, ("subscribe", "a", about)]


def joined(*registrations: Any, opts: Any = None, **about: Any) -> list[Any]:
    """Channel ``a`` of topic ``room``, joined."""
    return [*opening(*registrations, opts=opts, **about), ("status", "a", "SUBSCRIBED")]


def heard(handler: str, payload: Any, event: str | None = "e") -> dict[str, Any]:
    """Returns the handler calls for a broadcast, as a side reports them."""
    content = {"type": "broadcast", "event": event, "payload": payload}
    return {"handler": handler, "payload": content}

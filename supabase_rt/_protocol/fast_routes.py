"""The fast path from a frame to the handlers of a joined channel.

Most frames are broadcasts or changes for a joined channel. For these the general path,
``ClientMachine.receive``, gives the same answer each time, so the answer is cached. Each joined
channel has a ``FastRoute``, with a ``CachedListener`` for each event name seen. The machines drop
cached objects that may be outdated. A route is dropped when its channel is no longer joined, its
listeners when a binding is added or removed. The reader fills in the listeners.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["ROUTE_LIMIT", "CachedListener", "FastRoute", "reroute"]

ROUTE_LIMIT = 1024
"""Cached listeners of one kind for each channel. A peer that invents names must not fill the
memory."""


class CachedListener:
    """The listener of one event of one channel; None once the cache was dropped."""

    __slots__ = ("event", "listener")

    def __init__(self, event: str | None, listener: Any) -> None:
        self.event: str | None = event
        self.listener: Any = listener


class FastRoute:
    """The listeners of one join; ``channel`` is the machine.

    ``event`` and ``listener`` belong to the last broadcast. Most channels carry one event. With
    thousands of channels the cost of a frame is the memory that it touches.
    """

    __slots__ = ("broadcasts", "changes", "channel", "event", "join_ref", "listener", "sync")

    def __init__(self, channel: Any, join_ref: str | None) -> None:
        self.channel: Any = channel
        self.join_ref: str | None = join_ref
        self.event: str | None = None
        self.listener: Any = None
        self.broadcasts: dict[str | None, CachedListener] = {}
        self.changes: dict[tuple[Any, ...], Any] = {}
        """The listener by the type of change and the server's ids."""
        self.sync: Any = None
        """The listener of ``sync``, if the channel has no handler for joins and leaves."""

    def add_broadcast(self, event: str | None, listener: Any) -> CachedListener:
        """Cache the listener of broadcasts with this name."""
        if len(self.broadcasts) >= ROUTE_LIMIT:
            self.forget()
        # One string object for all channels: it is compared for every frame.
        name = None if event is None else sys.intern(event)
        cached = self.broadcasts[name] = CachedListener(name, listener)
        return cached

    def add_change(self, key: tuple[Any, ...], listener: Any) -> None:
        """Cache the listener of changes by type and server ids."""
        if len(self.changes) >= ROUTE_LIMIT:
            self.forget()
        self.changes[key] = listener

    def forget(self) -> None:
        """Drop the cached listeners: a binding was added or removed, or the join is over."""
        for cached in self.broadcasts.values():
            # The reader may still hold the object.
            cached.listener = None
        self.broadcasts.clear()
        self.listener = None
        self.changes.clear()
        self.sync = None


def reroute(routes: dict[str, FastRoute], channel: Any, *, is_joined: bool) -> None:
    """Add or remove the route of a channel whose state changed. Only a joined channel has one."""
    bindings = channel.bindings
    if is_joined:
        bindings.route = routes[channel.topic] = FastRoute(channel, channel.join_ref)
    elif bindings.route is not None:
        route, bindings.route = bindings.route, None
        route.forget()
        routes.pop(channel.topic, None)

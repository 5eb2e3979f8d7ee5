"""The short way from a frame to the listeners of a joined channel.

Most frames are broadcasts and changes for channels that are joined, and what the long way
(``Session.receive``) finds out about one of them it has found out before. So the answer is kept:
a ``FastRoute`` for each joined channel, with a ``CachedListener`` for each event seen. The machines
throw away whatever may have become wrong: the route when the channel is joined no longer, its
lanes when a binding comes or goes. The shell fills in who listens.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["ROUTE_LIMIT", "CachedListener", "FastRoute", "reroute"]

ROUTE_LIMIT = 1024
"""Lanes of one kind for each channel: a peer that invents names must not fill the memory."""


class CachedListener:
    """One event of one channel. ``listener`` is None once the lane is closed."""

    __slots__ = ("event", "listener")

    def __init__(self, event: str | None, listener: Any) -> None:
        self.event: str | None = event
        self.listener: Any = listener


class FastRoute:
    """Where the frames of one join go; ``channel`` is the machine.

    ``event`` and ``listener`` are those of the last broadcast: with thousands of channels, what
    a frame costs is the memory it touches, and most channels carry one event.
    """

    __slots__ = ("broadcasts", "changes", "channel", "event", "join_ref", "listener", "sync")

    def __init__(self, channel: Any, join_ref: str | None) -> None:
        self.channel: Any = channel
        self.join_ref: str | None = join_ref
        self.event: str | None = None
        self.listener: Any = None
        self.broadcasts: dict[str | None, CachedListener] = {}
        self.changes: dict[tuple[Any, ...], Any] = {}
        """The listener by the kind of change and the server's ids."""
        self.sync: Any = None
        """Who listens to presence, where nobody does to joins and leaves."""

    def add_broadcast(self, event: str | None, listener: Any) -> CachedListener:
        """A lane for broadcasts of this name."""
        if len(self.broadcasts) >= ROUTE_LIMIT:
            self.forget()
        # One text for all channels: it is compared for every frame.
        name = None if event is None else sys.intern(event)
        lane = self.broadcasts[name] = CachedListener(name, listener)
        return lane

    def add_change(self, key: tuple[Any, ...], listener: Any) -> None:
        """The listener of changes of this kind, for these ids of the server."""
        if len(self.changes) >= ROUTE_LIMIT:
            self.forget()
        self.changes[key] = listener

    def forget(self) -> None:
        """Who listens has changed, or nobody may any more."""
        for lane in self.broadcasts.values():
            # Others may still hold it.
            lane.listener = None
        self.broadcasts.clear()
        self.listener = None
        self.changes.clear()
        self.sync = None


def reroute(routes: dict[str, FastRoute], channel: Any, *, is_joined: bool) -> None:
    """The channel has moved: only a joined one has a short way to its handlers."""
    bindings = channel.bindings
    if is_joined:
        bindings.route = routes[channel.topic] = FastRoute(channel, channel.join_ref)
    elif bindings.route is not None:
        route, bindings.route = bindings.route, None
        route.forget()
        routes.pop(channel.topic, None)

"""Topics, their members, and the messages between them.

Each topic has a public and a private space. No message passes from one to the other. See
docs/protocol.md#7-broadcast, docs/protocol.md#8-presence.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..._wire.envelope import TOPIC_PREFIX, UserBroadcast
from ..._wire.json_codec import plain
from ...errors import DecodeError
from ..activity import Activity, Happening
from .memory_bounds import MOST_PRESENCE
from .outgoing import Fanout
from .presence_book import Diff, PresenceBook
from .rate_limits import Limits

__all__ = ["Hub", "Member", "SpaceKey"]

SpaceKey = tuple[str, bool]
"""Sub-topic, and True for the private space."""


class Member(Protocol):
    """A channel, as the hub sees it."""

    def __hash__(self) -> int:
        """Required because members are keys of dicts."""

    @property
    def space(self) -> SpaceKey:
        """The space that the channel is in."""

    @property
    def connection(self) -> int:
        """The number of its socket."""

    def hears_broadcasts(self, sender: Member | None) -> bool:
        """Returns True if this member gets the broadcasts of ``sender``."""

    def hears_presence(self) -> bool:
        """Returns True if this member gets presence diffs."""

    def deliver(self, message: Fanout) -> bool:
        """Write a message; returns False if it has no form in this member's vsn."""

    def shut_down(self, message: str | None = None) -> None:
        """End the channel, after a ``system`` error with this message."""


class _Space:
    def __init__(self) -> None:
        # A dict keeps the order: members get a message in the order in which they joined.
        self.members: dict[Member, None] = {}
        self.presence = PresenceBook()


class Hub:
    """All spaces of one server; it counts their messages for the rate limits."""

    def __init__(self, limits: Limits, activity: Activity) -> None:
        self._limits = limits
        self._activity = activity
        self._spaces: dict[SpaceKey, _Space] = {}
        self._tracked: dict[Member, int] = {}
        self._tracked_total = 0

    def enter(self, member: Member) -> None:
        """Add a member to its space."""
        self._spaces.setdefault(member.space, _Space()).members[member] = None

    def leave(self, member: Member) -> None:
        """Remove a member and send the others the presence diff; an unknown one is ignored."""
        space = self._spaces.get(member.space)
        if space is None or member not in space.members:
            return
        del space.members[member]
        self._weigh_tracked(member, 0)
        self._send_diff(member.space, space, space.presence.untrack(member))
        if not space.members:
            del self._spaces[member.space]

    def members(self, key: SpaceKey) -> list[Member]:
        """Returns the members of a space."""
        space = self._spaces.get(key)
        return list(space.members) if space else []

    def broadcast(self, key: SpaceKey, message: Fanout, sender: Member | None = None) -> int:
        """Send a message to the members of a space; returns the number of receivers."""
        space = self._spaces.get(key)
        reached = 0
        for member in list(space.members) if space else ():
            if member.hears_broadcasts(sender) and member.deliver(message):
                reached += 1
        self._limits.events.count += 1 + reached
        if self._activity.watched:
            number = sender.connection if sender is not None else None
            self._watched(key, "broadcast", message.payload, number, reached)
        return reached

    def overrun(self, key: SpaceKey, sender: Member) -> None:
        """End all members that would get a broadcast beyond the rate limit.

        See docs/protocol.md#10-limits.
        """
        self._limits.events.count += 1
        for member in self.members(key):
            if member.hears_broadcasts(sender):
                member.shut_down("Too many messages per second")

    def has_room(self, member: Member, weight: int) -> bool:
        """Returns True if a member may track this many bytes, given those of all others."""
        others = self._tracked_total - self._tracked.get(member, 0)
        return others + weight <= MOST_PRESENCE

    def _weigh_tracked(self, member: Member, weight: int) -> None:
        self._tracked_total += weight - self._tracked.pop(member, 0)
        if weight:
            self._tracked[member] = weight

    def track(self, member: Member, key: str, payload: dict[str, Any], weight: int = 0) -> None:
        """Record that a member is present, and send the diff; ``weight`` is in bytes."""
        space = self._spaces[member.space]
        self._weigh_tracked(member, weight)
        self._send_diff(member.space, space, space.presence.track(member, key, payload))

    def untrack(self, member: Member) -> None:
        """Record that a member is no longer present, and send the diff."""
        space = self._spaces[member.space]
        self._weigh_tracked(member, 0)
        self._send_diff(member.space, space, space.presence.untrack(member))

    def presence_state(self, key: SpaceKey) -> dict[str, Any]:
        """Returns the presence state of a space."""
        space = self._spaces.get(key)
        return space.presence.state() if space else {}

    def _send_diff(self, key: SpaceKey, space: _Space, diff: Diff | None) -> None:
        if diff is None:
            return
        message = Fanout(TOPIC_PREFIX + key[0], "presence_diff", diff)
        if self._activity.watched:
            self._watched(key, "presence", diff)
        reached = 0
        for member in list(space.members):
            if member.hears_presence():
                reached += member.deliver(message)
        self._limits.presence.count += reached

    def _watched(
        self,
        key: SpaceKey,
        kind: str,
        payload: Any,
        connection: int | None = None,
        reached: int | None = None,
    ) -> None:
        event, words, content = "", ["private"] if key[1] else [], payload
        if kind == "presence":
            words += [f"+{name}" for name in payload["joins"]]
            words += [f"-{name}" for name in payload["leaves"]]
        elif isinstance(payload, UserBroadcast):
            event = payload.event
        else:
            event, content = _looked_into(payload)
        found = Happening(kind, connection, key[0], event, " ".join(words), content, reached)
        self._activity.report(found)

    def spaces(self) -> list[tuple[SpaceKey, dict[str, Any]]]:
        """Returns every space with members, and its presence state."""
        return [(key, space.presence.state()) for key, space in self._spaces.items()]


def _looked_into(payload: Any) -> tuple[str, Any]:
    """Returns the event and the content of a broadcast; a failure here affects watchers only."""
    try:
        found = plain(payload)
        if isinstance(found, dict):
            return str(found.get("event", "")), plain(found.get("payload"))
    except DecodeError:
        pass
    return "", payload

"""Topics and their members: who hears what (docs/protocol.md#7-broadcast, #8-presence).

A topic exists twice, as a public and as a private space, and nothing passes between the two.
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
"""Sub-topic, and whether the space is the private one."""


class Member(Protocol):
    """What the hub knows of a channel."""

    def __hash__(self) -> int:
        """Members are keys."""

    @property
    def space(self) -> SpaceKey:
        """The space that the channel is in."""

    @property
    def connection(self) -> int:
        """The number of the socket that it lives on."""

    def hears_broadcasts(self, sender: Member | None) -> bool:
        """Whether a broadcast of ``sender`` is for this member."""

    def hears_presence(self) -> bool:
        """Whether presence is for this member."""

    def deliver(self, message: Fanout) -> bool:
        """Take a message; False where there is nothing in it for this member's vsn."""

    def shut_down(self, message: str | None = None) -> None:
        """End, with a ``system`` error that says why."""


class _Space:
    def __init__(self) -> None:
        # A dict, because members hear a message in the order in which they came.
        self.members: dict[Member, None] = {}
        self.presence = PresenceBook()


class Hub:
    """All spaces of one server; what is told is counted, where so much of it is."""

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
        """Remove a member, known or not, and tell the others that it is no longer present."""
        space = self._spaces.get(member.space)
        if space is None or member not in space.members:
            return
        del space.members[member]
        self._weigh_tracked(member, 0)
        self._tell(member.space, space, space.presence.untrack(member))
        if not space.members:
            del self._spaces[member.space]

    def members(self, key: SpaceKey) -> list[Member]:
        """The members of a space."""
        space = self._spaces.get(key)
        return list(space.members) if space else []

    def broadcast(self, key: SpaceKey, message: Fanout, sender: Member | None = None) -> int:
        """Tell the members of a space; how many were told."""
        space = self._spaces.get(key)
        told = 0
        for member in list(space.members) if space else ():
            if member.hears_broadcasts(sender) and member.deliver(message):
                told += 1
        self._limits.events.count += 1 + told
        if self._activity.watched:
            number = sender.connection if sender is not None else None
            self._watched(key, "broadcast", message.payload, number, told)
        return told

    def overrun(self, key: SpaceKey, sender: Member) -> None:
        """End the members that a broadcast is for: there are too many.

        See docs/protocol.md#10-limits.
        """
        self._limits.events.count += 1
        for member in self.members(key):
            if member.hears_broadcasts(sender):
                member.shut_down("Too many messages per second")

    def has_room(self, member: Member, weight: int) -> bool:
        """Whether a member may track so many bytes beside what all others do."""
        others = self._tracked_total - self._tracked.get(member, 0)
        return others + weight <= MOST_PRESENCE

    def _weigh_tracked(self, member: Member, weight: int) -> None:
        self._tracked_total += weight - self._tracked.pop(member, 0)
        if weight:
            self._tracked[member] = weight

    def track(self, member: Member, key: str, payload: dict[str, Any], weight: int = 0) -> None:
        """Note and tell that a member is present, by a payload of so many bytes."""
        space = self._spaces[member.space]
        self._weigh_tracked(member, weight)
        self._tell(member.space, space, space.presence.track(member, key, payload))

    def untrack(self, member: Member) -> None:
        """Note and tell that a member is no longer present."""
        space = self._spaces[member.space]
        self._weigh_tracked(member, 0)
        self._tell(member.space, space, space.presence.untrack(member))

    def presence_state(self, key: SpaceKey) -> dict[str, Any]:
        """Who is present in a space."""
        space = self._spaces.get(key)
        return space.presence.state() if space else {}

    def _tell(self, key: SpaceKey, space: _Space, diff: Diff | None) -> None:
        if diff is None:
            return
        message = Fanout(TOPIC_PREFIX + key[0], "presence_diff", diff)
        if self._activity.watched:
            self._watched(key, "presence", diff)
        told = 0
        for member in list(space.members):
            if member.hears_presence():
                told += member.deliver(message)
        self._limits.presence.count += told

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
        self._activity.tell(found)

    def spaces(self) -> list[tuple[SpaceKey, dict[str, Any]]]:
        """Every space that has members, with who is present in it."""
        return [(key, space.presence.state()) for key, space in self._spaces.items()]


def _looked_into(payload: Any) -> tuple[str, Any]:
    """Returns the event and the content of a broadcast; an onlooker's trouble is nobody else's."""
    try:
        found = plain(payload)
        if isinstance(found, dict):
            return str(found.get("event", "")), plain(found.get("payload"))
    except DecodeError:
        pass
    return "", payload

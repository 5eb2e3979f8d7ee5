"""The listening methods of PyPI's ``realtime`` 2.x, with its argument order, on our channel.

They save a program that moves here from being rewritten at once; ``on`` says the same for every
listen type. What handlers are given is ours: docs/porting-from-supabase-py.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

from .._payloads.broadcast import Broadcast
from .._payloads.postgres_change import PostgresChange
from .._payloads.presence_events import PresenceJoin, PresenceLeave, PresenceSync
from .._payloads.system_message import SystemMessage
from .._protocol.changes_filter import PostgresChangesFilter
from .._runtime.outcome import Outcome
from ..enums import ListenType, PostgresChangesEvent, PresenceEvent
from .channel_sender import Sending
from .channel_streams import Iterating
from .realtime_py_compat import spread

__all__ = ["Sugar"]

Presences = list[dict[str, Any]]


class Sugar(Iterating, Sending):
    """``on_postgres_changes`` and the like, each another way to write ``on``."""

    def on_postgres_changes(
        self,
        event: Literal["*", "INSERT", "UPDATE", "DELETE"] | PostgresChangesEvent,
        callback: Callable[[PostgresChange], Any] | Callable[[], Any],
        table: str | None = None,
        schema: str | None = None,
        filter: str | PostgresChangesFilter | None = None,
        select: Sequence[str] | None = None,
    ) -> Self:
        """``on("postgres_changes", ...)``; without a schema it is ``"public"``."""
        wanted = {"event": event, "schema": schema or "public", "table": table or None}
        found = {**wanted, "filter": filter or None, "select": select or None}
        return self.on(ListenType.POSTGRES_CHANGES, found, callback)

    def on_broadcast(
        self, event: str, callback: Callable[[Broadcast], Any] | Callable[[], Any]
    ) -> Self:
        """``on("broadcast", {"event": event}, callback)``."""
        return self.on(ListenType.BROADCAST, {"event": event}, callback)

    def on_system(self, callback: Callable[[SystemMessage], Any] | Callable[[], Any]) -> Self:
        """``on("system", {}, callback)``."""
        return self.on(ListenType.SYSTEM, {}, callback)

    def on_presence_sync(self, callback: Callable[[], Any] | Callable[[PresenceSync], Any]) -> Self:
        """``on("presence", {"event": "sync"}, callback)``."""
        return self._on_presence(PresenceEvent.SYNC, callback)

    def on_presence_join(
        self,
        callback: Callable[[str, Presences, Presences], Any]
        | Callable[[str, Presences], Any]
        | Callable[[PresenceJoin], Any]
        | Callable[[], Any],
    ) -> Self:
        """``on("presence", {"event": "join"}, ...)``; see ``on_presence_leave``."""
        return self._on_presence(PresenceEvent.JOIN, spread(callback))

    def on_presence_leave(
        self,
        callback: Callable[[str, Presences, Presences], Any]
        | Callable[[str, Presences], Any]
        | Callable[[PresenceLeave], Any]
        | Callable[[], Any],
    ) -> Self:
        """``on("presence", {"event": "leave"}, ...)``.

        A callback of more than one argument is given the key, the presences that are there and
        those that have changed; one of one argument the payload, as with ``on``.
        """
        return self._on_presence(PresenceEvent.LEAVE, spread(callback))

    def _on_presence(self, event: PresenceEvent, callback: Any) -> Self:
        self.on(ListenType.PRESENCE, {"event": event}, callback)
        return self

    def send_broadcast(self, event: str, data: Any) -> Outcome[str]:
        """``send({"type": "broadcast", "event": event, "payload": data})``."""
        return self.send({"type": ListenType.BROADCAST, "event": event, "payload": data})

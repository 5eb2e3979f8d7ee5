"""The listening methods of PyPI's ``realtime`` 2.x, with its argument order, on our channel.

They save a program that moves here from being rewritten at once; ``on`` says the same for every
listen type. What handlers are given is ours: docs/porting-from-supabase-py.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

from .._handlers.signatures import accepted_arguments, handler_name
from .._payloads.broadcast import (
    Broadcast,
    PostgresChange,
    PresenceJoin,
    PresenceLeave,
    PresenceSync,
    SystemMessage,
)
from .._protocol.changes_filter import PostgresChangesFilter
from .._runtime.outcome import Outcome
from ..enums import ListenType, PostgresChangesEvent, PresenceEvent
from .channel_sender import Sending
from .channel_streams import Iterating

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
        return self._on_presence(PresenceEvent.JOIN, _spread(callback))

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
        return self._on_presence(PresenceEvent.LEAVE, _spread(callback))

    def _on_presence(self, event: PresenceEvent, callback: Any) -> Self:
        self.on(ListenType.PRESENCE, {"event": event}, callback)
        return self

    def send_broadcast(self, event: str, data: Any) -> Outcome[str]:
        """``send({"type": "broadcast", "event": event, "payload": data})``."""
        return self.send({"type": ListenType.BROADCAST, "event": event, "payload": data})


def _spread(callback: Callable[..., Any]) -> Any:
    accepts = accepted_arguments(callback, 3)
    return callback if accepts < 2 else _Spread(callback, accepts)


class _Spread:
    """A callback of several arguments as a handler of one; ``off`` finds it by the callback."""

    def __init__(self, callback: Callable[..., Any], accepts: int) -> None:
        self._callback = callback
        self._accepts = accepts
        self.__qualname__ = handler_name(callback)

    def __call__(self, payload: Any) -> Any:
        return self._callback(*list(payload.values())[1 : 1 + self._accepts])

    def __eq__(self, other: object) -> bool:
        return other is self or other == self._callback

    def __hash__(self) -> int:
        return hash(self._callback)

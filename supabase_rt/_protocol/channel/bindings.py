"""The bindings of a channel, and the search for those that an event matches.

A binding is one ``on(type, filter, ...)``. Its id is ours and never leaves the process. A
postgres_changes binding also has the id that the server gave its filter at the join. Equal
filters are one entry of the join, because the server gives equal entries equal ids.

A match is found once for each event name, or set of server ids, and then cached. The cache is
dropped when a binding is added or removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...enums import ListenType
from ..fast_routes import FastRoute

__all__ = ["Binding", "Bindings"]

_MATCHED_FIELDS = ("schema", "table", "filter")
_TABLE_LIMIT = 1024
"""Entries in the cache: a peer that invents event names must not fill the memory."""


@dataclass(slots=True, eq=False)
class Binding:
    """One registration: ``event`` is None, ``*`` or a name; ``filter`` is the user's."""

    id: int
    type: ListenType
    event: str | None
    filter: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, ...]:
        """The key of the join payload's entry: bindings with equal keys share one entry."""
        return _key(self.filter)


def _key(entry: dict[str, Any]) -> tuple[Any, ...]:
    select = entry.get("select")
    return (
        entry.get("event"),
        *(entry.get(name) for name in _MATCHED_FIELDS),
        tuple(select) if isinstance(select, list) else select,
    )


class Bindings:
    """The bindings of one channel, in the order of their registration."""

    def __init__(self) -> None:
        self._all: dict[int, Binding] = {}
        self._count = 0
        self._server_ids: dict[tuple[Any, ...], Any] = {}
        self._routes: dict[tuple[Any, ...], tuple[int, ...]] = {}
        self._broadcasts: dict[str | None, tuple[int, ...]] = {}
        self.route: FastRoute | None = None
        """The object that lets frames pass these tables while the channel is joined."""

    def add(self, type: ListenType, filter: dict[str, Any]) -> Binding:
        self._count += 1
        event = filter.get("event")
        binding = Binding(self._count, type, None if event is None else event.lower(), filter)
        self._all[binding.id] = binding
        self._forget_routes()
        return binding

    def remove(self, binding_id: int) -> None:
        if self._all.pop(binding_id, None) is not None:
            self._forget_routes()

    def _forget_routes(self) -> None:
        self._routes.clear()
        self._broadcasts.clear()
        if self.route is not None:
            self.route.forget()

    def __iter__(self) -> Any:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def of_type(self, type: ListenType) -> list[Binding]:
        return [binding for binding in self._all.values() if binding.type is type]

    # -- the join ------------------------------------------------------------------------

    def postgres_changes(self) -> list[dict[str, Any]]:
        """Returns the entries of the join payload: distinct filters, by order of registration."""
        distinct: dict[tuple[Any, ...], dict[str, Any]] = {}
        for binding in self.of_type(ListenType.POSTGRES_CHANGES):
            distinct.setdefault(binding.key, dict(binding.filter))
        return list(distinct.values())

    def reconcile(self, sent: Sequence[dict[str, Any]], joined: Any) -> str | None:
        """Take the server's ids by position. Returns the first difference, or None.

        Absent and null are equal, as in supabase-js. ``select`` is not compared, because older
        servers do not return it. Surplus entries of the server are ignored.
        """
        ids: dict[tuple[Any, ...], Any] = {}
        for index, ours in enumerate(sent):
            theirs = joined[index] if index < len(joined) else None
            if not isinstance(theirs, dict) or not _agrees(ours, theirs):
                return f"entry {index}: asked for {ours!r}, the server joined {theirs!r}"
            ids[_key(ours)] = theirs.get("id")
        self._server_ids = ids
        self._forget_routes()
        return None

    # -- matching ------------------------------------------------------------------------

    def named(self, type: ListenType, event: str | None) -> tuple[int, ...]:
        """Returns the bindings of a broadcast, presence or system event by name, in any case."""
        route = (type, event)
        found = self._routes.get(route)
        if found is None:
            found = self._remember(route, self._match_named(type, event))
        return found

    def broadcast(self, event: str | None) -> tuple[int, ...]:
        """Returns ``named`` for broadcasts; a separate table for them is quicker."""
        found = self._broadcasts.get(event)
        if found is None:
            if len(self._broadcasts) >= _TABLE_LIMIT:
                self._broadcasts.clear()
            found = self._broadcasts[event] = self._match_named(ListenType.BROADCAST, event)
        return found

    def _match_named(self, type: ListenType, event: str | None) -> tuple[int, ...]:
        if type is ListenType.SYSTEM:
            return tuple(binding.id for binding in self.of_type(type))
        name = None if event is None else event.lower()
        return tuple(binding.id for binding in self.of_type(type) if binding.event in ("*", name))

    def changed(self, ids: Sequence[Any], event: str) -> tuple[int, ...]:
        """Returns the bindings of a database change, by the server's ids and the type of change."""
        route = (ListenType.POSTGRES_CHANGES, event, *ids)
        found = self._routes.get(route)
        if found is None:
            found = self._remember(route, self._match_changed(ids, event.lower()))
        return found

    def _match_changed(self, ids: Sequence[Any], event: str) -> tuple[int, ...]:
        return tuple(
            binding.id
            for binding in self.of_type(ListenType.POSTGRES_CHANGES)
            if binding.event in ("*", event) and self._server_ids.get(binding.key) in ids
        )

    def _remember(self, route: tuple[Any, ...], found: tuple[int, ...]) -> tuple[int, ...]:
        if len(self._routes) >= _TABLE_LIMIT:
            self._routes.clear()
        self._routes[route] = found
        return found


def _agrees(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return ours.get("event") == theirs.get("event") and all(
        ours.get(name) == theirs.get(name) for name in _MATCHED_FIELDS
    )

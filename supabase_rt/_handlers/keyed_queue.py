"""The queue of a concurrent handler: events of one key wait for each other, others do not."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Any

__all__ = ["Item", "KeyedQueue"]

Item = tuple[Any, ...]
"""The arguments of one event."""


class KeyedQueue:
    """A queue whose events with equal keys are handled one at a time, in their order.

    Keys take turns in the order in which they became free. Every call takes constant time,
    however many events wait.
    """

    __slots__ = ("_bytes", "_events", "_free", "_in_use", "_keys", "_next")

    def __init__(self) -> None:
        self._events: dict[Hashable, deque[tuple[int, Item, int]]] = {}
        """The events of each key: number, arguments and size."""
        self._keys: OrderedDict[int, Hashable] = OrderedDict()
        """The key of each event by its number; the first is the oldest."""
        self._free: OrderedDict[Hashable, None] = OrderedDict()
        """Keys that have events, none of which is being handled."""
        self._in_use: set[Hashable] = set()
        self._next = 0
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """The sum of the sizes of all events."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._keys)

    def append(self, key: Hashable, item: Item, size: int = 0) -> None:
        """Adds one event of ``size`` bytes. Raises ``TypeError`` for a key without a hash."""
        events = self._events.get(key)
        if events is None:
            events = self._events[key] = deque()
            if key not in self._in_use:
                self._free[key] = None
        events.append((self._next, item, size))
        self._bytes += size
        self._keys[self._next] = key
        self._next += 1

    def drop_oldest(self) -> None:
        """Drops the event that has waited longest."""
        _, key = self._keys.popitem(last=False)
        self._pop_first(key)

    def pop(self) -> tuple[Hashable, Item] | None:
        """Returns the next event and its key, which is in use until ``done``; or None."""
        if not self._free:
            return None
        key, _ = self._free.popitem(last=False)
        self._in_use.add(key)
        number, item, _ = self._pop_first(key)
        del self._keys[number]
        return key, item

    def done(self, key: Hashable) -> None:
        """Frees the key of an event that was handled; the next event of this key may follow."""
        self._in_use.discard(key)
        if key in self._events:
            self._free[key] = None

    def free_keys(self) -> None:
        """Frees all keys, as those who handled their events are gone."""
        for key in list(self._in_use):
            self.done(key)

    def clear(self) -> None:
        """Forgets all events."""
        for part in (self._events, self._keys, self._free):
            part.clear()
        self._bytes = 0

    def _pop_first(self, key: Hashable) -> tuple[int, Item, int]:
        events = self._events[key]
        first = events.popleft()
        self._bytes -= first[2]
        if not events:
            del self._events[key]
            self._free.pop(key, None)
        return first

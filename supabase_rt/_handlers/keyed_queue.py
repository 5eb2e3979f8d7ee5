"""What waits for a concurrent handler: one lane for each key, all of them open but those in use."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Any

__all__ = ["Item", "Lanes"]

Item = tuple[Any, ...]
"""The arguments of one event."""


class Lanes:
    """A queue whose events with equal keys are taken one at a time, in their order.

    Events of different keys do not wait for each other; the key whose turn came first is served
    first. Everything is done in constant time, however many wait.
    """

    __slots__ = ("_bytes", "_in_use", "_keys", "_lanes", "_next", "_open")

    def __init__(self) -> None:
        self._lanes: dict[Hashable, deque[tuple[int, Item, int]]] = {}
        self._keys: OrderedDict[int, Hashable] = OrderedDict()
        """The key of each event that waits, by its number: the first is the oldest."""
        self._open: OrderedDict[Hashable, None] = OrderedDict()
        """Keys with events that wait for nothing but a worker."""
        self._in_use: set[Hashable] = set()
        self._next = 0
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """The sizes of all that waits."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._keys)

    def append(self, key: Hashable, item: Item, size: int = 0) -> None:
        """One more event, of so many bytes. Raises ``TypeError`` for a key that is not hashable."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = deque()
            if key not in self._in_use:
                self._open[key] = None
        lane.append((self._next, item, size))
        self._bytes += size
        self._keys[self._next] = key
        self._next += 1

    def drop_oldest(self) -> None:
        """The event that has waited longest goes."""
        _, key = self._keys.popitem(last=False)
        self._shorten(key)

    def take(self) -> tuple[Hashable, Item] | None:
        """The next event that may be handled now, and its key, to be given to ``done``."""
        if not self._open:
            return None
        key, _ = self._open.popitem(last=False)
        self._in_use.add(key)
        number, item, _ = self._shorten(key)
        del self._keys[number]
        return key, item

    def done(self, key: Hashable) -> None:
        """What was taken has been handled; the next of its key may follow."""
        self._in_use.discard(key)
        if key in self._lanes:
            self._open[key] = None

    def free(self) -> None:
        """Nobody is at what was taken any more."""
        for key in list(self._in_use):
            self.done(key)

    def clear(self) -> None:
        """Forget all that waits."""
        for part in (self._lanes, self._keys, self._open):
            part.clear()
        self._bytes = 0

    def _shorten(self, key: Hashable) -> tuple[int, Item, int]:
        lane = self._lanes[key]
        first = lane.popleft()
        self._bytes -= first[2]
        if not lane:
            del self._lanes[key]
            self._open.pop(key, None)
        return first

"""What is due when; no clock."""

from __future__ import annotations

import heapq
from collections.abc import Hashable

__all__ = ["Deadlines"]


class Deadlines:
    """Deadlines by key in one heap, so that waking costs the same for one channel or 5,000.

    A key has one deadline; setting it again moves it. Moved and cancelled entries stay in the
    heap until they surface, which is cheaper than searching for them.
    """

    def __init__(self) -> None:
        self._due: dict[Hashable, float] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._count = 0

    def set(self, key: Hashable, when: float) -> None:
        self._due[key] = when
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, key))
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._due):
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def cancel(self, key: Hashable) -> None:
        self._due.pop(key, None)

    def get(self, key: Hashable) -> float | None:
        return self._due.get(key)

    def next(self) -> float | None:
        """When the earliest deadline falls due, or None."""
        while self._heap:
            when, _, key = self._heap[0]
            if self._due.get(key) == when:
                return when
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: float) -> Hashable | None:
        """Take the earliest key that is due at ``now``, or None."""
        when = self.next()
        if when is None or when > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        return key

    def __len__(self) -> int:
        return len(self._due)

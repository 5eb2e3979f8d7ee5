"""What the machines hand out: frames to write, events to tell, deadlines to wake for.

Machines never call out. They append here and the shell collects, by swapping the lists for
empty ones, after every call: so a message is applied completely or not at all, and user code
never runs while a machine is half way through a change.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Any, NamedTuple

from .._wire.envelope import Message

__all__ = ["Frame", "Outbox", "Timers"]


class Frame(NamedTuple):
    """A message to write, and the outcome that is settled once it is written (or cannot be)."""

    message: Message
    outcome: object | None = None


class Timers:
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


class Outbox:
    """The one place where machines leave their results."""

    def __init__(self) -> None:
        self.timers: Timers = Timers()
        self._frames: list[Frame] = []
        self._events: list[Any] = []
        self._ref = 0

    def next_ref(self) -> str:
        """A ref that no earlier frame of this client had, across reconnects too.

        So a reply that belongs to an older connection can never meet a pending push.
        """
        self._ref += 1
        return str(self._ref)

    def send(self, message: Message, outcome: object | None = None) -> None:
        self._frames.append(Frame(message, outcome))

    def tell(self, event: object) -> None:
        self._events.append(event)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits to be written or told."""
        return not self._events and not self._frames

    @property
    def has_frames(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._frames)

    def take_frames(self) -> list[Frame]:
        frames, self._frames = self._frames, []
        return frames

    def take_events(self) -> list[Any]:
        events, self._events = self._events, []
        return events

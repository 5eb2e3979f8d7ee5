"""What the machines hand out: frames to write, events to tell, deadlines to wake for.

Machines never call out. They append here and the shell collects, by swapping the lists for
empty ones, after every call: so a message is applied completely or not at all, and user code
never runs while a machine is half way through a change.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._wire.envelope import Message
from .deadlines import Deadlines

__all__ = ["Outbox", "OutgoingMessage"]


class OutgoingMessage(NamedTuple):
    """A message to write, and the outcome that is settled once it is written (or cannot be)."""

    message: Message
    outcome: object | None = None


class Outbox:
    """The one place where machines leave their results."""

    def __init__(self) -> None:
        self.deadlines: Deadlines = Deadlines()
        self._frames: list[OutgoingMessage] = []
        self._events: list[Any] = []
        self._ref = 0

    def next_ref(self) -> str:
        """A ref that no earlier frame of this client had, across reconnects too.

        So a reply that belongs to an older connection can never meet a pending push.
        """
        self._ref += 1
        return str(self._ref)

    def send(self, message: Message, outcome: object | None = None) -> None:
        self._frames.append(OutgoingMessage(message, outcome))

    def emit(self, event: object) -> None:
        self._events.append(event)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits to be written or told."""
        return not self._events and not self._frames

    @property
    def has_frames(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._frames)

    def pop_frames(self) -> list[OutgoingMessage]:
        frames, self._frames = self._frames, []
        return frames

    def pop_events(self) -> list[Any]:
        events, self._events = self._events, []
        return events

"""The output of the machines: messages to write, events to report, deadlines to wake for.

Machines call nobody. They append here, and after every call the connection takes the lists away.
So a message is applied completely or not at all, and user code never runs in the middle of a
change of state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._wire.envelope import Message
from .deadlines import Deadlines

__all__ = ["Outbox", "OutgoingMessage"]


class OutgoingMessage(NamedTuple):
    """A message to write, and the outcome that is settled when it was written or failed."""

    message: Message
    outcome: object | None = None


class Outbox:
    """The output of all machines of one client."""

    def __init__(self) -> None:
        self.deadlines: Deadlines = Deadlines()
        self._frames: list[OutgoingMessage] = []
        self._events: list[Any] = []
        self._ref = 0

    def next_ref(self) -> str:
        """Returns a ref that this client never used before, not even on an earlier connection.

        So a reply of an older connection can never match a pending request.
        """
        self._ref += 1
        return str(self._ref)

    def send(self, message: Message, outcome: object | None = None) -> None:
        self._frames.append(OutgoingMessage(message, outcome))

    def emit(self, event: object) -> None:
        self._events.append(event)

    @property
    def is_quiet(self) -> bool:
        """True if no message and no event waits here."""
        return not self._events and not self._frames

    @property
    def has_frames(self) -> bool:
        """True if a message waits to be written."""
        return bool(self._frames)

    def pop_frames(self) -> list[OutgoingMessage]:
        frames, self._frames = self._frames, []
        return frames

    def pop_events(self) -> list[Any]:
        events, self._events = self._events, []
        return events

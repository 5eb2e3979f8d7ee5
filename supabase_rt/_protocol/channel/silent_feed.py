"""A channel whose database changes fell silent: a server can lose a subscription without a word."""

from __future__ import annotations

from typing import Any

from ..shared_state import SharedState
from .channel_states import JOINED

__all__ = ["SilentFeedWatch"]


class SilentFeedWatch:
    """Has a channel joined anew when no change was heard for long, by its timer ``"feed"``."""

    __slots__ = ("_channel", "_deadlines", "after")

    def __init__(self, channel: Any, context: SharedState) -> None:
        self.after: float | None = None
        """Seconds of silence that are enough; None where nobody asked for it."""
        self._channel = channel
        self._deadlines = context.outbox.deadlines

    def begin(self, seconds: float) -> None:
        """Watch from the next moment on in which changes flow. To be told before the first join."""
        self.after = seconds
        self._channel.inbound.notes_changes = True

    def flows(self) -> None:
        """The server says that changes flow from now on."""
        if self.after is not None:
            self._deadlines.set((self._channel, "feed"), self._due)

    def stop(self) -> None:
        """The join is over."""
        self._deadlines.cancel((self._channel, "feed"))

    def woken(self, now: float) -> None:
        """The timer: changes may have come since it was set."""
        if self._channel.state is not JOINED:
            return
        if self._due > now:
            self.flows()
        else:
            self._channel.rejoin_silent(now)

    @property
    def _due(self) -> float:
        assert self.after is not None
        due: float = self._channel.inbound.changed_at + self.after
        return due

"""The watch for missing database changes: a server can lose a subscription silently."""

from __future__ import annotations

from typing import Any

from ..shared_state import SharedState
from .channel_states import JOINED

__all__ = ["SilentFeedWatch"]


class SilentFeedWatch:
    """Joins a channel again when no change came for a long time, by its deadline ``"feed"``."""

    __slots__ = ("_channel", "_deadlines", "after")

    def __init__(self, channel: Any, context: SharedState) -> None:
        self.after: float | None = None
        """Seconds without a change after which the channel is joined again; None for never."""
        self._channel = channel
        self._deadlines = context.outbox.deadlines

    def begin(self, seconds: float) -> None:
        """Watch from the time when changes flow. Must be called before the first join."""
        self.after = seconds
        self._channel.inbound.notes_changes = True

    def flows(self) -> None:
        """Set the deadline: the server reports that changes flow from now on."""
        if self.after is not None:
            self._deadlines.set((self._channel, "feed"), self._due)

    def stop(self) -> None:
        """Cancel the deadline: the join is over."""
        self._deadlines.cancel((self._channel, "feed"))

    def woken(self, now: float) -> None:
        """Join again, or move the deadline if changes came since it was set."""
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

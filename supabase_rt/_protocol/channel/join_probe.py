"""What follows a frame that nobody could read, not even whose it was.

It may have been the end of a channel, which would then be joined here and nowhere else, for ever:
is it still there on the server? The server ignores an event it does not know on a joined topic and
answers it on any other
(docs/protocol.md#pushes-nobody-expects), so asking costs one small frame and
changes nothing. And it may have been an event of any channel, which each of them is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ..._wire.envelope import Message
from ..shared_state import SharedState
from .channel_machine import ChannelMachine
from .channel_states import JOINED

__all__ = ["PROBE_PAUSE", "JoinProbe", "is_unmatched"]

PROBE_PAUSE: Final = 2.0
"""Seconds from the first unreadable frame to the question: a flood of them asks once."""
TIMER: Final = "probe"


def is_unmatched(status: str, response: Any) -> bool:
    """Whether a reply says that nobody is joined on the topic of a request."""
    return (
        status == "error"
        and isinstance(response, dict)
        and response.get("reason") == "unmatched topic"
    )


class JoinProbe:
    """The questions of one link after the other."""

    def __init__(self, context: SharedState) -> None:
        self._outbox = context.outbox
        self._asked: dict[str, ChannelMachine] = {}
        """Whom the last questions were about; most are never answered."""
        self._since = 0.0

    def soon(self, now: float) -> None:
        """A frame could not be read."""
        if self._outbox.deadlines.get(TIMER) is None:
            self._outbox.deadlines.set(TIMER, now + PROBE_PAUSE)
            self._since = now

    def ask(self, channels: Iterable[ChannelMachine], now: float) -> None:
        """It is time to ask about every channel that is joined."""
        self._asked.clear()
        for channel in channels:
            if channel.state is JOINED:
                channel.inbound.missed(self._since, now)
                ref = self._outbox.next_ref()
                self._asked[ref] = channel
                self._outbox.send(Message(channel.join_ref, ref, channel.topic, TIMER, {}))

    def answered(self, ref: Any) -> ChannelMachine | None:
        """The channel that the question was about, if this is an answer to one."""
        channel = self._asked.pop(str(ref), None)
        return channel if channel is not None and channel.state is JOINED else None

    def clear(self, channels: Iterable[ChannelMachine], now: float) -> None:
        """The link is gone. What was missed on it is told now, for the next one knows nothing."""
        self._asked.clear()
        if self._outbox.deadlines.get(TIMER) is None:
            return
        self._outbox.deadlines.cancel(TIMER)
        for channel in channels:
            if channel.state is JOINED:
                channel.inbound.missed(self._since, now)

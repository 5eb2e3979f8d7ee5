"""The check of all channels after a frame that could not be read at all.

The frame may have been the close of a channel, which would then stay joined here but not on the
server. So each joined channel is probed with an unknown event. The server ignores it on a joined
topic and answers it on any other (docs/protocol.md#pushes-nobody-expects).
The frame may also have been an event of any channel, so a gap is reported for each.
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
"""Seconds from the first unreadable frame to the probes: a flood of them leads to one round."""
TIMER: Final = "probe"


def is_unmatched(status: str, response: Any) -> bool:
    """Returns True for a reply that no channel is joined on the topic of a request."""
    return (
        status == "error"
        and isinstance(response, dict)
        and response.get("reason") == "unmatched topic"
    )


class JoinProbe:
    """The probes of the open link."""

    def __init__(self, context: SharedState) -> None:
        self._outbox = context.outbox
        self._asked: dict[str, ChannelMachine] = {}
        """The probed channels by ref; most probes are never answered."""
        self._since = 0.0

    def soon(self, now: float) -> None:
        """Schedule the probes after an unreadable frame."""
        if self._outbox.deadlines.get(TIMER) is None:
            self._outbox.deadlines.set(TIMER, now + PROBE_PAUSE)
            self._since = now

    def ask(self, channels: Iterable[ChannelMachine], now: float) -> None:
        """Report a gap for every joined channel and send a probe on its topic."""
        self._asked.clear()
        for channel in channels:
            if channel.state is JOINED:
                channel.inbound.missed(self._since, now)
                ref = self._outbox.next_ref()
                self._asked[ref] = channel
                self._outbox.send(Message(channel.join_ref, ref, channel.topic, TIMER, {}))

    def answered(self, ref: Any) -> ChannelMachine | None:
        """Returns the channel whose probe this ref belongs to, or None."""
        channel = self._asked.pop(str(ref), None)
        return channel if channel is not None and channel.state is JOINED else None

    def clear(self, channels: Iterable[ChannelMachine], now: float) -> None:
        """Report the gaps of a link that was lost before its probes were sent."""
        self._asked.clear()
        if self._outbox.deadlines.get(TIMER) is None:
            return
        self._outbox.deadlines.cancel(TIMER)
        for channel in channels:
            if channel.state is JOINED:
                channel.inbound.missed(self._since, now)

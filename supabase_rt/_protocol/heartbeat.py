"""The heartbeat, which finds out that a link is dead (docs/protocol.md#6-heartbeat).

The next heartbeat is sent one interval after the answer to the last one. A link whose answer is
missing for ``timeout`` seconds is dead. There is one exception: while a join is unanswered, the
server answers nothing else. The timeout then counts from the last frame received.
"""

from __future__ import annotations

from collections.abc import Callable

from .._wire.envelope import PHOENIX, Message
from ..enums import HeartbeatStatus
from ..errors import ConnectionLost
from .channel.join_timeout import JOIN_TIMEOUT_EXTENSION
from .events import HeartbeatReported, LinkDied
from .shared_state import SharedState

__all__ = ["Heartbeat"]


class Heartbeat:
    """The heartbeat of one open link after another."""

    def __init__(self, context: SharedState, interval: float, timeout: float) -> None:
        self.interval = interval
        self.timeout = timeout
        self._context = context
        self._ref: str | None = None
        self._sent_at = 0.0

    def start(self, now: float) -> None:
        """Start on an open link; the first heartbeat is due after one interval."""
        self._ref = None
        self._context.outbox.deadlines.set("beat", now + self.interval)

    def stop(self) -> None:
        self._ref = None
        for name in ("beat", "beat-ack"):
            self._context.outbox.deadlines.cancel(name)

    def beat(self, now: float) -> None:
        """Send a heartbeat, unless one is still unanswered: its own deadline decides then."""
        if self._ref is not None:
            return
        outbox = self._context.outbox
        self._ref = outbox.next_ref()
        self._sent_at = now
        outbox.deadlines.cancel("beat")
        outbox.deadlines.set("beat-ack", now + self.timeout)
        outbox.send(Message(None, self._ref, PHOENIX, "heartbeat", {}))
        outbox.emit(HeartbeatReported(HeartbeatStatus.SENT))

    def replied(self, ref: str | None, status: str, now: float) -> bool:
        """Handle a reply to the heartbeat. Returns False for any other reply."""
        if ref is None or ref != self._ref:
            return False
        self._ref = None
        found = HeartbeatStatus.OK if status == "ok" else HeartbeatStatus.ERROR
        outbox = self._context.outbox
        outbox.deadlines.cancel("beat-ack")
        outbox.deadlines.set("beat", now + self.interval)
        outbox.emit(HeartbeatReported(found, now - self._sent_at))
        return True

    def overdue(self, now: float, is_joining: Callable[[], bool]) -> None:
        """The deadline of the answer passed: extend it during a join, else report a dead link."""
        outbox = self._context.outbox
        if is_joining():
            heard = max(self._sent_at, self._context.last_frame_at)
            deadline = min(
                heard + self.timeout, self._sent_at + self.timeout + JOIN_TIMEOUT_EXTENSION
            )
            if deadline > now:
                outbox.deadlines.set("beat-ack", deadline)
                return
        self.stop()
        outbox.emit(HeartbeatReported(HeartbeatStatus.TIMEOUT))
        error = ConnectionLost(
            "heartbeat timeout",
            code="HeartbeatTimeout",
            hint="the server did not answer a heartbeat; the client reconnects by itself",
        )
        outbox.emit(LinkDied(error))

"""Is the link alive? (docs/protocol.md#6-heartbeat)

One heartbeat every interval, the next one an interval after the answer. An answer that is
missing for ``timeout`` seconds means a dead link, with one allowance: while a join is unanswered
the server answers nothing else, so time runs from the last frame received then.
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
        """A link is open: the first beat comes after one interval."""
        self._ref = None
        self._context.outbox.deadlines.set("beat", now + self.interval)

    def stop(self) -> None:
        self._ref = None
        for name in ("beat", "beat-ack"):
            self._context.outbox.deadlines.cancel(name)

    def beat(self, now: float) -> None:
        """Send one. While one is unanswered its own deadline decides, so nothing is sent."""
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
        """Whether this reply is the heartbeat's; it is taken if so."""
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
        """The answer's deadline passed."""
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

"""The limit for broadcasts that the user chose: ``send_limit`` of the client."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .._printable import get_logger
from .._protocol.token_bucket import TokenBucket
from .._runtime.log_fields import facts
from .._runtime.outcome import Outcome

__all__ = ["QueuedSend", "SendLimiter"]

_log = get_logger("supabase_rt.channel")


class QueuedSend:
    """A broadcast that waits for its turn.

    ``send`` starts the broadcast, ``sent`` is the outcome of ``send``, and ``result`` is the
    outcome that the caller has.
    """

    __slots__ = ("result", "send", "sent")

    def __init__(self, send: Callable[[], Outcome[str]]) -> None:
        self.send: Callable[[], Outcome[str]] = send
        self.sent: Outcome[str] | None = None
        self.result: Outcome[str] | None = None


class SendLimiter:
    """Delays broadcasts to keep the limit, in the order of the calls."""

    def __init__(self, limit: tuple[int, float], most: int) -> None:
        calls, seconds = limit
        self._bucket = TokenBucket(calls / seconds, float(calls))
        self._most = most
        self._warned = False
        self._queue: deque[QueuedSend] = deque()

    def refuses(self, now: float) -> bool:
        """Returns True if the queue is full; the first refusal in a row is logged."""
        if self._bucket.owed(now) < self._most:
            self._warned = False
            return False
        if not self._warned:
            self._warned = True
            _log.error(
                "%d broadcasts wait for send_limit; further ones resolve 'error' (await your "
                "sends to go at its pace)",
                self._most,
                extra=facts(count=self._most),
            )
        return True

    def reserve(self, now: float) -> float:
        """Reserves the next turn; returns the seconds until it comes."""
        return max(0.0, self._bucket.reserve(now) - now)

    def enqueue(self, send: Callable[[], Outcome[str]]) -> QueuedSend:
        """Adds a broadcast to the queue."""
        queued = QueuedSend(send)
        self._queue.append(queued)
        return queued

    def start_up_to(self, last: QueuedSend | None = None) -> None:
        """Starts the queued broadcasts up to ``last``, or all of them, in order.

        The timers of an event loop that lags may fire late and together. The broadcasts before
        ``last`` may therefore still be in the queue when its turn comes.
        """
        while self._queue and (last is None or last.sent is None):
            queued = self._queue.popleft()
            if queued.result is None or not queued.result.done():
                queued.sent = queued.send()

"""Broadcasts at the pace that the user chose: ``send_limit`` of the client."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .._printable import get_logger
from .._protocol.token_bucket import TokenBucket
from .._runtime.log_fields import facts
from .._runtime.outcome import Outcome

__all__ = ["Pacer", "Turn"]

_log = get_logger("supabase_rt.channel")


class Turn:
    """A broadcast that waits for its moment; ``send`` starts it, ``result`` is the caller's."""

    __slots__ = ("result", "send", "sent")

    def __init__(self, send: Callable[[], Outcome[str]]) -> None:
        self.send: Callable[[], Outcome[str]] = send
        self.sent: Outcome[str] | None = None
        self.result: Outcome[str] | None = None


class Pacer:
    """Gives every broadcast its moment, in the order of the calls."""

    def __init__(self, limit: tuple[int, float], most: int) -> None:
        calls, seconds = limit
        self._bucket = TokenBucket(calls / seconds, float(calls))
        self._most = most
        self._warned = False
        self._line: deque[Turn] = deque()

    def refuses(self, now: float) -> bool:
        """Whether so many wait that another one is refused; the log hears of the first."""
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
        """Seconds until this broadcast may go; none of a later call goes before it."""
        return max(0.0, self._bucket.reserve(now) - now)

    def line_up(self, send: Callable[[], Outcome[str]]) -> Turn:
        """One more that waits for its moment."""
        turn = Turn(send)
        self._line.append(turn)
        return turn

    def serve(self, last: Turn | None = None) -> None:
        """The moment of ``last`` has come, or of all: those before it go first.

        A loop that lags rings no timer in time, so they may still be waiting for theirs.
        """
        while self._line and (last is None or last.sent is None):
            turn = self._line.popleft()
            if turn.result is None or not turn.result.done():
                turn.sent = turn.send()

"""The unfinished requests and messages of all connections: no sockets and no clock.

A request that is never finished, or a message in fragments, costs its sender nothing. So each
connection has a time limit, and all together have a bound. Above the bound, connections with more
data are not read, and the oldest of them are ended after a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..settings import Settings
from .memory_bounds import MOST_UNFINISHED

__all__ = ["LINGERING", "Inflow", "Intake"]

SMALL = 16_384
"""Bytes of an unfinished message that are too few to stop reading its connection."""
MAX_HEAD = 131_072
"""The most bytes of the head of a request; a parsed head takes three times its size."""
PATIENCE = 10.0
"""Seconds that an unfinished message may take when the bound on all of them is exceeded."""
LINGERING = 2.0
"""Seconds for the rest of a refused body; if the connection ended at once, the answer would be
lost.
"""
LONGEST_REQUEST = 60.0
"""Seconds for a request over HTTP including its answer, however slowly the answer is read."""


class Inflow:
    """One connection, as the intake sees it."""

    __slots__ = (
        "body_done",
        "kept",
        "latest",
        "port",
        "requests",
        "since",
        "state",
        "unfinished",
        "unfinished_since",
    )

    def __init__(self, port: Port, now: float) -> None:
        self.port = port
        self.since: float = now
        """When the present state began."""
        self.state = "waiting"
        """The state: ``waiting`` for a request, ``asked`` one, ``refused`` its body, or a
        ``socket``.
        """
        self.requests = 0
        self.body_done: Callable[[], bool] = _done
        """Returns True if the body of the request has come."""
        self.kept: Callable[[], bool] = _not_kept
        """Returns True if the socket has joined a channel."""
        self.unfinished = 0
        self.unfinished_since: float = now
        self.latest = 0
        """Bytes of the last piece."""


class Port(Protocol):
    """The means of the intake to act on a connection."""

    def hold(self) -> None:
        """Stop reading."""

    def go_on(self) -> None:
        """Read again."""

    def abort(self) -> None:
        """End the connection."""


class Intake:
    """All connections of one server."""

    def __init__(self, settings: Settings, most: int = MOST_UNFINISHED) -> None:
        self._settings = settings
        self._most = most
        self.total = 0
        """Bytes of everything unfinished."""
        self._flows: dict[Inflow, None] = {}
        self._held: dict[Inflow, None] = {}
        self.most_connections: int | None = settings.max_connections

    def __len__(self) -> int:
        return len(self._flows)

    # -- connections -------------------------------------------------------------------

    def open(self, port: Port, now: float) -> Inflow | None:
        """Take a new connection; returns None if too many connections have joined a channel.

        If there are too many, the oldest connection without a channel makes room. So connections
        that do nothing cannot keep out new ones.
        """
        most = self.most_connections
        if most is not None and len(self._flows) >= most:
            oldest = next((flow for flow in self._flows if not flow.kept()), None)
            if oldest is None:
                return None
            self.close(oldest)
            oldest.port.abort()
        flow = Inflow(port, now)
        self._flows[flow] = None
        return flow

    def close(self, flow: Inflow) -> None:
        """Forget a connection; an unknown one is ignored."""
        if self._flows.pop(flow, flow) is None:
            self._held.pop(flow, None)
            self._count(flow, 0)

    # -- bytes -------------------------------------------------------------------------

    def receive(self, flow: Inflow, size: int, now: float) -> None:
        """Count bytes that came."""
        if flow.state == "refused":
            return
        if not flow.unfinished:
            flow.unfinished_since = now
        flow.unfinished += size
        flow.latest = size
        self.total += size
        if flow.state == "waiting" and flow.unfinished > MAX_HEAD:
            self._end(flow)
            return
        if self.total > self._most and flow.unfinished > SMALL and flow not in self._held:
            self._held[flow] = None
            flow.port.hold()

    def complete(
        self, flow: Inflow, size: int, now: float, *, waited: bool, later: int = 0
    ) -> None:
        """Count a message that is complete and taken; ``later`` bytes came since it was complete.

        ``waited`` says that the server waited for the message. Then only the rest of its last piece
        was unfinished when it was complete, however large the headers of its fragments were.
        """
        rest = max(0, flow.unfinished - size - _header(size))
        flow.unfinished_since = now
        self._count(flow, min(rest, flow.latest + later) if waited else rest)

    def _count(self, flow: Inflow, unfinished: int) -> None:
        self.total += unfinished - flow.unfinished
        flow.unfinished = unfinished
        if self._held and self.total <= self._most:
            held, self._held = self._held, {}
            for each in held:
                each.port.go_on()

    # -- requests ----------------------------------------------------------------------

    def ask(self, flow: Inflow, body_done: Callable[[], bool], now: float) -> None:
        """Note that the head of a request has come."""
        flow.state, flow.since, flow.body_done = "asked", now, body_done

    def upgrade(self, flow: Inflow, kept: Callable[[], bool], now: float) -> None:
        """Note that the connection is a WebSocket from now on."""
        flow.state, flow.since, flow.kept = "socket", now, kept
        self._count(flow, 0)

    def answer(self, flow: Inflow, now: float, size: int | None = None) -> None:
        """Note that a request was answered.

        More bytes than its ``size`` are the beginning of the next request. If the request was
        refused ahead of its body, the rest of the body is read and thrown away.
        """
        if flow in self._flows:
            flow.state, flow.since = "waiting" if flow.body_done() else "refused", now
            flow.requests += 1
            rest = 0 if size is None or flow.state == "refused" else flow.unfinished - size
            flow.unfinished_since = now
            self._count(flow, max(0, rest))

    # -- time --------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """End connections that take too long; to be called about once a second."""
        for flow in [flow for flow in self._flows if self._overdue(flow, now)]:
            self._end(flow)
        if self.total > self._most:
            # Not only the held ones: a client that sends nothing more still occupies its memory.
            large = [flow for flow in self._flows if flow.unfinished > SMALL]
            for flow in sorted(large, key=lambda each: each.unfinished_since):
                if self.total <= self._most or now - flow.unfinished_since < PATIENCE:
                    break
                self._end(flow)

    def _end(self, flow: Inflow) -> None:
        self.close(flow)
        flow.port.abort()

    def _overdue(self, flow: Inflow, now: float) -> bool:
        settings, lasted = self._settings, now - flow.since
        if flow.state == "socket":
            return False
        if flow.state == "refused":
            if flow.body_done():
                flow.state, flow.since = "waiting", now
            return lasted > LINGERING + 1 and flow.state == "refused"
        if flow.state == "asked":
            return lasted > LONGEST_REQUEST or (
                lasted > settings.body_timeout and not flow.body_done()
            )
        if not flow.requests:
            return lasted > settings.request_timeout
        # Between two requests no data has to come; once some has come, it is the head of a request.
        if flow.unfinished:
            return now - flow.unfinished_since > settings.request_timeout
        return lasted > settings.idle_timeout


def _done() -> bool:
    return True


def _not_kept() -> bool:
    return False


def _header(size: int) -> int:
    """The bytes of the header of a client's frame."""
    return 6 if size < 126 else (8 if size < 65_536 else 14)

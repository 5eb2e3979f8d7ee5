"""The events that the machines report, named in the past tense, and who receives them.

``channel`` is always the ``ChannelMachine``. ``outcome`` is any object that the caller of a request
passed in; no machine looks into it.

The connection acts on events about the socket and gives all others to an ``EventSink``. The sink
gives events about one channel to its ``ChannelOwner``, the ``owner`` of the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..enums import HeartbeatStatus, SubscribeStatus
from ..errors import RealtimeError

if TYPE_CHECKING:
    Machine = Any

__all__ = [
    "ChannelOwner",
    "ChannelRemoved",
    "ChannelResumed",
    "ConnectDue",
    "Delivered",
    "Delivery",
    "ErrorReported",
    "EventListener",
    "EventSink",
    "GapFound",
    "GaveUpForGood",
    "HeartbeatReported",
    "IdleReached",
    "LinkClosed",
    "LinkDied",
    "LinkOpened",
    "PresenceDelivered",
    "ReadyChanged",
    "ReconnectAfterFailed",
    "ReconnectScheduled",
    "Reconnected",
    "RequestEnded",
    "StatusChanged",
    "TokenWanted",
]


Delivery = tuple[Any, tuple[int, ...], Any]
"""A channel, the ids of the bindings, and the payload. A plain tuple, because one is made for each
frame.
"""


class Delivered(NamedTuple):
    """A delivery that comes after other events."""

    channel: Machine
    ids: tuple[int, ...]
    payload: Any


@dataclass(slots=True)
class PresenceDelivered:
    """A presence event, with the state that ``presence_state()`` returns to its handlers."""

    channel: Machine
    ids: tuple[int, ...]
    payload: Any
    state: Any


@dataclass(slots=True)
class StatusChanged:
    """The subscribe callback of ``channel`` is due."""

    channel: Machine
    status: SubscribeStatus
    error: BaseException | None = None


@dataclass(slots=True)
class ReadyChanged:
    """Database changes flow now (``error`` is None), or the server told why they do not."""

    channel: Machine
    error: RealtimeError | None = None


@dataclass(slots=True)
class ChannelRemoved:
    """The channel left the registry, and its topic is free."""

    channel: Machine


@dataclass(slots=True)
class ChannelResumed:
    """A lost channel is joined again after ``downtime`` seconds."""

    channel: Machine
    downtime: float


@dataclass(slots=True)
class GapFound:
    """Events of ``topic`` may have been missed between two times (Unix time in seconds)."""

    topic: str
    since: float
    until: float
    reason: str


@dataclass(slots=True)
class RequestEnded:
    """A request ended with a ``result``: ``ok``, ``error`` or ``timed out``.

    ``error`` is a reply of the server, or the loss of the link.
    """

    outcome: object
    result: str
    response: Any = None


@dataclass(slots=True)
class HeartbeatReported:
    """A heartbeat was sent, answered or missed; ``latency`` is None without an answer."""

    status: HeartbeatStatus
    latency: float | None = None


@dataclass(slots=True)
class ConnectDue:
    """It is time to open a socket."""


@dataclass(slots=True)
class LinkOpened:
    """A socket is open."""


@dataclass(slots=True)
class LinkClosed:
    """The open socket is gone; either side may have closed it."""

    code: int
    reason: str


@dataclass(slots=True)
class LinkDied:
    """The open socket does not answer: close it without a close handshake."""

    error: RealtimeError


@dataclass(slots=True)
class ReconnectScheduled:
    """The attempt to connect with this number follows in ``delay`` seconds."""

    attempt: int
    delay: float
    cause: BaseException | None
    is_final_kind: bool = False
    """True if the cause would have ended a client that never had a link."""


@dataclass(slots=True)
class Reconnected:
    """The link is back after ``downtime`` seconds."""

    downtime: float


@dataclass(slots=True)
class TokenWanted:
    """The token callback should be called; ``blocking`` is True if a join waits for it."""

    blocking: bool


@dataclass(slots=True)
class IdleReached:
    """There was no channel for so long that the socket may be closed."""


@dataclass(slots=True)
class ErrorReported:
    """An error was raised, and no call awaits it."""

    error: BaseException
    channel: Machine | None = None


@dataclass(slots=True)
class ReconnectAfterFailed(ErrorReported):
    """The user's ``reconnect_after`` failed; the delay of the policy is used."""


@dataclass(slots=True)
class GaveUpForGood:
    """The client stopped reconnecting."""

    error: RealtimeError


class EventListener(Protocol):
    """The handlers of one kind of event; a call raises nothing that a handler raised."""

    def deliver(self, payload: Any, /) -> None:
        """Hand over one payload. The stopwatch runs already; the caller ends the lap."""

    def blocked(self, seconds: float, /) -> None:
        """Report that this lap kept the event loop busy for too long."""


class ChannelOwner(Protocol):
    """The public object of one channel, as the sender of events sees it."""

    def listener_for(self, ids: tuple[int, ...], *, of_changes: bool = False) -> EventListener:
        """Return the handlers of these bindings as one listener, until a handler comes or goes.

        With ``of_changes`` the listener takes database changes as ``PostgresData``.
        """

    def deliver(self, ids: tuple[int, ...], payload: Any) -> None:
        """Give one payload to the handlers of these bindings."""

    def presence_changed(self, event: PresenceDelivered) -> None:
        """Give a presence event to its handlers; they see the state that the event carries."""

    def status_changed(self, event: StatusChanged) -> None:
        """Settle ``subscribe()`` and call the subscribe callback."""

    def ready_changed(self, error: RealtimeError | None) -> None:
        """Database changes flow now (``error`` is None), or the server said why they do not."""

    def removed(self) -> None:
        """The channel is closed for good and its topic is free."""


class EventSink(Protocol):
    """The receiver of all events for the user. The connection knows handlers only by it."""

    stopwatch: Any
    """The ``Stopwatch`` that times handlers. The reader starts and reads it on the fast path."""

    def handle(self, event: Any) -> None:
        """Act on an event that is not about the socket itself. Must not raise."""

    def deliver(self, delivery: Delivery) -> None:
        """Give one payload to the handlers of a channel."""

    def listener_for(
        self, channel: Machine, ids: tuple[int, ...], *, of_changes: bool = False
    ) -> EventListener:
        """Return ``ChannelOwner.listener_for`` of the machine's owner."""

    def exempt_caller(self) -> Callable[[], None]:
        """Exempt the running handler from ``drain()`` until the returned function is called.

        A handler may await ``disconnect()``; ``drain()`` would otherwise wait for that handler.
        """

    async def drain(self) -> None:
        """Wait until the handlers have finished their queued events."""

    def forget_loop(self) -> None:
        """Drop the tasks of an event loop that is gone; queued events stay."""

"""What the machines report, in the past tense. The shell acts on them, dispatch tells users.

``channel`` is always the ``ChannelMachine``; ``outcome`` is whatever object the caller of a
request passed in, never looked into here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..enums import HeartbeatStatus, SubscribeStatus
from ..errors import RealtimeError

if TYPE_CHECKING:
    Machine = Any

__all__ = [
    "ChannelRemoved",
    "ChannelResumed",
    "ConnectDue",
    "Delivered",
    "Delivery",
    "ErrorReported",
    "GapFound",
    "GaveUpForGood",
    "HeartbeatReported",
    "IdleReached",
    "LinkClosed",
    "LinkDied",
    "LinkOpened",
    "PresenceDelivered",
    "PushEnded",
    "ReadyChanged",
    "ReconnectAfterFailed",
    "ReconnectScheduled",
    "Reconnected",
    "StatusChanged",
    "TokenWanted",
]


Delivery = tuple[Any, tuple[int, ...], Any]
"""A channel, the bindings it concerns, the payload. A plain tuple: one is made for every frame."""


class Delivered(NamedTuple):
    """A delivery that had to wait for its turn behind other events."""

    channel: Machine
    ids: tuple[int, ...]
    payload: Any


@dataclass(slots=True)
class PresenceDelivered:
    """A presence event, with the state that ``presence_state()`` shows while it is handled."""

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
    """Database changes flow now (``error`` is None), or the server said why they do not."""

    channel: Machine
    error: RealtimeError | None = None


@dataclass(slots=True)
class ChannelRemoved:
    """The channel left the registry: its topic is free."""

    channel: Machine


@dataclass(slots=True)
class ChannelResumed:
    """A channel that was lost is joined again; ``downtime`` in seconds."""

    channel: Machine
    downtime: float


@dataclass(slots=True)
class GapFound:
    """Events of ``topic`` may have been missed between two moments (Unix time in seconds)."""

    topic: str
    since: float
    until: float
    reason: str


@dataclass(slots=True)
class PushEnded:
    """A request got its reply, ran out of time or lost its link: ``ok``, ``error``,
    ``timed out``."""

    outcome: object
    result: str
    response: Any = None


@dataclass(slots=True)
class HeartbeatReported:
    """``latency`` in seconds where the server answered."""

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
    """The open socket is gone, whoever closed it."""

    code: int
    reason: str


@dataclass(slots=True)
class LinkDied:
    """The open socket is dead though it does not say so; close it without waiting."""

    error: RealtimeError


@dataclass(slots=True)
class ReconnectScheduled:
    """Attempt number ``attempt`` follows in ``delay`` seconds."""

    attempt: int
    delay: float
    cause: BaseException | None


@dataclass(slots=True)
class Reconnected:
    """The link is back after ``downtime`` seconds."""

    downtime: float


@dataclass(slots=True)
class TokenWanted:
    """The token callback should be asked; ``blocking`` when a join waits for the answer."""

    blocking: bool


@dataclass(slots=True)
class IdleReached:
    """No channel has been there for so long that the socket may go."""


@dataclass(slots=True)
class ErrorReported:
    """Something failed that no call is waiting to hear of."""

    error: BaseException
    channel: Machine | None = None


@dataclass(slots=True)
class ReconnectAfterFailed(ErrorReported):
    """The user's ``reconnect_after`` failed; the policy says how long to wait."""


@dataclass(slots=True)
class GaveUpForGood:
    """No further attempt follows."""

    error: RealtimeError

"""The state that all machines of one client share."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from .._payloads.base import brief
from .._version import __version__
from .._wire.jwt_claims import expires_at
from .events import ReconnectAfterFailed
from .fast_routes import FastRoute
from .outbox import Outbox
from .reconnect_policy import ReconnectPolicy
from .requests import PendingRequests

__all__ = ["CLIENT_VERSION", "Counters", "SharedState"]

CLIENT_VERSION = f"supabase-rt/{__version__}"


@dataclass(slots=True)
class Counters:
    """Counts of unusual frames, for ``health()``."""

    stale: int = 0
    unknown: int = 0
    decode_errors: int = 0


@dataclass(slots=True)
class SharedState:
    """Options, the outbox, and the facts about the link that channels need."""

    policy: ReconnectPolicy = field(default_factory=ReconnectPolicy)
    reconnect_after: Callable[[int], float] | None = None
    random: Callable[[], float] | None = None
    timeout: float = 10.0
    presence_limit: tuple[int, float] | None = (5, 30.0)
    has_token_source: bool = False
    """True if a callback can be asked for a fresh token."""

    outbox: Outbox = field(default_factory=Outbox)
    counters: Counters = field(default_factory=Counters)
    requests: PendingRequests = field(init=False)
    routes: dict[str, FastRoute] = field(default_factory=dict)
    """The joined channels by topic, for the fast path."""

    is_open: bool = False
    token: str | None = field(default=None, repr=False)
    token_generation: int = 0
    """The number of token changes; a join payload carries ``version`` once the token has
    changed."""
    last_frame_at: float = 0.0
    unix_time_offset: float = 0.0
    """Unix time minus the machines' time. Unix time is by the server's clock if it told its
    time."""
    last_system_error: str | None = None
    wait_for_join: Callable[[Any, bool], None] = field(init=False)
    """Queues a channel for joining; True asks for a fresh token first."""

    def __post_init__(self) -> None:
        self.requests = PendingRequests(self.outbox)

    def delay(self, attempt: int) -> float:
        """Returns the seconds to wait before ``attempt``: those of ``reconnect_after`` if given.

        A ``reconnect_after`` that fails must not end the attempts: the policy decides instead.
        """
        if self.reconnect_after is not None:
            try:
                return _seconds(self.reconnect_after(max(1, attempt)))
            except Exception as exc:
                self.outbox.emit(ReconnectAfterFailed(exc))
        if self.random is None:
            return self.policy.delay(attempt)
        return self.policy.delay(attempt, self.random)

    def unix_time(self, now: float) -> float:
        return now + self.unix_time_offset

    def token_lifetime(self, now: float) -> float:
        """Returns the seconds until the token expires; infinity if its expiry is unknown."""
        expiry = expires_at(self.token)
        return math.inf if expiry is None else expiry - self.unix_time(now)


def _seconds(value: Any) -> float:
    if isinstance(value, Coroutine):
        value.close()
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf:
        raise ValueError(f"reconnect_after returned no number of seconds: {brief(value)}")
    return float(value)

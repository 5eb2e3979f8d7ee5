"""A look inside, for logs, probes and dashboards."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .._name_hints import no_attribute
from ..enums import ConnectionState
from .parts import Core
from .prometheus import exposition

__all__ = ["Health", "look"]


@dataclass(frozen=True, slots=True)
class Health:
    """What ``client.health()`` returns. Moments are Unix time, durations seconds."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    state: ConnectionState
    connected_since: float | None
    """When the present link came up."""
    last_message_at: float | None
    """When the last frame arrived: a client that hears nothing shows it here first."""
    last_heartbeat_latency: float | None
    reconnects: int
    frames_in: int
    frames_out: int
    decode_errors: int
    """Frames that could not be read and were skipped."""
    stale_frames: int
    """Frames of an older join, dropped."""
    unknown_frames: int
    """Frames of a topic or an event that nobody here knows, dropped."""
    handler_errors: int
    dropped_events: int
    """Events dropped because a handler was too slow for its queue, or for the end."""
    queued_events: int
    """Events that wait for a handler right now."""
    joins: int
    """How often a channel was joined, rejoins included."""
    refused_sends: int
    """Sends that ended ``"error"`` because too many frames waited to be written."""
    pending_replies: int
    channels: dict[str, int] = field(default_factory=dict)
    """How many channels are in which state."""
    last_system_error: str | None = None
    """The last ``system`` error of the server, of any channel."""

    def to_prometheus(self, labels: Mapping[str, str] | None = None) -> str:
        """The same for Prometheus: text in its exposition format 0.0.4.

        Serve it as ``text/plain; version=0.0.4``. ``labels`` are put on every line, such as
        ``{"bot": "orders"}``; raises ``ValueError`` for a name that no label can have.
        """
        return exposition(self, labels or {})


def look(core: Core) -> Health:
    """How a client is doing. May be asked in any thread: an exporter often has its own."""
    connection, session, dispatch = core.connection, core.session, core.dispatch
    traffic, counters = connection.traffic, session.context.counters
    heard = session.context.last_frame_at if traffic.frames_in else None
    return Health(
        state=session.state,
        connected_since=traffic.connected_since,
        last_message_at=None if heard is None else time.time() - connection.now() + heard,
        last_heartbeat_latency=dispatch.last_latency,
        reconnects=traffic.reconnects,
        frames_in=traffic.frames_in,
        frames_out=traffic.frames_out,
        decode_errors=counters.decode_errors,
        stale_frames=counters.stale,
        unknown_frames=counters.unknown,
        handler_errors=dispatch.tally.handler_errors,
        dropped_events=dispatch.tally.dropped_events,
        queued_events=dispatch.queued,
        joins=dispatch.tally.joins,
        refused_sends=traffic.frames_refused,
        pending_replies=session.pending_replies,
        channels=dict(Counter(str(machine.state) for machine in list(session.channels.values()))),
        last_system_error=session.context.last_system_error,
    )

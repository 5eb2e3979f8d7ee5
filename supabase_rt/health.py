"""A look inside, for logs, probes and dashboards."""

from __future__ import annotations

from dataclasses import dataclass, field

from .enums import ConnectionState

__all__ = ["Health"]


@dataclass(frozen=True, slots=True)
class Health:
    """What ``client.health()`` returns. Moments are Unix time, durations seconds."""

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
    """Events dropped because a handler was too slow for its queue."""
    refused_sends: int
    """Sends that ended ``"error"`` because too many frames waited to be written."""
    pending_replies: int
    channels: dict[str, int] = field(default_factory=dict)
    """How many channels are in which state."""
    last_system_error: str | None = None
    """The last ``system`` error of the server, of any channel."""

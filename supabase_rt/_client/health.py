"""The health of a client: numbers for logs, probes and dashboards."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .._name_hints import no_attribute
from ..enums import ChannelState, ConnectionState
from .parts import ClientParts

__all__ = ["Health", "exposition", "look"]


@dataclass(frozen=True, slots=True)
class Health:
    """The result of ``client.health()``. Moments are Unix time, durations seconds."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    state: ConnectionState
    connected_since: float | None
    """When the present link came up."""
    last_message_at: float | None
    """When the last frame arrived; a dead link shows here first."""
    last_heartbeat_latency: float | None
    reconnects: int
    frames_in: int
    frames_out: int
    decode_errors: int
    """Frames that could not be read and were skipped."""
    stale_frames: int
    """Frames of an older join, dropped."""
    unknown_frames: int
    """Frames of an unknown topic or event, dropped."""
    handler_errors: int
    dropped_events: int
    """Events dropped because a queue was full, or a handler too slow at the end of the client."""
    queued_events: int
    """Events that wait for a handler right now."""
    joins: int
    """Joins of channels, rejoins included."""
    refused_sends: int
    """Sends that ended ``"error"`` because too many frames waited to be written."""
    pending_replies: int
    channels: dict[str, int] = field(default_factory=dict)
    """The number of channels in each state."""
    last_system_error: str | None = None
    """The last ``system`` error of the server, of any channel."""

    def to_prometheus(self, labels: Mapping[str, str] | None = None) -> str:
        """Returns the same for Prometheus: text in its exposition format 0.0.4.

        Serve it as ``text/plain; version=0.0.4``. ``labels``, such as ``{"bot": "orders"}``, are
        put on every line. Raises ``ValueError`` for a name that no label can have.
        """
        return exposition(self, labels or {})


def look(parts: ClientParts) -> Health:
    """Returns the health of a client; callable in any thread, as an exporter often has its own."""
    connection, dispatcher = parts.connection, parts.dispatcher
    client_machine = parts.client_machine
    traffic, counters = connection.traffic, client_machine.context.counters
    heard = client_machine.context.last_frame_at if traffic.frames_in else None
    return Health(
        state=client_machine.state,
        connected_since=traffic.connected_since,
        last_message_at=None if heard is None else time.time() - connection.now() + heard,
        last_heartbeat_latency=dispatcher.last_latency,
        reconnects=traffic.reconnects,
        frames_in=traffic.frames_in,
        frames_out=traffic.frames_out,
        decode_errors=counters.decode_errors,
        stale_frames=counters.stale,
        unknown_frames=counters.unknown,
        handler_errors=dispatcher.tally.handler_errors,
        dropped_events=dispatcher.tally.dropped_events,
        queued_events=dispatcher.tasks.waiting,
        joins=dispatcher.tally.joins,
        refused_sends=traffic.frames_refused,
        pending_replies=client_machine.pending_replies,
        channels=dict(Counter(str(each.state) for each in list(client_machine.channels.values()))),
        last_system_error=client_machine.context.last_system_error,
    )


LABEL: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

METRICS: Final = (
    ("connected_since", "connected_since_timestamp_seconds", "gauge", "When the link came up."),
    ("last_message_at", "last_message_timestamp_seconds", "gauge", "When the last frame arrived."),
    ("last_heartbeat_latency", "heartbeat_latency_seconds", "gauge", "Of the last heartbeat."),
    ("reconnects", "reconnects_total", "counter", "Links that took the place of lost ones."),
    ("joins", "joins_total", "counter", "Joins of channels, rejoins included."),
    ("frames_in", "frames_received_total", "counter", "Frames that arrived."),
    ("frames_out", "frames_sent_total", "counter", "Frames that were written."),
    ("decode_errors", "decode_errors_total", "counter", "Frames that could not be read."),
    ("stale_frames", "stale_frames_total", "counter", "Frames of an older join."),
    ("unknown_frames", "unknown_frames_total", "counter", "Frames of an unknown topic or event."),
    ("handler_errors", "handler_errors_total", "counter", "Exceptions that handlers raised."),
    (
        "dropped_events",
        "dropped_events_total",
        "counter",
        "Events that found a handler too slow.",
    ),
    ("queued_events", "queued_events", "gauge", "Events that wait for a handler."),
    ("refused_sends", "refused_sends_total", "counter", "Sends refused as too many waited."),
    ("pending_replies", "pending_replies", "gauge", "Requests that the server has not answered."),
)
"""Field of ``Health``, name, type and help of each metric with one value."""


def exposition(health: Any, labels: Mapping[str, str]) -> str:
    """Returns a ``Health`` in the text format of Prometheus, with ``labels`` on every line.

    Raises ``ValueError`` for a name that no label can have.
    """
    for name in labels:
        if not LABEL.fullmatch(name) or name == "state":
            raise ValueError(f"{name!r} cannot be the name of a label")
    return "".join(_lines(health, {name: str(value) for name, value in labels.items()}))


def _lines(health: Any, labels: dict[str, str]) -> Iterator[str]:
    yield _head("connection_state", "gauge", "1 for the state of the connection.")
    for state in ConnectionState:
        is_there = int(health.state == state)
        yield _sample("connection_state", {**labels, "state": state.value}, is_there)
    yield _head("channels", "gauge", "Channels by state.")
    for each in ChannelState:
        count = health.channels.get(each.value, 0)
        yield _sample("channels", {**labels, "state": each.value}, count)
    for attribute, name, kind, words in METRICS:
        value = getattr(health, attribute)
        # An unknown value is left out: 0 would be read as a moment or a latency.
        if value is not None:
            yield _head(name, kind, words)
            yield _sample(name, labels, value)


def _head(name: str, kind: str, words: str) -> str:
    return f"# HELP supabase_rt_{name} {words}\n# TYPE supabase_rt_{name} {kind}\n"


def _sample(name: str, labels: dict[str, str], value: float) -> str:
    pairs = ",".join(f'{label}="{text.translate(ESCAPES)}"' for label, text in labels.items())
    shown = f"{{{pairs}}}" if pairs else ""
    return f"supabase_rt_{name}{shown} {value!r}\n"

"""``health()`` as Prometheus reads it: the text exposition format, version 0.0.4."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..enums import ChannelState, ConnectionState

__all__ = ["exposition"]

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
    """The whole text of a ``Health``, with ``labels`` on every line.

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
    for field, name, kind, words in METRICS:
        value = getattr(health, field)
        # What is not known is left out; a 0 would be a moment or a latency.
        if value is not None:
            yield _head(name, kind, words)
            yield _sample(name, labels, value)


def _head(name: str, kind: str, words: str) -> str:
    return f"# HELP supabase_rt_{name} {words}\n# TYPE supabase_rt_{name} {kind}\n"


def _sample(name: str, labels: dict[str, str], value: float) -> str:
    pairs = ",".join(f'{label}="{text.translate(ESCAPES)}"' for label, text in labels.items())
    shown = f"{{{pairs}}}" if pairs else ""
    return f"supabase_rt_{name}{shown} {value!r}\n"

"""Counters of what went over the sockets of one client."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Traffic"]


@dataclass(slots=True)
class Traffic:
    """Frames, reconnects and the time of the last connect, for ``health()``."""

    frames_in: int = 0
    frames_out: int = 0
    frames_refused: int = 0
    connected_since: float | None = None
    """Unix time; None while no link is open."""
    reconnects: int = 0

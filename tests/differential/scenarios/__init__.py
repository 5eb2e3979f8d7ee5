"""The scenarios, by subject."""

from __future__ import annotations

from ..scenario import Scenario
from . import channels, connections, faults, messages, postgres, presence, recovery, sending, tokens

__all__ = ["SCENARIOS"]

SCENARIOS: list[Scenario] = [
    *channels.SCENARIOS,
    *connections.SCENARIOS,
    *faults.SCENARIOS,
    *messages.SCENARIOS,
    *postgres.SCENARIOS,
    *presence.SCENARIOS,
    *recovery.SCENARIOS,
    *sending.SCENARIOS,
    *tokens.SCENARIOS,
]

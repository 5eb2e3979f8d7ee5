"""The scenarios, by subject, and those that are played on both versions of the protocol."""

from __future__ import annotations

from dataclasses import replace

from ..scenario import Scenario
from . import channels, connections, faults, messages, postgres, presence, recovery, sending, tokens

__all__ = ["SCENARIOS"]

_BOTH = """
    unsubscribe
    remove-while-joining
    remove-and-make-again
    new-after-unsubscribe
    link-dropped
    disconnect-and-connect
    one-error-per-loss
    heartbeat-unanswered
    join-refused-again-and-again
    join-refused-with-text
    join-unanswered-again-and-again
    reply-after-the-link-was-lost
    crash-while-errored
    crash-of-an-older-join
    closed-by-the-server
    mismatch
    ids-change-with-a-rejoin
    filters-on-the-wire
    presence-events
    presence-update
    presence-after-rejoin
    track-and-untrack
    track-while-joining
    token-by-hand
    token-in-the-rejoin
    malformed-text
    handler-throws
    send-with-ack
"""
ON_BOTH_VERSIONS = _BOTH.split()
"""Scenarios in which a frame without ``join_ref`` might be taken for that of another join."""


def _on_vsn_1(scenario: Scenario) -> Scenario:
    client = {**scenario.client, "vsn": "1.0.0"}
    return replace(scenario, id=f"{scenario.id}-on-vsn-1", client=client)


_ALL = [
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
_NAMED = {scenario.id: scenario for scenario in _ALL}
SCENARIOS = [*_ALL, *(_on_vsn_1(_NAMED[name]) for name in ON_BOTH_VERSIONS)]

"""The official capability matrix: Checks that ``docs/sdk-compliance.yaml`` is true."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

import supabase_rt

__all__ = ["CAPABILITIES", "declared", "resolve"]

PATH = Path(__file__).parents[3] / "docs" / "sdk-compliance.yaml"

_IDS = """
    realtime.channel.broadcast
    realtime.channel.broadcast_http
    realtime.channel.subscribe
    realtime.channel.unsubscribe
    realtime.client.channel
    realtime.client.connect
    realtime.client.connection_state
    realtime.client.disconnect
    realtime.client.get_channels
    realtime.client.listen_heartbeats
    realtime.client.remove_all_channels
    realtime.client.remove_channel
    realtime.client.set_auth_token
    realtime.configuration.access_token_callback
    realtime.configuration.binary_protocol
    realtime.configuration.custom_logger
    realtime.configuration.custom_websocket_transport
    realtime.configuration.deferred_disconnect
    realtime.configuration.heartbeat_interval
    realtime.configuration.reconnect_backoff
    realtime.presence.presence_key
    realtime.presence.presence_state
    realtime.presence.track
    realtime.presence.untrack
    realtime.subscriptions.broadcast
    realtime.subscriptions.broadcast_ack
    realtime.subscriptions.broadcast_replay
    realtime.subscriptions.broadcast_self
    realtime.subscriptions.postgres_changes
    realtime.subscriptions.postgres_changes_filter
    realtime.subscriptions.postgres_changes_multiple_filters
    realtime.subscriptions.private_channel
    realtime.subscriptions.subscribe_presence
"""
CAPABILITIES = _IDS.split()
"""The ids of the matrix that are about Realtime."""


@cache
def declared() -> dict[str, Any]:
    """The entries of the file, by capability."""
    found: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))["features"]
    return found


def resolve(symbol: str) -> Any:
    """The object behind ``RealtimeChannel.send``; raises ``AttributeError`` if there is none."""
    found: Any = supabase_rt
    for name in symbol.split("."):
        found = getattr(found, name)
    return found

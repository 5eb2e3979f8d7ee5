"""The settings of the local server, with the real server's defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["REALISTIC", "Settings"]

REALISTIC: Final[Mapping[str, Any]] = {
    "join_error_delay": 5.0,
    "connect_error_delay": 2.0,
    "postgres_ready_delay": 1.0,
    "resubscribe_delay": 2.0,
}
"""The delays of the real server, for ``LocalRealtime(**REALISTIC)``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a server; times are float seconds, sizes are bytes.

    All limits are those of a new project on the real server; None lifts a limit. The delays of
    the real server are off, because a test that provokes a refusal should not wait for it;
    ``REALISTIC`` has them. The real server holds a refused join for 5 s and a refused handshake
    for 2 s. It resubscribes to Postgres 1 to 3 s after a token change, and needs up to 8 s for
    the first subscription.
    """

    join_error_delay: float = 0.0
    """Delay before a refused join is answered; the socket does nothing else meanwhile.

    See docs/protocol.md#one-join-at-a-time.
    """
    connect_error_delay: float = 0.0
    """Delay before a refused handshake is answered (docs/protocol.md#refused-handshakes)."""
    postgres_ready_delay: float = 0.0
    """Delay from the reply of a join to "Subscribed to PostgreSQL".

    See docs/protocol.md#from-join-to-live.
    """
    resubscribe_delay: float = 0.0
    """Delay from a new access token to the repeated "Subscribed to PostgreSQL".

    See docs/protocol.md#a-new-token.
    """
    idle_timeout: float = 60.0
    """Time without a frame of the client after which the socket is closed with 1000.

    See docs/protocol.md#idle-sockets.
    """
    no_channel_timeout: float | None = 600.0
    """Time that a socket stays open after it has left its last channel.

    See docs/protocol.md#idle-sockets.
    """
    first_join_timeout: float | None = 600.0
    """Time that a socket stays open without ever joining a channel."""
    request_timeout: float = 5.0
    """Time that the head of a request may take to arrive."""
    body_timeout: float = 15.0
    """Time that the body of a request may take to arrive."""
    max_connections: int | None = 1_000
    """Connections of any kind; one more closes the oldest that has joined no channel."""
    close_timeout: float = 0.25
    """Time that the client has to answer a close frame."""
    presence_limit: tuple[int, float] | None = (5, 30.0)
    """Presence calls per channel and window; None lifts the limit.

    See docs/protocol.md#presence-limits.
    """
    presence_enabled: bool = False
    """Presence for every channel, also if its join does not enable it.

    See docs/protocol.md#presence-switched-on.
    """
    private_only: bool = False
    """Refuse public channels."""
    max_concurrent_users: int | None = 200
    """Sockets that have joined a channel; handshakes beyond that number are refused.

    See docs/protocol.md#10-limits.
    """
    max_channels_per_client: int | None = 100
    """Channels of one socket."""
    max_joins_per_second: int | None = 100
    """Average joins of all sockets; a socket that exceeds it is closed."""
    max_events_per_second: int | None = 100
    """Average broadcasts, counted when sent and once for each channel that gets it.

    Beyond it, a channel that gets a broadcast is closed. HTTP requests and row changes have the
    same limit, each on its own.
    """
    max_presence_events_per_second: int | None = 1000
    """Average tracks, states and delivered diffs; beyond it, the channel is closed."""
    rate_interval: float = 5.0
    """Interval of the averages, which cover the last twelve; a shorter burst does not count."""
    max_payload_size: int = 3_000_500
    """Largest payload of a broadcast or track (docs/protocol.md#payload-sizes)."""
    max_frame_size: int = 5_000_000
    """Largest frame; a larger one closes the socket with 1009."""
    max_record_bytes: int = 1_048_576
    """Largest row change; a larger one arrives cut down, with an error 413.

    See docs/protocol.md#errors-inside-a-change.
    """
    max_buffer_size: int = 50_000_000
    """Data that may wait for a slow client; beyond it, the client is cut off."""
    statement_timeout: float = 2.0
    """Time that a statement caused by a client may take: a filter, a policy, a REST request."""
    status_page: bool = True
    """Page at / that shows sockets, channels, presence and events."""
    strict_tables: bool = False
    """Refuse subscriptions to tables that were not declared with ``LocalRealtime.table``."""

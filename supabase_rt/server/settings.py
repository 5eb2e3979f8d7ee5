"""The knobs of the local server, with the real server's defaults."""

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
"""The times that the real server takes, for ``LocalRealtime(**REALISTIC)``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How the server behaves; times are float seconds, sizes are bytes.

    All limits are those of a new project on the real server, and None lifts one. The penalties
    of the real server are off (``REALISTIC`` has them), because a test that provokes a refusal
    should not wait for it: it holds a refused join for 5 s and a refused handshake for 2 s,
    resubscribes to Postgres 1 to 3 s after a token change, and needs up to 8 s for the first
    subscription.
    """

    join_error_delay: float = 0.0
    """How long a refused join is held; the socket does nothing else meanwhile.

    See docs/protocol.md#one-join-at-a-time.
    """
    connect_error_delay: float = 0.0
    """How long a refused handshake is held (docs/protocol.md#refused-handshakes)."""
    postgres_ready_delay: float = 0.0
    """From the join's reply to "Subscribed to PostgreSQL" (docs/protocol.md#from-join-to-live)."""
    resubscribe_delay: float = 0.0
    """From a new access token to the repeated "Subscribed to PostgreSQL".

    See docs/protocol.md#a-new-token.
    """
    idle_timeout: float = 60.0
    """Silence of the client after which the socket is closed with 1000.

    See docs/protocol.md#idle-sockets.
    """
    no_channel_timeout: float | None = 600.0
    """How long a socket that has left all its channels stays open.

    See docs/protocol.md#idle-sockets.
    """
    first_join_timeout: float | None = 600.0
    """How long a socket stays open that has never joined a channel."""
    request_timeout: float = 5.0
    """How long the head of a request may take."""
    body_timeout: float = 15.0
    """How long the body of a request may take."""
    max_connections: int | None = 1_000
    """Connections of any kind; beyond, the oldest that has joined no channel is closed."""
    close_timeout: float = 0.25
    """How long the client's answer to a close frame is awaited."""
    presence_limit: tuple[int, float] | None = (5, 30.0)
    """Presence calls per channel and window; None lifts the limit.

    See docs/protocol.md#presence-limits.
    """
    presence_enabled: bool = False
    """Presence on for every channel, asked for or not (docs/protocol.md#presence-switched-on)."""
    private_only: bool = False
    """Refuse public channels."""
    max_concurrent_users: int | None = 200
    """Sockets that have joined a channel; handshakes are refused beyond.

    See docs/protocol.md#10-limits.
    """
    max_channels_per_client: int | None = 100
    """Channels of one socket."""
    max_joins_per_second: int | None = 100
    """Joins of all sockets, as an average; the socket that asks for one more is closed."""
    max_events_per_second: int | None = 100
    """Broadcasts, each counted when sent and for each channel that gets it, as an average;
    beyond, a channel that gets one is closed. HTTP requests and row changes have the same."""
    max_presence_events_per_second: int | None = 1000
    """Tracks, states and delivered diffs, as an average; beyond, the channel is closed."""
    rate_interval: float = 5.0
    """How often the averages are taken, over the last twelve times: no shorter burst counts."""
    max_payload_size: int = 3_000_500
    """A larger broadcast or track payload is not accepted (docs/protocol.md#payload-sizes)."""
    max_frame_size: int = 5_000_000
    """A larger frame closes the socket with 1009."""
    max_record_bytes: int = 1_048_576
    """A larger row change arrives cut down, with an error 413.

    See docs/protocol.md#errors-inside-a-change.
    """
    max_buffer_size: int = 50_000_000
    """A client that reads so slowly that more than this waits for it is cut off."""
    statement_timeout: float = 2.0
    """Seconds after which the database gives up a statement that a client caused: a filter, a
    policy, a request to ``/rest/v1``."""
    status_page: bool = True
    """The page at / that shows sockets, channels, presence and events."""
    strict_tables: bool = False
    """Only tables declared with ``LocalRealtime.table`` can be subscribed to."""

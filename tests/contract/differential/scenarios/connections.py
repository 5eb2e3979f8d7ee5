"""The socket: connecting, losing, disconnecting, heartbeats."""

from __future__ import annotations

from ..scenario import Differs, Scenario
from .steps import joined, on, opening

__all__ = ["SCENARIOS"]

LOST = [["channel", "error realtime:room"]] * 2
BEATS = {"heartbeat_interval": {"$seconds": 5}, "heartbeat_callback": {"$heartbeats": True}}

SCENARIOS = [
    Scenario(
        "connection-states",
        (),
        [
            ("read", "before", "client", "connection_state"),
            ("call", "connected", "client", "connect"),
            ("read", "during", "client", "connection_state"),
            ("call", "again", "client", "connect"),
            ("server", "links", 1),
            ("sleep", 0.5),
            ("read", "open", "client", "connection_state"),
            ("read", "is connected", "client", "is_connected"),
            ("call", "gone", "client", "disconnect"),
            ("await", "gone"),
            ("read", "after", "client", "connection_state"),
        ],
        rules=("close-code",),
    ),
    Scenario(
        "server-closes-1000",
        ("V42", "V73", "V44", "V45"),
        [
            *joined(on("broadcast", "e")),
            ("server", "close", 1000, "bye"),
            ("status", "a", "CHANNEL_ERROR"),
            ("read", "state", "a", "state"),
            ("status", "a", "SUBSCRIBED", 2),
            ("server", "broadcast", "e", {"n": 1}),
            ("calls", "h"),
        ],
        client={"reconnect_after": {"$delays": [1, 2]}},
    ),
    Scenario(
        "server-closes-1001",
        ("V73",),
        [
            *joined(),
            ("server", "close", 1001, ""),
            ("status", "a", "SUBSCRIBED", 2),
        ],
    ),
    Scenario(
        "link-dropped",
        ("V74", "V45", "V44"),
        [
            *joined(),
            ("server", "drop"),
            ("status", "a", "CHANNEL_ERROR"),
            ("sleep", 0.5),
            ("read", "state", "a", "state"),
            ("status", "a", "SUBSCRIBED", 2),
        ],
    ),
    Scenario(
        "two-losses-start-at-attempt-1",
        ("V7", "V44", "Q11"),
        [
            *joined(),
            ("server", "drop"),
            ("status", "a", "SUBSCRIBED", 2),
            ("server", "close", 1000),
            ("status", "a", "SUBSCRIBED", 3),
        ],
        client={"reconnect_after": {"$delays": [0.5, 2]}},
    ),
    Scenario(
        "one-error-per-loss",
        ("V52", "V7"),
        [
            *joined(),
            ("server", "refuse", 503),
            ("server", "drop"),
            ("status", "a", "CHANNEL_ERROR"),
            ("server", "refused", 2),
            ("server", "refuse", None),
            ("status", "a", "SUBSCRIBED", 2),
        ],
        client={"reconnect_after": {"$delays": [1, 2, 3]}},
    ),
    Scenario(
        "unreachable-from-the-start",
        ("V53", "V46", "V69", "Q5"),
        [
            ("server", "refuse", 503),
            *opening(),
            ("status", "a", "CHANNEL_ERROR"),
            ("read", "state", "a", "state"),
            ("server", "refused", 3),
            ("server", "refuse", None),
            ("status", "a", "SUBSCRIBED"),
            ("sleep", 0.5),
        ],
        rules=("connect-failure-text",),
        differs=(
            Differs(
                "frames.1",
                js=["phx_join #1", "phx_join #2"],
                ours=["phx_join #1"],
                why=(
                    "the join parked in JS is sent beside the rejoin; ours is one "
                    "(docs/differences.md)"
                ),
            ),
        ),
    ),
    Scenario(
        "disconnect-and-connect",
        ("V8", "V45", "V75", "Q16"),
        [
            *joined(on("broadcast", "e")),
            ("call", "gone", "client", "disconnect"),
            ("status", "a", "CHANNEL_ERROR"),
            ("await", "gone"),
            ("read", "state", "a", "state"),
            ("read", "channels", "client", "channels"),
            ("sleep", 3),
            ("read", "connection", "client", "connection_state"),
            ("call", "connected", "client", "connect"),
            ("status", "a", "SUBSCRIBED", 2),
            ("server", "broadcast", "e", {"n": 1}),
            ("calls", "h"),
        ],
        rules=("close-code",),
    ),
    Scenario(
        "disconnect-with-a-code",
        ("V75",),
        [
            *joined(),
            ("call", "gone", "client", "disconnect", 3001),
            ("await", "gone"),
            ("status", "a", "CHANNEL_ERROR"),
            ("call", "again", "client", "disconnect"),
            ("await", "again"),
        ],
    ),
    Scenario(
        "disconnect-while-connecting",
        ("V76",),
        [
            *opening(),
            ("call", "gone", "client", "disconnect"),
            ("await", "gone"),
            ("sleep", 2),
            ("read", "state", "a", "state"),
            ("call", "connected", "client", "connect"),
            ("status", "a", "SUBSCRIBED"),
            ("sleep", 0.5),
        ],
        differs=(
            Differs(
                "frames.1",
                js=["phx_join #1", "phx_join #2"],
                ours=["phx_join #1"],
                why=(
                    "the join parked in JS is sent beside the rejoin; ours is one "
                    "(docs/differences.md)"
                ),
            ),
            Differs(
                "statuses.a",
                js=["CHANNEL_ERROR errored: channel error: transport failure", "SUBSCRIBED joined"],
                ours=["CHANNEL_ERROR errored: socket closed: 1000", "SUBSCRIBED joined"],
                why="the reason is our own disconnect, and is said (api.md, Client)",
            ),
        ),
    ),
    Scenario(
        "subscribe-while-closing",
        ("V43", "Q6"),
        [
            ("call", "connected", "client", "connect"),
            ("server", "links", 1),
            ("sleep", 0.5),
            ("call", "gone", "client", "disconnect"),
            *opening(),
            ("await", "gone"),
            ("sleep", 5),
            ("read", "state", "a", "state"),
        ],
        rules=("close-code",),
        differs=(
            Differs(
                "frames.2",
                js=None,
                ours=["phx_join #1"],
                why=(
                    "a wish during the closing is kept: the socket opens again; JS stays "
                    "stuck (JS §8, 6)"
                ),
            ),
            Differs(
                "queries",
                js=["apikey=KEY&vsn=2.0.0"],
                ours=["apikey=KEY&vsn=2.0.0", "apikey=KEY&vsn=2.0.0"],
                why=(
                    "a wish during the closing is kept: the socket opens again; JS stays "
                    "stuck (JS §8, 6)"
                ),
            ),
            Differs(
                "results.state",
                js="errored",
                ours="joined",
                why=(
                    "a wish during the closing is kept: the socket opens again; JS stays "
                    "stuck (JS §8, 6)"
                ),
            ),
            Differs(
                "statuses.a",
                js=["CHANNEL_ERROR errored: socket closed: 1000"],
                ours=["SUBSCRIBED joined"],
                why=(
                    "a wish during the closing is kept: the socket opens again; JS stays "
                    "stuck (JS §8, 6)"
                ),
            ),
        ),
    ),
    Scenario(
        "subscribe-on-an-errored-channel",
        ("V24",),
        [
            *joined(),
            ("call", "gone", "client", "disconnect"),
            ("await", "gone"),
            ("subscribe", "a", {"label": "second"}),
            ("status", "a", "SUBSCRIBED", 2),
        ],
        rules=("close-code",),
    ),
    Scenario(
        "deferred-disconnect",
        ("V68",),
        [
            *joined(),
            ("call", "removed", "client", "remove_channel", {"$thing": "a"}),
            ("await", "removed"),
            ("sleep", 5),
            ("read", "connected still", "client", "is_connected"),
            ("server", "gone", 1),
            ("sleep", 1),
            ("read", "connection", "client", "connection_state"),
        ],
        client={"heartbeat_interval": {"$seconds": 5}},
        rules=("close-code",),
    ),
    Scenario(
        "deferred-disconnect-cancelled",
        ("V68",),
        [
            *joined(),
            ("call", "removed", "client", "remove_channel", {"$thing": "a"}),
            ("await", "removed"),
            ("channel", "b", "other"),
            ("sleep", 4),
            ("read", "connection", "client", "connection_state"),
            ("subscribe", "b"),
            ("status", "b", "SUBSCRIBED"),
        ],
        client={"disconnect_on_empty_channels_after": {"$seconds": 2}},
    ),
    Scenario(
        "disconnect-at-once-when-empty",
        ("V68",),
        [
            *joined(),
            ("call", "left", "a", "unsubscribe"),
            ("await", "left"),
            ("server", "gone", 1),
            ("sleep", 1),
            ("channel", "b", "room"),
            ("subscribe", "b"),
            ("status", "b", "SUBSCRIBED"),
        ],
        client={"disconnect_on_empty_channels_after": 0},
        rules=("close-code",),
    ),
    Scenario(
        "heartbeats",
        (),
        [
            *joined(),
            ("heartbeats", "ok", 2),
        ],
        client=BEATS,
    ),
    Scenario(
        "heartbeat-refused",
        (),
        [
            ("server", "hold", "heartbeat"),
            *joined(),
            ("server", "expect", "heartbeat"),
            ("server", "reply", "error"),
            ("heartbeats", "error"),
            ("read", "connected", "client", "is_connected"),
        ],
        client=BEATS,
    ),
    Scenario(
        "heartbeat-unanswered",
        ("V47", "V61"),
        [
            ("server", "hold", "heartbeat"),
            *joined(),
            ("status", "a", "CHANNEL_ERROR"),
            ("server", "release", "heartbeat"),
            ("status", "a", "SUBSCRIBED", 2),
        ],
        client=BEATS,
    ),
    Scenario(
        "server-goes-silent",
        ("V47", "V61"),
        [
            *joined(),
            ("server", "silent"),
            ("status", "a", "CHANNEL_ERROR"),
            ("server", "silent", False),
            ("status", "a", "SUBSCRIBED", 2),
        ],
        client={"heartbeat_interval": {"$seconds": 5}},
    ),
    Scenario(
        "heartbeat-while-closed",
        ("V60",),
        [("call", "beat", "client", "send_heartbeat"), ("sleep", 0.5)],
        client=BEATS,
        differs=(
            Differs(
                "heartbeats",
                js=[],
                ours=["disconnected"],
                why="published examples wait for this status (docs/differences.md)",
            ),
        ),
    ),
    Scenario(
        "heartbeat-interval-of-zero",
        ("V6",),
        [("construct", "zero", {"params": {"apikey": "KEY"}, "heartbeat_interval": 0})],
        differs=(
            Differs(
                "results.zero",
                js=None,
                ours={"error": "heartbeat_interval is a positive number of seconds, not 0"},
                why="a zero raises instead of meaning another default (docs/differences.md)",
            ),
        ),
    ),
    Scenario(
        "without-a-logger",
        ("A4",),
        [("read", "has logger", "client", "has_logger")],
    ),
    Scenario(
        "with-a-logger",
        ("A4",),
        [
            ("read", "has logger", "client", "has_logger"),
            ("call", "logged", "client", "log", "mine", "a line"),
        ],
        client={"logger": {"$logger": "a line"}},
    ),
    Scenario(
        "logger-of-the-socket",
        ("A4",),
        [*joined(), ("server", "drop"), ("status", "a", "SUBSCRIBED", 2)],
        client={"logger": {"$logger": "connected to"}},
        differs=(
            Differs(
                "logs",
                js=[["transport", "<base>realtime/v1/websocket?apikey=KEY&vsn=2.0.0"]] * 2,
                ours=[["transport", "<base>realtime/v1"]] * 2,
                why="logs are kept, so that keys do not belong there",
            ),
        ),
    ),
    Scenario(
        "logger-of-a-lost-channel",
        ("A4",),
        [
            ("server", "hold", "phx_join"),
            *opening(),
            ("server", "expect", "phx_join"),
            ("server", "reply", "error", {"reason": "UnknownErrorOnChannel: nope"}),
            ("server", "expect", "phx_join"),
            ("server", "echo"),
            ("status", "a", "SUBSCRIBED"),
            ("server", "send", "phx_error", {}, {"ref": "@0"}),
            ("status", "a", "CHANNEL_ERROR", 2),
        ],
        client={"logger": {"$logger": "error realtime:room"}},
        differs=(
            Differs(
                "logs",
                js=[["receive", "error realtime:room phx_reply (6)"], *LOST],
                ours=[["receive", "error realtime:room phx_reply (1)"], *LOST],
                why="refs of ours number frames and nothing else (docs/differences.md)",
            ),
        ),
    ),
    Scenario(
        "logger-of-a-late-channel",
        ("A4",),
        [
            ("server", "hold", "phx_join"),
            *opening(timeout=2),
            ("status", "a", "TIMED_OUT"),
            ("server", "release", "phx_join"),
            ("status", "a", "SUBSCRIBED"),
        ],
        client={"logger": {"$logger": "timeout realtime:room"}},
    ),
    Scenario(
        "logger-of-a-channel-that-leaves",
        ("A4",),
        [*joined(), ("call", "left", "a", "unsubscribe"), ("await", "left")],
        client={"logger": {"$logger": "close realtime:room"}},
    ),
    Scenario(
        "logger-of-a-duplicate-topic",
        ("A4",),
        [
            *joined(),
            ("direct", "b", "realtime:room"),
            ("subscribe", "b"),
            ("status", "b", "SUBSCRIBED"),
            ("status", "a", "CLOSED"),
        ],
        client={"logger": {"$logger": "leaving duplicate"}},
    ),
    Scenario(
        "unknown-version",
        ("A13",),
        [("construct", "version 3", {"params": {"apikey": "KEY"}, "vsn": "3.0.0"})],
        differs=(
            Differs(
                "results.version 3",
                js={"error": "Unsupported serializer version: 3.0.0"},
                ours={"error": "Unsupported serializer version: 3.0.0; known: '1.0.0' and '2.0.0'"},
                why="our text goes on to say which versions there are",
            ),
        ),
    ),
    Scenario(
        "push-before-the-socket-is-open",
        (),
        [
            (
                "call",
                "pushed",
                "client",
                "push",
                {"topic": "t", "event": "e", "payload": {"n": 1}, "ref": "x1"},
            ),
            ("call", "connected", "client", "connect"),
            ("server", "count", "e", 1),
        ],
    ),
]

"""Callbacks and handlers that fail, unreadable frames, and joins of other tables."""

from __future__ import annotations

from ..scenario import Differs, Scenario
from .steps import heard, joined, on, opening

__all__ = ["SCENARIOS"]

ANY = on("postgres_changes", {"event": "*", "schema": "public"})
AGAIN = [
    ("channel", "b", "room"),
    ("subscribe", "b"),
]

SCENARIOS = [
    Scenario(
        "remove-in-the-callback",
        ("V59",),
        [
            *joined(
                react={
                    "CHANNEL_ERROR": [
                        ("call", "removed", "client", "remove_channel", {"$thing": "a"}),
                        *AGAIN,
                    ]
                }
            ),
            ("server", "drop"),
            ("await", "removed"),
            ("status", "b", "SUBSCRIBED"),
            ("read", "channels", "client", "channels"),
            ("sleep", 0.5),
        ],
        differs=(
            Differs(
                "frames.2",
                js=["phx_leave #1", "phx_join #2"],
                ours=["phx_join #2"],
                why=(
                    "nothing is parked without a socket: the server of the new one has "
                    "no such join to leave (docs/differences.md)"
                ),
            ),
        ),
    ),
    Scenario(
        "callback-throws-on-loss",
        ("V81", "Q2"),
        [
            *joined(react={"CHANNEL_ERROR": [("throw",)]}),
            ("server", "drop"),
            ("sleep", 4),
            ("read", "state", "a", "state"),
        ],
        differs=(
            Differs(
                "frames.2",
                js=None,
                ours=["phx_join #2"],
                why="a callback that raises does not cost the reconnect (JS §8, 2)",
            ),
            Differs(
                "queries",
                js=["apikey=KEY&vsn=2.0.0"],
                ours=["apikey=KEY&vsn=2.0.0", "apikey=KEY&vsn=2.0.0"],
                why="a callback that raises does not cost the reconnect (JS §8, 2)",
            ),
            Differs(
                "results.state",
                js="errored",
                ours="joined",
                why="a callback that raises does not cost the reconnect (JS §8, 2)",
            ),
            Differs(
                "statuses.a",
                js=["SUBSCRIBED joined", "CHANNEL_ERROR errored: socket closed: 1006"],
                ours=[
                    "SUBSCRIBED joined",
                    "CHANNEL_ERROR errored: socket closed: 1006",
                    "SUBSCRIBED joined",
                ],
                why="a callback that raises does not cost the reconnect (JS §8, 2)",
            ),
        ),
    ),
    Scenario(
        "callback-throws-on-subscribed",
        ("V57", "V82"),
        [
            *joined(on("broadcast", "e"), react={"SUBSCRIBED": [("throw",)]}),
            ("read", "state", "a", "state"),
            ("server", "broadcast", "e", {"n": 1}),
            ("calls", "h"),
        ],
    ),
    Scenario(
        "handler-throws",
        ("V80", "Q2"),
        [
            *joined(on("broadcast", "e", "bad", throws=True), on("broadcast", "e", "good")),
            ("server", "broadcast", "e", {"n": 1}),
            ("server", "broadcast", "e", {"n": 2}),
            ("sleep", 1),
        ],
        differs=(
            Differs(
                "calls",
                js=[heard("bad", {"n": 1})],
                ours=[
                    heard("bad", {"n": 1}),
                    heard("good", {"n": 1}),
                    heard("bad", {"n": 2}),
                    heard("good", {"n": 2}),
                ],
                why="a handler that raises costs neither the others nor the next event (JS §8, 2)",
            ),
        ),
    ),
    Scenario(
        "malformed-text",
        ("V79",),
        [
            *joined(on("broadcast", "e")),
            ("server", "text", "{nonsense"),
            ("server", "broadcast", "e", {"n": 1}),
            ("sleep", 1),
            ("read", "state", "a", "state"),
        ],
        differs=(
            Differs(
                "calls",
                js=[],
                ours=[heard("h", {"n": 1})],
                why="a frame that cannot be read costs itself only (docs/differences.md)",
            ),
        ),
    ),
    Scenario(
        "unknown-binary-kind",
        ("V79",),
        [
            *joined(on("broadcast", "e")),
            ("server", "bytes", "09000000"),
            ("server", "broadcast", "e", {"n": 1}),
            ("sleep", 1),
            ("read", "state", "a", "state"),
        ],
        differs=(
            Differs(
                "calls",
                js=[],
                ours=[heard("h", {"n": 1})],
                why="a frame that cannot be read costs itself only (docs/differences.md)",
            ),
        ),
    ),
    Scenario(
        "null-broadcast",
        ("V79", "Q14"),
        [
            *joined(on("broadcast", "e")),
            ("server", "send", "broadcast", None),
            ("server", "broadcast", "e", {"n": 1}),
            ("sleep", 1),
        ],
        differs=(
            Differs(
                "calls",
                js=[],
                ours=[heard("h", {"n": 1})],
                why="a frame that cannot be read costs itself only (JS §8, 14)",
            ),
        ),
    ),
    Scenario(
        "mismatch",
        ("V51", "V84"),
        [
            ("server", "hold", "phx_join"),
            *opening(ANY),
            ("server", "expect", "phx_join"),
            (
                "server",
                "reply",
                "ok",
                {"postgres_changes": [{"id": 1, "event": "*", "schema": "other"}]},
            ),
            ("status", "a", "CHANNEL_ERROR"),
            ("sleep", 2),
            ("read", "state", "a", "state"),
            ("read", "channels", "client", "channels"),
        ],
        rules=("mismatch-state",),
    ),
    Scenario(
        "mismatch-empty",
        ("V85",),
        [
            ("server", "hold", "phx_join"),
            *opening(ANY),
            ("server", "expect", "phx_join"),
            ("server", "reply", "ok", {"postgres_changes": []}),
            ("status", "a", "CHANNEL_ERROR"),
            ("sleep", 2),
            ("read", "state", "a", "state"),
        ],
        rules=("mismatch-state",),
    ),
    Scenario(
        "listener-added-while-errored",
        ("V20", "Q8"),
        [
            *joined(ANY),
            ("server", "send", "phx_error", {}, {"join_ref": None}),
            ("status", "a", "CHANNEL_ERROR"),
            on("postgres_changes", {"event": "INSERT", "schema": "public"}, "late"),
            ("server", "hold", "phx_join"),
            ("server", "expect", "phx_join"),
            ("server", "expect", "phx_join"),
            ("server", "echo"),
            ("sleep", 2),
            ("read", "state", "a", "state"),
        ],
        differs=(
            Differs(
                "frames.1",
                js=[
                    'phx_join #1 {"postgres_changes": [{"event": "*", "schema": "public"}]}',
                    'phx_join #2 {"postgres_changes": [{"event": "*", "schema": "public"}]}',
                    "phx_leave #2",
                ],
                ours=[
                    'phx_join #1 {"postgres_changes": [{"event": "*", "schema": "public"}]}',
                    (
                        'phx_join #2 {"postgres_changes": [{"event": "*", "schema": '
                        '"public"}, {"event": "INSERT", "schema": "public"}]}'
                    ),
                ],
                why=(
                    "a rejoin is made of the live bindings (docs/differences.md); JS joins "
                    "what it froze"
                ),
            ),
            Differs(
                "results.state",
                js="errored",
                ours="joined",
                why=(
                    "a rejoin is made of the live bindings (docs/differences.md); JS joins "
                    "what it froze"
                ),
            ),
            Differs(
                "statuses.a",
                js=[
                    "SUBSCRIBED joined",
                    "CHANNEL_ERROR errored: channel error: transport failure",
                    "CLOSED closed",
                    (
                        "CHANNEL_ERROR errored: mismatch between server and client "
                        "bindings for postgres changes"
                    ),
                ],
                ours=[
                    "SUBSCRIBED joined",
                    "CHANNEL_ERROR errored: channel error: transport failure",
                    "SUBSCRIBED joined",
                ],
                why=(
                    "a rejoin is made of the live bindings (docs/differences.md); JS joins "
                    "what it froze"
                ),
            ),
        ),
    ),
    Scenario(
        "system-error",
        ("V83",),
        [
            *joined(on("system", {}), ANY),
            (
                "server",
                "send",
                "system",
                {
                    "extension": "postgres_changes",
                    "status": "error",
                    "message": "Unable to subscribe to changes",
                    "channel": "room",
                },
            ),
            ("calls", "h"),
            ("sleep", 1),
            ("read", "state", "a", "state"),
        ],
    ),
]

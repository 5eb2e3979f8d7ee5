"""Making, joining and leaving channels."""

from __future__ import annotations

from ..scenario import Differs, Scenario
from .steps import joined, on, opening

__all__ = ["SCENARIOS"]

SCENARIOS = [
    Scenario(
        "join-payload",
        ("V26", "V10", "V4"),
        [
            *joined(),
            ("read", "topic", "a", "topic"),
            ("read", "url", "client", "endpoint_url"),
            ("read", "state", "a", "state"),
        ],
    ),
    Scenario(
        "url-parameters",
        ("V4",),
        [("read", "url", "client", "endpoint_url"), *joined()],
        client={"log_level": "info", "vsn": "1.0.0", "params": {"apikey": "K&Y", "x": "a b"}},
    ),
    Scenario(
        "no-api-key",
        ("V3",),
        [("construct", "no params", {})],
        differs=(
            Differs(
                "results.no params",
                js={"error": "API key is required to connect to Realtime"},
                ours={
                    "error": (
                        "API key is required to connect to Realtime: RealtimeClient(url, "
                        "params={'apikey': key})"
                    )
                },
                why="our text goes on to show how to give the key",
            ),
        ),
    ),
    Scenario(
        "same-topic",
        ("V11", "Q12"),
        [
            *joined(),
            ("channel", "b", "room"),
            ("same", "same", "a", "b"),
            ("channel", "c", "room", {"config": {"private": True}}),
            ("read", "channels", "client", "channels"),
        ],
        differs=(
            Differs(
                "results.channel c",
                js=None,
                ours={
                    "error": (
                        "channel 'room' is open with other options: private is False, "
                        "asked for True; remove_channel() it first, or leave the options "
                        "out"
                    )
                },
                why="options given and different raise (api.md, Channel); JS ignores them silently",
            ),
        ),
    ),
    Scenario(
        "prefix-not-checked",
        ("V10", "V13"),
        [
            ("channel", "a", "realtime:x"),
            ("read", "topic", "a", "topic"),
            ("read", "sub topic", "a", "sub_topic"),
            ("channel", "b", "x"),
            ("read", "sub topic of b", "b", "sub_topic"),
        ],
    ),
    Scenario(
        "new-after-unsubscribe",
        ("V12", "V25", "Q13"),
        [
            *joined(),
            ("call", "left", "a", "unsubscribe"),
            ("await", "left"),
            ("channel", "b", "room"),
            ("same", "same", "a", "b"),
            ("subscribe", "b"),
            ("status", "b", "SUBSCRIBED"),
            ("subscribe", "a", {"label": "a again"}),
            ("read", "channels", "client", "channels"),
        ],
    ),
    Scenario(
        "options-merge-shallowly",
        ("V14",),
        [
            *joined(opts={"config": {"broadcast": {"self": True}}}),
            ("read", "params", "a", "params"),
        ],
    ),
    Scenario(
        "options-empty",
        ("V16",),
        [*joined(opts={}), ("read", "params", "a", "params")],
    ),
    Scenario(
        "replay-on-public",
        ("V17",),
        [
            ("channel", "a", "room", {"config": {"broadcast": {"replay": {"since": 1}}}}),
            ("read", "channels", "client", "channels"),
        ],
    ),
    Scenario(
        "replay-on-private",
        ("V17", "V14", "A10"),
        [
            *joined(
                on("broadcast", "e"),
                opts={
                    "config": {"private": True, "broadcast": {"replay": {"since": 5, "limit": 3}}}
                },
            ),
            ("server", "broadcast", "e", {"n": 1}, {"replayed": True, "id": "x"}),
            ("calls", "h"),
        ],
    ),
    Scenario(
        "subscribe-again-while-joined",
        ("V23",),
        [
            *joined(),
            ("subscribe", "a", {"label": "second"}),
            ("sleep", 0.5),
            ("read", "state", "a", "state"),
        ],
    ),
    Scenario(
        "subscribe-again-while-joining",
        ("V23",),
        [
            ("server", "hold", "phx_join"),
            *opening(),
            ("server", "expect", "phx_join"),
            ("read", "state", "a", "state"),
            ("subscribe", "a", {"label": "second"}),
            ("server", "reply"),
            ("status", "a", "SUBSCRIBED"),
        ],
    ),
    Scenario(
        "presence-handler-enables-presence",
        ("V26",),
        [
            *joined(on("presence", "sync", "s")),
            ("read", "params", "a", "params"),
        ],
    ),
    Scenario(
        "no-late-presence-or-postgres",
        ("Q8",),
        [
            *joined(),
            on("presence", "sync", "p"),
            on("postgres_changes", {"event": "*", "schema": "public"}, "c"),
            on("broadcast", "e", "b"),
            on("system", {}, "s"),
            ("server", "broadcast", "e", {"n": 1}),
            ("calls", "b"),
        ],
    ),
    Scenario(
        "unsubscribe",
        ("V27", "Q10"),
        [
            *joined(),
            ("call", "left", "a", "unsubscribe"),
            ("read", "state at once", "a", "state"),
            ("read", "channels at once", "client", "channels"),
            ("await", "left"),
            ("status", "a", "CLOSED"),
            ("read", "state", "a", "state"),
            ("server", "count", "phx_leave", 1),
        ],
        differs=(
            Differs(
                "results.state at once",
                js="closed",
                ours="leaving",
                why=(
                    "CLOSED comes with the server's answer (docs/differences.md); JS "
                    "acknowledges itself"
                ),
            ),
        ),
    ),
    Scenario(
        "unsubscribe-never-subscribed",
        ("V29",),
        [
            ("channel", "a", "room"),
            ("call", "left", "a", "unsubscribe"),
            ("await", "left"),
            ("read", "state", "a", "state"),
            ("read", "channels", "client", "channels"),
        ],
    ),
    Scenario(
        "closed-callback-throws",
        ("V28",),
        [
            *joined(react={"CLOSED": [("throw",)]}),
            ("call", "left", "a", "unsubscribe"),
            ("await", "left"),
            ("server", "expect", "phx_leave"),
            ("read", "state", "a", "state"),
        ],
        differs=(
            Differs(
                "results.left",
                js={"error": "thrown by a callback"},
                ours={"value": "ok"},
                why="a callback that raises is reported, and harms nothing else (JS §8, 2)",
            ),
        ),
    ),
    Scenario(
        "remove-while-joining",
        ("V77", "V29"),
        [
            ("server", "hold", "phx_join"),
            *opening(),
            ("server", "expect", "phx_join"),
            ("call", "removed", "client", "remove_channel", {"$thing": "a"}),
            ("await", "removed"),
            ("server", "echo"),
            ("server", "expect", "phx_leave"),
            ("sleep", 0.5),
            ("read", "state", "a", "state"),
            ("read", "channels", "client", "channels"),
        ],
    ),
    Scenario(
        "remove-and-make-again",
        ("V78", "V12"),
        [
            *joined(on("broadcast", "e", "old")),
            ("server", "hold", "phx_leave"),
            ("call", "removed", "client", "remove_channel", {"$thing": "a"}),
            ("channel", "b", "room"),
            ("on", "b", "broadcast", {"event": "e"}, "new", {}),
            ("subscribe", "b"),
            ("status", "b", "SUBSCRIBED"),
            ("server", "expect", "phx_leave"),
            ("server", "send", "phx_close", {}, {"join_ref": "@1", "ref": "@1"}),
            ("server", "reply"),
            ("await", "removed"),
            ("server", "broadcast", "e", {"n": 1}),
            ("calls", "new"),
            ("read", "old", "a", "state"),
            ("read", "new", "b", "state"),
        ],
    ),
    Scenario(
        "remove-all",
        (),
        [
            *joined(),
            ("channel", "b", "other"),
            ("subscribe", "b"),
            ("status", "b", "SUBSCRIBED"),
            ("call", "removed", "client", "remove_all_channels"),
            ("await", "removed"),
            ("server", "gone", 1),
            ("read", "channels", "client", "channels"),
            ("read", "connection", "client", "connection_state"),
        ],
        rules=("close-code",),
    ),
    Scenario(
        "remove-none",
        (),
        [
            ("call", "removed", "client", "remove_all_channels"),
            ("await", "removed"),
            ("read", "connection", "client", "connection_state"),
        ],
    ),
    Scenario(
        "update-join-payload",
        (),
        [
            *joined(),
            ("call", "updated", "a", "update_join_payload", {"extra": 1}),
            ("server", "close", 1000, "bye"),
            ("status", "a", "SUBSCRIBED", 2),
        ],
    ),
    Scenario(
        "teardown",
        ("V39", "Q3"),
        [
            ("server", "hold", "presence"),
            *joined(),
            ("call", "tracked", "a", "track", {"x": 1}),
            ("server", "expect", "presence"),
            ("call", "torn", "a", "teardown"),
            ("sleep", 0.5),
            ("read", "state", "a", "state"),
        ],
        differs=(
            Differs(
                "results.tracked",
                js="pending",
                ours={"value": "error"},
                why="every pending reply ends (docs/differences.md); in JS it never settles",
            ),
            Differs(
                "statuses.a",
                js=["SUBSCRIBED joined"],
                ours=["SUBSCRIBED joined", "CLOSED closed"],
                why="CLOSED is said whenever it is over (docs/differences.md)",
            ),
        ),
    ),
    Scenario(
        "a-made-by-hand-channel",
        (),
        [
            ("direct", "a", "realtime:room"),
            ("read", "channels before", "client", "channels"),
            ("subscribe", "a"),
            ("status", "a", "SUBSCRIBED"),
        ],
    ),
    Scenario(
        "vsn-1-channel",
        ("V41", "V26"),
        [
            *joined(on("broadcast", "e")),
            ("server", "broadcast", "e", {"n": 1}),
            ("calls", "h"),
            ("call", "left", "a", "unsubscribe"),
            ("await", "left"),
        ],
        client={"vsn": "1.0.0"},
    ),
    Scenario(
        "postgres-changes-wait",
        ("V1", "A1"),
        [
            ("server", "hold", "phx_join"),
            *opening(
                on("postgres_changes", {"event": "*", "schema": "public"}),
                opts={"config": {"postgres_changes_options": {"wait": True, "timeout": 1000}}},
                timeout=1,
            ),
            ("server", "expect", "phx_join"),
            ("sleep", 2),
            ("server", "reply", "error", {"reason": "not ready"}),
            ("status", "a", "CHANNEL_ERROR"),
        ],
    ),
    Scenario(
        "replication-ready",
        ("A5",),
        [
            *joined(on("system", {}), opts={"config": {"broadcast": {"replication_ready": True}}}),
            (
                "server",
                "send",
                "system",
                {
                    "extension": "system",
                    "status": "ok",
                    "message": "Replication connection established",
                    "channel": "room",
                },
            ),
            ("calls", "h"),
        ],
    ),
    Scenario(
        "first-ref",
        ("V9",),
        [*joined(), ("ask", "first ref", "first_ref")],
        differs=(
            Differs(
                "results.first ref",
                js="6",
                ours="1",
                why="refs of ours number frames and nothing else (docs/differences.md)",
            ),
        ),
    ),
    Scenario(
        "options-of-the-caller",
        ("V15",),
        [
            ("channel", "a", "room", {"config": {"private": True}}),
            ("options", "options after", "a"),
        ],
        differs=(
            Differs(
                "results.options after",
                js={
                    "config": {
                        "broadcast": {"ack": False, "self": False},
                        "presence": {"key": "", "enabled": False},
                        "private": True,
                    }
                },
                ours={"config": {"private": True}},
                why="nothing of the caller's is changed (docs/differences.md)",
            ),
        ),
    ),
    Scenario(
        "options-without-config",
        ("Q20",),
        [
            ("channel", "a", "room", {"broadcast": {"self": True}}),
            ("read", "channels", "client", "channels"),
        ],
        differs=(
            Differs(
                "results.channel a",
                js=None,
                ours={"error": "put 'broadcast' under 'config': {'config': {'broadcast': ...}}"},
                why="options that would be ignored raise, and say where they belong",
            ),
            Differs(
                "results.channels",
                js=["realtime:room"],
                ours=[],
                why="options that would be ignored raise, and say where they belong",
            ),
        ),
    ),
    Scenario(
        "hooks-of-each-connect",
        ("Q7",),
        [
            *joined(),
            ("hooks", "hooks at first"),
            ("server", "drop"),
            ("status", "a", "SUBSCRIBED", 2),
            ("server", "drop"),
            ("status", "a", "SUBSCRIBED", 3),
            ("hooks", "hooks of two reconnections"),
        ],
        differs=(
            Differs(
                "results.hooks at first",
                js=2,
                ours=0,
                why="ours needs no listener of its own for what follows an open socket",
            ),
            Differs(
                "results.hooks of two reconnections",
                js=2,
                ours=0,
                why="in JS each connect registers its hooks again (JS §8, 7)",
            ),
        ),
    ),
]

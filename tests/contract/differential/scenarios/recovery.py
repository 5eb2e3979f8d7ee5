"""Refusals, joins without an answer, crashes, closes by the server."""

from __future__ import annotations

from ..scenario import Differs, Scenario
from .steps import joined, on, opening

__all__ = ["SCENARIOS"]

EXPIRED = {
    "extension": "system",
    "status": "error",
    "message": "Token has expired 3 seconds ago",
    "channel": "room",
}

SCENARIOS = [
    Scenario(
        "join-refused-again-and-again",
        ("V49", "V54"),
        [
            ("server", "hold", "phx_join"),
            *opening(),
            ("server", "expect", "phx_join"),
            ("server", "reply", "error", {"reason": "UnknownErrorOnChannel: nope"}),
            ("server", "expect", "phx_join"),
            ("server", "reply", "error", {"reason": "UnknownErrorOnChannel: nope"}),
            ("server", "expect", "phx_join"),
            ("read", "state", "a", "state"),
            ("server", "reply"),
            ("status", "a", "SUBSCRIBED"),
        ],
    ),
    Scenario(
        "join-refused-unauthorized",
        ("V49",),
        [
            ("server", "hold", "phx_join"),
            *opening(),
            ("server", "expect", "phx_join"),
            ("server", "reply", "error", {"reason": "Unauthorized: nope"}),
            ("status", "a", "CHANNEL_ERROR"),
            ("read", "state", "a", "state"),
        ],
    ),
    Scenario(
        "join-refused-with-text",
        ("V50", "Q4"),
        [
            ("server", "hold", "phx_join"),
            *opening(),
            ("server", "expect", "phx_join"),
            ("server", "reply", "error", "boom"),
            ("status", "a", "CHANNEL_ERROR"),
        ],
        differs=(
            Differs(
                "statuses.a",
                js=["CHANNEL_ERROR errored: b, o, o, m"],
                ours=["CHANNEL_ERROR errored: boom"],
                why="the text, and not its letters (JS §8, 4)",
            ),
        ),
    ),
    Scenario(
        "join-refused-with-nothing",
        ("V49",),
        [
            ("server", "hold", "phx_join"),
            *opening(),
            ("server", "expect", "phx_join"),
            ("server", "reply", "error", {}),
            ("status", "a", "CHANNEL_ERROR"),
        ],
    ),
    Scenario(
        "join-unanswered-again-and-again",
        ("V55",),
        [
            ("server", "hold", "phx_join"),
            *opening(timeout=2),
            ("status", "a", "TIMED_OUT"),
            ("read", "state", "a", "state"),
            ("status", "a", "TIMED_OUT", 2),
            ("server", "release", "phx_join"),
            ("status", "a", "SUBSCRIBED"),
        ],
    ),
    Scenario(
        "reply-after-the-link-was-lost",
        ("V78",),
        [
            ("server", "hold", "phx_join"),
            *opening(on("broadcast", "e")),
            ("server", "expect", "phx_join"),
            ("server", "drop"),
            ("server", "expect", "phx_join"),
            ("server", "send", "phx_reply", {"status": "ok", "response": {}}, {"ref": "@1"}),
            ("sleep", 0.3),
            ("read", "state", "a", "state"),
            ("server", "reply"),
            ("status", "a", "SUBSCRIBED"),
        ],
    ),
    Scenario(
        "crash",
        ("V48", "V72"),
        [
            *joined(on("broadcast", "e")),
            ("server", "send", "phx_error", {}, {"ref": "@0"}),
            ("status", "a", "CHANNEL_ERROR"),
            ("read", "state", "a", "state"),
            ("read", "channels", "client", "channels"),
            ("sleep", 0.5),
            ("read", "still", "a", "state"),
            ("status", "a", "SUBSCRIBED", 2),
            ("server", "broadcast", "e", {"n": 1}),
            ("calls", "h"),
        ],
    ),
    Scenario(
        "crash-without-refs",
        ("V72",),
        [
            *joined(),
            ("server", "send", "phx_error", {}, {"join_ref": None, "ref": None}),
            ("status", "a", "SUBSCRIBED", 2),
        ],
    ),
    Scenario(
        "crash-vsn-1",
        ("V72", "V41"),
        [
            *joined(),
            ("server", "send", "phx_error", {}, {"ref": "@0"}),
            ("status", "a", "SUBSCRIBED", 2),
        ],
        client={"vsn": "1.0.0"},
    ),
    Scenario(
        "crash-while-errored",
        ("V58",),
        [
            *joined(),
            ("server", "send", "phx_error", {}, {"join_ref": None}),
            ("server", "send", "phx_error", {}, {"join_ref": None}),
            ("status", "a", "SUBSCRIBED", 2),
        ],
        differs=(
            Differs(
                "statuses.a",
                js=[
                    "SUBSCRIBED joined",
                    "CHANNEL_ERROR errored: channel error: transport failure",
                    "CHANNEL_ERROR errored: channel error: transport failure",
                    "SUBSCRIBED joined",
                ],
                ours=[
                    "SUBSCRIBED joined",
                    "CHANNEL_ERROR errored: channel error: transport failure",
                    "SUBSCRIBED joined",
                ],
                why="CHANNEL_ERROR once per loss (api.md, Channel)",
            ),
        ),
    ),
    Scenario(
        "crash-of-an-older-join",
        ("V78",),
        [
            *joined(),
            ("server", "drop"),
            ("status", "a", "SUBSCRIBED", 2),
            ("server", "send", "phx_error", {}, {"join_ref": "@1", "ref": "@1"}),
            ("server", "send", "phx_close", {}, {"join_ref": "@1", "ref": "@1"}),
            ("sleep", 1),
            ("read", "state", "a", "state"),
        ],
    ),
    Scenario(
        "closed-by-the-server",
        (),
        [
            *joined(),
            ("server", "send", "phx_close", {}, {"ref": "@0"}),
            ("sleep", 3),
            ("read", "state", "a", "state"),
            ("read", "channels", "client", "channels"),
        ],
        differs=(
            Differs(
                "frames.1",
                js=["phx_join #1"],
                ours=["phx_join #1", "phx_join #2"],
                why="an unasked phx_close is a loss and is rejoined (docs/differences.md)",
            ),
            Differs(
                "results.channels",
                js=[],
                ours=["realtime:room"],
                why="an unasked phx_close is a loss and is rejoined (docs/differences.md)",
            ),
            Differs(
                "results.state",
                js="closed",
                ours="joined",
                why="an unasked phx_close is a loss and is rejoined (docs/differences.md)",
            ),
            Differs(
                "statuses.a",
                js=["SUBSCRIBED joined", "CLOSED closed"],
                ours=[
                    "SUBSCRIBED joined",
                    "CHANNEL_ERROR errored: channel closed by the server",
                    "SUBSCRIBED joined",
                ],
                why="an unasked phx_close is a loss and is rejoined (docs/differences.md)",
            ),
        ),
    ),
    Scenario(
        "token-expired-on-the-server",
        (),
        [
            ("call", "auth", "client", "set_auth", "t1"),
            *joined(on("system", {})),
            ("server", "send", "system", EXPIRED),
            ("server", "send", "phx_close", {}, {"ref": "@0"}),
            ("sleep", 3),
            ("read", "state", "a", "state"),
            ("call", "new auth", "client", "set_auth", "t2"),
            ("sleep", 1),
            ("read", "state after", "a", "state"),
        ],
        differs=(
            Differs(
                "frames.1",
                js=['phx_join #1 {"access_token": "t1"}'],
                ours=[
                    'phx_join #1 {"access_token": "t1"}',
                    'phx_join #2 {"access_token": "t2", "version": "<client>"}',
                ],
                why="rests until another token comes, then joins (docs/differences.md)",
            ),
            Differs(
                "results.state",
                js="closed",
                ours="errored",
                why="rests until another token comes, then joins (docs/differences.md)",
            ),
            Differs(
                "results.state after",
                js="closed",
                ours="joined",
                why="rests until another token comes, then joins (docs/differences.md)",
            ),
            Differs(
                "statuses.a",
                js=["SUBSCRIBED joined", "CLOSED closed"],
                ours=[
                    "SUBSCRIBED joined",
                    (
                        "CHANNEL_ERROR errored: channel closed by the server: Token has "
                        "expired 3 seconds ago"
                    ),
                    "SUBSCRIBED joined",
                ],
                why="rests until another token comes, then joins (docs/differences.md)",
            ),
        ),
    ),
]

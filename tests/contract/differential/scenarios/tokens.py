"""Tokens: given by hand and by a callback."""

from __future__ import annotations

from ..scenario import Differs, Scenario
from .steps import joined, opening

__all__ = ["SCENARIOS"]

SCENARIOS = [
    Scenario(
        "token-by-hand",
        ("V62", "V63", "Q9", "Q19"),
        [
            ("call", "first", "client", "set_auth", "t1"),
            ("read", "at once", "client", "access_token_value"),
            *joined(),
            ("call", "same", "client", "set_auth", "t1"),
            ("call", "second", "client", "set_auth", "t2"),
            ("server", "expect", "access_token"),
            ("call", "nothing", "client", "set_auth"),
            ("await", "nothing"),
            ("read", "after", "client", "access_token_value"),
            ("channel", "b", "other"),
            ("subscribe", "b"),
            ("status", "b", "SUBSCRIBED"),
        ],
    ),
    Scenario(
        "token-in-the-rejoin",
        ("V63",),
        [
            *joined(),
            ("server", "drop"),
            ("status", "a", "CHANNEL_ERROR"),
            ("call", "auth", "client", "set_auth", "t1"),
            ("status", "a", "SUBSCRIBED", 2),
        ],
    ),
    Scenario(
        "token-callback",
        ("V64", "Q1"),
        [*joined(), ("sleep", 5), ("read", "token", "client", "access_token_value")],
        client={"access_token": {"$tokens": ["t1"], "after": 3}},
        differs=(
            Differs(
                "frames.1",
                js=["phx_join #1", 'access_token #1 {"access_token": "t1"}'],
                ours=['phx_join #1 {"access_token": "t1", "version": "<client>"}'],
                why="a join waits for the token (docs/differences.md); JS joins without (JS §8, 1)",
            ),
        ),
    ),
    Scenario(
        "token-callback-asked-first",
        ("V56",),
        [
            ("call", "auth", "client", "set_auth"),
            ("await", "auth"),
            ("read", "token", "client", "access_token_value"),
            *joined(),
            ("sleep", 0.5),
        ],
        client={"access_token": {"$tokens": ["t1"]}},
    ),
    Scenario(
        "token-callback-fails",
        (),
        [
            ("call", "auth", "client", "set_auth"),
            ("await", "auth"),
            *joined(),
            ("read", "token", "client", "access_token_value"),
        ],
        client={"access_token": {"$tokens": ["t1", "!"]}},
    ),
    Scenario(
        "token-changes-while-joining",
        ("V63",),
        [
            ("server", "hold", "phx_join"),
            *opening(),
            ("server", "expect", "phx_join"),
            ("call", "auth", "client", "set_auth", "t1"),
            ("server", "echo"),
            ("status", "a", "SUBSCRIBED"),
            ("sleep", 0.5),
        ],
        differs=(
            Differs(
                "frames.1",
                js=["phx_join #1"],
                ours=["phx_join #1", 'access_token #1 {"access_token": "t1"}'],
                why=(
                    "a token that changed during the join is told after it; JS never "
                    "tells it (JS §2.5)"
                ),
            ),
        ),
    ),
]

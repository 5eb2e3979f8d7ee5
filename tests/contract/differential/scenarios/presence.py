"""Presence: the state, its differences, track and untrack."""

from __future__ import annotations

from typing import Any

from ..scenario import Differs, Scenario
from .steps import joined, on, opening

__all__ = ["SCENARIOS"]


def meta(ref: str, **rest: Any) -> dict[str, Any]:
    return {"phx_ref": ref, **rest}


def state(**keys: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: {"metas": metas} for key, metas in keys.items()}


def diff(joins: dict[str, Any], leaves: dict[str, Any]) -> dict[str, Any]:
    return {"joins": joins, "leaves": leaves}


ALL = on("presence", "*", "p", reads=True)
SEND_STATE = ("server", "send", "presence_state", state(bob=[meta("1", name="Bob")]))

SCENARIOS = [
    Scenario(
        "presence-events",
        ("V66", "V33"),
        [
            *joined(ALL),
            ("read", "empty", "a", "presence_state"),
            SEND_STATE,
            ("calls", "p", 2),
            ("server", "send", "presence_diff", diff(state(eve=[meta("2")]), {})),
            ("calls", "p", 4),
            (
                "server",
                "send",
                "presence_diff",
                diff({}, state(bob=[meta("1", name="Bob")])),
            ),
            ("calls", "p", 6),
            ("read", "state", "a", "presence_state"),
        ],
    ),
    Scenario(
        "presence-named-handlers",
        ("V66",),
        [
            *joined(
                on("presence", "sync", "sync", reads=True),
                on("presence", "join", "join", reads=True),
                on("presence", "leave", "leave", reads=True),
            ),
            ("server", "send", "presence_state", state(a=[meta("1")], b=[meta("2")])),
            ("calls", "sync"),
            (
                "server",
                "send",
                "presence_diff",
                diff(state(c=[meta("3")]), state(a=[meta("1")])),
            ),
            ("calls", "sync", 2),
        ],
    ),
    Scenario(
        "presence-diff-before-state",
        ("V66",),
        [
            *joined(ALL),
            ("server", "send", "presence_diff", diff(state(eve=[meta("2")]), {})),
            ("sleep", 0.5),
            SEND_STATE,
            ("calls", "p", 3),
        ],
    ),
    Scenario(
        "presence-update",
        ("V65",),
        [
            *joined(ALL),
            SEND_STATE,
            ("calls", "p", 2),
            (
                "server",
                "send",
                "presence_diff",
                diff(
                    state(bob=[meta("2", phx_ref_prev="1", name="Robert")]),
                    state(bob=[meta("1", name="Bob")]),
                ),
            ),
            ("calls", "p", 5),
            ("read", "state", "a", "presence_state"),
        ],
    ),
    Scenario(
        "presence-after-rejoin",
        ("V67", "V33"),
        [
            *joined(ALL),
            ("server", "send", "presence_state", state(a=[meta("1")], b=[meta("2")])),
            ("calls", "p", 3),
            ("server", "drop"),
            ("status", "a", "SUBSCRIBED", 2),
            ("read", "state kept", "a", "presence_state"),
            ("server", "send", "presence_diff", diff(state(d=[meta("4")]), {})),
            ("server", "send", "presence_state", state(b=[meta("2")], c=[meta("3")])),
            ("calls", "p", 7),
            ("call", "left", "a", "unsubscribe"),
            ("await", "left"),
            ("read", "state after", "a", "presence_state"),
        ],
    ),
    Scenario(
        "presence-two-devices",
        ("V65",),
        [
            *joined(ALL),
            ("server", "send", "presence_state", state(bob=[meta("1"), meta("2")])),
            ("calls", "p", 2),
            ("server", "send", "presence_diff", diff({}, state(bob=[meta("1")]))),
            ("calls", "p", 4),
            ("server", "send", "presence_diff", diff({}, state(bob=[meta("2")], x=[meta("9")]))),
            ("calls", "p", 6),
        ],
    ),
    Scenario(
        "presence-odd-keys",
        ("V66",),
        [
            *joined(ALL),
            ("server", "send", "presence_state", state(constructor=[meta("1", toString="x")])),
            ("calls", "p", 2),
        ],
        client={"vsn": "1.0.0"},
    ),
    Scenario(
        "track-and-untrack",
        ("V30", "V35", "A9"),
        [
            *joined(opts={"config": {"presence": {"key": "me", "enabled": True}}}),
            ("call", "tracked", "a", "track", {"online": True}),
            ("await", "tracked"),
            ("call", "untracked", "a", "untrack"),
            ("await", "untracked"),
        ],
    ),
    Scenario(
        "track-before-subscribe",
        ("V31",),
        [
            ("channel", "a", "room"),
            ("call", "tracked", "a", "track", {"x": 1}),
            ("await", "tracked"),
        ],
    ),
    Scenario(
        "track-while-joining",
        ("V32", "V56"),
        [
            ("server", "hold", "phx_join"),
            *opening(),
            ("call", "tracked", "a", "track", {"x": 1}),
            ("server", "expect", "phx_join"),
            ("server", "echo"),
            ("await", "tracked"),
        ],
    ),
    Scenario(
        "track-while-disconnected",
        ("V32",),
        [
            *joined(),
            ("server", "drop"),
            ("status", "a", "CHANNEL_ERROR"),
            ("call", "tracked", "a", "track", {"x": 1}),
            ("await", "tracked"),
            ("status", "a", "SUBSCRIBED", 2),
        ],
    ),
    Scenario(
        "track-unanswered",
        ("V35",),
        [
            ("server", "hold", "presence"),
            *joined(),
            ("call", "tracked", "a", "track", {"x": 1}, {"timeout": {"$seconds": 1}}),
            ("await", "tracked"),
        ],
    ),
    Scenario(
        "track-refused",
        ("V35",),
        [
            ("server", "hold", "presence"),
            *joined(),
            ("call", "tracked", "a", "track", {"x": 1}),
            ("server", "expect", "presence"),
            ("server", "reply", "error", {"reason": "no"}),
            ("await", "tracked"),
        ],
    ),
    Scenario(
        "tracked-again-after-rejoin",
        (),
        [
            *joined(),
            ("call", "tracked", "a", "track", {"x": 1}),
            ("await", "tracked"),
            ("server", "drop"),
            ("status", "a", "SUBSCRIBED", 2),
            ("sleep", 0.5),
        ],
        differs=(
            Differs(
                "frames.2",
                js=["phx_join #2"],
                ours=[
                    "phx_join #2",
                    'presence #2 {"event": "track", "payload": {"x": 1}, "type": "presence"}',
                ],
                why="the last payload is tracked again after a rejoin (api.md, Channel)",
            ),
        ),
    ),
    Scenario(
        "tracked-twice-alike",
        (),
        [
            *joined(),
            ("call", "first", "a", "track", {"x": 1}),
            ("await", "first"),
            ("call", "second", "a", "track", {"x": 1}),
            ("await", "second"),
        ],
        differs=(
            Differs(
                "frames.1",
                js=[
                    "phx_join #1",
                    'presence #1 {"event": "track", "payload": {"x": 1}, "type": "presence"}',
                    'presence #1 {"event": "track", "payload": {"x": 1}, "type": "presence"}',
                ],
                ours=[
                    "phx_join #1",
                    'presence #1 {"event": "track", "payload": {"x": 1}, "type": "presence"}',
                ],
                why="an identical track within one join needs no frame (api.md, Channel)",
            ),
        ),
    ),
    Scenario(
        "requests-overflow",
        ("V70", "Q3"),
        [
            ("server", "hold", "phx_join"),
            *opening(),
            *(
                ("call", f"c{n}", "a", "send", {"type": "postgres_changes", "event": "x", "n": n})
                for n in range(101)
            ),
            ("server", "expect", "phx_join"),
            ("server", "hold", "postgres_changes"),
            ("server", "echo"),
            ("status", "a", "SUBSCRIBED"),
            ("server", "count", "postgres_changes", 100),
        ],
        client={"logger": {"$logger": "discarded"}},
        differs=(
            Differs(
                "results.c0",
                js="pending",
                ours={"value": "error"},
                why="what is dropped ends 'error'; in JS it never settles (JS §8, 3)",
            ),
        ),
    ),
]

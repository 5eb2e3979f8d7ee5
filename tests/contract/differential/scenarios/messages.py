"""Broadcasts and other messages that arrive."""

from __future__ import annotations

from ..scenario import Differs, Scenario
from .steps import heard, joined, on

__all__ = ["SCENARIOS"]

V1 = {"vsn": "1.0.0"}


def _broadcasts(vsn: str) -> Scenario:
    events = ("MiXed", "mixed", "other", "")
    return Scenario(
        f"broadcast-matching-vsn-{vsn[0]}",
        ("V21", "Q17"),
        [
            *joined(
                on("broadcast", "mixed", "named"),
                on("broadcast", "*", "any"),
                on("broadcast", "mixed", "named too"),
            ),
            *(("server", "broadcast", event, {"n": number}) for number, event in enumerate(events)),
            ("calls", "any", len(events)),
        ],
        client={"vsn": vsn},
    )


SCENARIOS = [
    _broadcasts("2.0.0"),
    _broadcasts("1.0.0"),
    Scenario(
        "broadcast-without-event",
        ("V21",),
        [
            *joined(
                on("broadcast", {}, "no event"),
                on("broadcast", "*", "any"),
                on("broadcast", "e", "named"),
            ),
            ("server", "send", "broadcast", {"type": "broadcast", "payload": {"n": 1}}),
            ("server", "broadcast", "e", {"n": 2}),
            ("calls", "named"),
        ],
        differs=(
            Differs(
                "calls",
                js=[
                    {"handler": "no event", "payload": {"type": "broadcast", "payload": {"n": 1}}},
                    {"handler": "any", "payload": {"type": "broadcast", "payload": {"n": 1}}},
                    heard("any", {"n": 2}),
                    heard("named", {"n": 2}),
                ],
                ours=[
                    heard("any", {"n": 1}, event=None),
                    heard("any", {"n": 2}),
                    heard("named", {"n": 2}),
                ],
                why="our payloads have all their keys, and a handler names its event",
            ),
            Differs(
                "results.on no event",
                js=None,
                ours={"error": "the filter of 'broadcast' needs 'event', as in {\"event\": \"*\"}"},
                why="a filter without an event raises at once (docs/differences.md)",
            ),
        ),
    ),
    Scenario(
        "handlers-get-arguments",
        ("V19", "Q18"),
        [
            *joined(on("broadcast", "e", "h", counts=True)),
            ("server", "broadcast", "e", {"n": 1}),
            ("calls", "h"),
        ],
        differs=(
            Differs(
                "calls",
                js=[
                    {
                        "handler": "h",
                        "payload": {"type": "broadcast", "event": "e", "payload": {"n": 1}},
                        "args": 3,
                    }
                ],
                ours=[
                    {
                        "handler": "h",
                        "payload": {"type": "broadcast", "event": "e", "payload": {"n": 1}},
                        "args": 1,
                    }
                ],
                why="zero or one positional argument (api.md, Channel)",
            ),
        ),
    ),
    Scenario(
        "type-in-other-case",
        ("V22", "Q17"),
        [
            *joined(on("BROADCAST", "e")),
            ("server", "broadcast", "e", {"n": 1}),
            ("sleep", 1),
        ],
        differs=(
            Differs(
                "calls",
                js=[],
                ours=[heard("h", {"n": 1})],
                why="the type is known in any case; in JS such a handler never fires (JS §8, 17)",
            ),
        ),
    ),
    Scenario(
        "payloads-of-any-kind",
        (),
        [
            *joined(on("broadcast", "e")),
            ("server", "broadcast", "e", [1, "two", None]),
            ("server", "broadcast", "e", "text"),
            ("server", "broadcast", "e", None),
            ("server", "broadcast", "e", {"deep": {"er": [{}, [], 1.5, True]}}),
            ("server", "broadcast", "e", {"n": 1}, {"id": "x", "replayed": False}),
            ("calls", "h", 5),
        ],
    ),
    Scenario(
        "payloads-of-any-kind-vsn-1",
        (),
        [
            *joined(on("broadcast", "e")),
            ("server", "broadcast", "e", [1, "two", None]),
            ("server", "broadcast", "e", "text"),
            ("server", "broadcast", "e", {"n": 1}, {"id": "x", "replayed": True}),
            ("calls", "h", 3),
        ],
        client=V1,
    ),
    Scenario(
        "binary-broadcast",
        ("V40", "A11"),
        [
            *joined(on("broadcast", "e")),
            ("server", "broadcast", "e", {"bytes": "00ff10"}),
            ("server", "broadcast", "e", {"bytes": ""}, {"id": "x"}),
            ("calls", "h", 2),
        ],
    ),
    Scenario(
        "database-broadcast",
        (),
        [
            *joined(on("broadcast", "INSERT"), opts={"config": {"private": True}}),
            (
                "server",
                "broadcast",
                "INSERT",
                {"id": "1", "operation": "INSERT", "record": {"id": 1}, "old_record": None},
            ),
            ("calls", "h"),
        ],
    ),
    Scenario(
        "foreign-messages",
        ("V71", "V78"),
        [
            *joined(on("broadcast", "*")),
            ("server", "send", "broadcast", {"event": "e"}, {"topic": "realtime:unknown"}),
            ("server", "send", "broadcast", {"event": "stale"}, {"join_ref": "99"}),
            ("server", "send", "unheard_of", {"event": "e"}),
            ("server", "send", "phx_reply", {"status": "ok", "response": {}}, {"ref": "77"}),
            ("server", "send", "broadcast", {"type": "broadcast", "event": "e", "payload": 1}),
            ("calls", "h"),
        ],
    ),
    Scenario(
        "handler-added-after-join",
        (),
        [
            *joined(),
            ("server", "broadcast", "e", {"n": 1}),
            ("sleep", 3),
            on("broadcast", "e"),
            ("server", "broadcast", "e", {"n": 2}),
            ("calls", "h"),
        ],
    ),
    Scenario(
        "system-messages",
        ("V83",),
        [
            *joined(on("system", {}, "one"), on("system", {}, "two")),
            (
                "server",
                "send",
                "system",
                {"extension": "system", "status": "ok", "message": "m", "channel": "room"},
            ),
            ("calls", "two"),
        ],
    ),
]

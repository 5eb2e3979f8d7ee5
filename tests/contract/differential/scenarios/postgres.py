"""Database changes: bindings, matching, payloads, columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..scenario import Differs, Scenario
from .steps import joined, on, opening

__all__ = ["SCENARIOS"]

ALL = {"event": "*", "schema": "public", "table": "t"}
COLUMNS = [
    ("id", "int8"),
    ("name", "text"),
    ("flag", "bool"),
    ("score", "numeric"),
    ("ratio", "float8"),
    ("doc", "jsonb"),
    ("made", "timestamp"),
    ("tags", "_text"),
    ("nums", "_int4"),
    ("span", "int4range"),
]


def change(kind: str, *ids: int, errors: Any = None, **rows: Any) -> tuple[Any, ...]:
    data = {
        "schema": "public",
        "table": "t",
        "commit_timestamp": "2026-01-01T00:00:00Z",
        "type": kind,
        "columns": [{"name": name, "type": type} for name, type in COLUMNS],
        "errors": errors,
        **rows,
    }
    return ("server", "send", "postgres_changes", {"ids": list(ids), "data": data})


def _events(vsn: str) -> Scenario:
    return Scenario(
        f"changes-vsn-{vsn[0]}",
        ("V86",),
        [
            *joined(
                on("postgres_changes", ALL, "all"),
                on("postgres_changes", {**ALL, "event": "INSERT"}, "insert"),
                on("postgres_changes", {**ALL, "event": "DELETE"}, "delete"),
            ),
            change("INSERT", 1000, 1001, record={"id": 1, "name": "x"}),
            change("UPDATE", 1000, record={"id": 1, "name": "y"}, old_record={"id": 1}),
            change("DELETE", 1000, 1002, old_record={"id": 1}),
            change("DELETE", 1001, old_record={"id": 2}),
            change("INSERT", 7, record={"id": 3}),
            change("TRUNCATE", 1000),
            change("INSERT", 1000, errors=["Error 413: Payload Too Large"], record={}),
            ("calls", "all", 5),
        ],
        client={"vsn": vsn},
    )


def _mismatch(id: str, *entries: dict[str, Any]) -> Scenario:
    return Scenario(
        id,
        ("V51", "V84"),
        [
            ("server", "hold", "phx_join"),
            *opening(on("postgres_changes", {**ALL, "filter": "id=eq.1"})),
            ("server", "expect", "phx_join"),
            ("server", "reply", "ok", {"postgres_changes": list(entries)}),
            ("server", "expect", "phx_leave"),
            ("sleep", 0.5),
            ("read", "channels", "client", "channels"),
        ],
        rules=("mismatch-state",),
    )


def _converted(about: str, covers: tuple[str, ...], /, **row: Any) -> Scenario:
    return Scenario(
        about,
        covers,
        [
            *joined(on("postgres_changes", ALL)),
            change("INSERT", 1000, record=row),
            ("calls", "h"),
        ],
    )


def _inserted(**row: Any) -> list[dict[str, Any]]:
    payload = {
        "schema": "public",
        "table": "t",
        "commit_timestamp": "2026-01-01T00:00:00Z",
        "eventType": "INSERT",
        "new": row,
        "old": {},
        "errors": None,
    }
    return [{"handler": "h", "payload": payload}]


SCENARIOS = [
    _events("2.0.0"),
    _events("1.0.0"),
    _mismatch("mismatch-of-event", {"id": 1, **ALL, "event": "INSERT", "filter": "id=eq.1"}),
    _mismatch("mismatch-of-filter", {"id": 1, **ALL}),
    Scenario(
        "reply-without-bindings",
        ("V85",),
        [
            ("server", "hold", "phx_join"),
            *opening(on("postgres_changes", ALL)),
            ("server", "expect", "phx_join"),
            ("server", "reply"),
            ("status", "a", "SUBSCRIBED"),
        ],
    ),
    Scenario(
        "ids-change-with-a-rejoin",
        (),
        [
            ("server", "hold", "phx_join"),
            *opening(on("postgres_changes", ALL)),
            ("server", "expect", "phx_join"),
            ("server", "reply", "ok", {"postgres_changes": [{"id": 1, **ALL}]}),
            ("status", "a", "SUBSCRIBED"),
            ("server", "drop"),
            ("server", "expect", "phx_join"),
            ("server", "reply", "ok", {"postgres_changes": [{"id": 2, "filter": None, **ALL}]}),
            ("status", "a", "SUBSCRIBED", 2),
            change("INSERT", 1, record={"id": 1}),
            change("INSERT", 2, record={"id": 2}),
            ("calls", "h"),
        ],
    ),
    Scenario(
        "filters-on-the-wire",
        ("A6", "A7", "A8"),
        joined(
            on("postgres_changes", {**ALL, "filter": "a=eq.1,b=not.in.(x,y)"}, "h1"),
            on("postgres_changes", {**ALL, "select": ["id", "name"]}, "h2"),
            on(
                "postgres_changes",
                {
                    **ALL,
                    "filter": {
                        "$filter": [
                            ["gt", "amount", 100],
                            ["in", "status", ["new", "a,b", "new"]],
                            ["is", "gone", None],
                            ["not", "name", "like", "%x%"],
                        ]
                    },
                },
                "h3",
            ),
        ),
    ),
    Scenario(
        "equal-bindings",
        (),
        [
            *joined(
                on("postgres_changes", ALL, "first"), on("postgres_changes", dict(ALL), "second")
            ),
            change("INSERT", 1000, record={"id": 1}),
            ("calls", "first"),
            ("sleep", 0.5),
        ],
        differs=(
            Differs(
                "calls",
                js=[
                    {
                        "handler": "first",
                        "payload": {
                            "schema": "public",
                            "table": "t",
                            "commit_timestamp": "2026-01-01T00:00:00Z",
                            "eventType": "INSERT",
                            "new": {"id": 1},
                            "old": {},
                            "errors": None,
                        },
                    }
                ],
                ours=[
                    {
                        "handler": "first",
                        "payload": {
                            "schema": "public",
                            "table": "t",
                            "commit_timestamp": "2026-01-01T00:00:00Z",
                            "eventType": "INSERT",
                            "new": {"id": 1},
                            "old": {},
                            "errors": None,
                        },
                    },
                    {
                        "handler": "second",
                        "payload": {
                            "schema": "public",
                            "table": "t",
                            "commit_timestamp": "2026-01-01T00:00:00Z",
                            "eventType": "INSERT",
                            "new": {"id": 1},
                            "old": {},
                            "errors": None,
                        },
                    },
                ],
                why="equal bindings share one entry and every handler fires (api.md, Channel)",
            ),
        ),
    ),
    _converted(
        "columns",
        (),
        id="12",
        name="12",
        flag="t",
        score="1.5",
        ratio="-0.25",
        doc='{"a": [1]}',
        made="2019-09-10 00:00:00",
        tags="{a,b}",
        nums="{1,2}",
        span="[1,2)",
    ),
    _converted("columns-not-strings", (), id=12, flag=True, score=1.5, doc={"a": 1}, name=None),
    replace(
        _converted("columns-numbers", ("V87", "Q15"), id="9007199254740993", score="1.10"),
        differs=(
            Differs(
                "calls",
                js=_inserted(id=9007199254740992, score=1.1),
                ours=_inserted(id=9007199254740993, score=1.1),
                why="integers of any size are exact (api.md, Payloads); JS has doubles only",
            ),
        ),
    ),
    _converted("columns-no-numbers", ("V87",), id="12abc", score="NaN", flag="x", doc="{"),
    _converted("columns-arrays", ("V88",), tags="{a,NULL}", nums="{}"),
    Scenario(
        "duplicate-is-logged",
        (),
        [
            *joined(
                on("postgres_changes", ALL, "first"), on("postgres_changes", dict(ALL), "second")
            ),
        ],
        client={"logger": {"$logger": "duplicate `"}},
        differs=(
            Differs(
                "logs",
                js=[["error", "duplicate `postgres_changes` binding for realtime:room ignored"]],
                ours=[],
                why="nothing is ignored, so nothing is logged",
            ),
        ),
    ),
]

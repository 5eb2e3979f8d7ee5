"""Sending broadcasts, over the socket and over HTTP."""

from __future__ import annotations

from typing import Any

from ..scenario import Differs, Scenario
from .steps import ACK, PRIVATE, joined, opening

__all__ = ["SCENARIOS"]


def message(payload: Any = None, event: str = "e", **more: Any) -> dict[str, Any]:
    found = {"type": "broadcast", "event": event, **more}
    return found if payload is None else {**found, "payload": payload}


def send(result: str, *args: Any) -> tuple[Any, ...]:
    return ("call", result, "a", "send", *args)


SCENARIOS = [
    Scenario(
        "send-joined",
        ("V40", "V35", "A11"),
        [
            *joined(),
            send("object", message({"a": 1})),
            send("list", message([1, 2])),
            send("none", message()),
            send("bytes", message({"$bytes": "00ff"})),
            ("await", "bytes"),
            ("server", "count", "broadcast", 4),
        ],
    ),
    Scenario(
        "send-joined-vsn-1",
        ("V41", "V35"),
        [
            *joined(),
            send("object", message({"a": 1})),
            send("none", message()),
            ("await", "none"),
            ("server", "count", "broadcast", 2),
        ],
        client={"vsn": "1.0.0"},
    ),
    Scenario(
        "send-with-ack",
        ("V35",),
        [
            *joined(opts=ACK),
            send("ok", message({"n": 1})),
            ("await", "ok"),
            ("server", "hold", "broadcast"),
            send("refused", message({"n": 2})),
            ("server", "expect", "broadcast"),
            ("server", "expect", "broadcast"),
            ("server", "reply", "error", {"reason": "no"}),
            ("await", "refused"),
            send("late", message({"n": 3}), {"timeout": {"$seconds": 1}}),
            ("await", "late"),
        ],
    ),
    Scenario(
        "send-while-joining",
        ("V34", "V36", "V18"),
        [
            ("server", "hold", "phx_join"),
            *opening(),
            send("sent", message({"n": 1})),
            ("await", "sent"),
            ("server", "expect", "phx_join"),
            ("server", "echo"),
            ("status", "a", "SUBSCRIBED"),
            ("sleep", 0.5),
        ],
    ),
    Scenario(
        "send-before-subscribe",
        ("V34", "V36", "V13", "V5"),
        [
            ("channel", "a", "realtime:x", PRIVATE),
            ("call", "auth", "client", "set_auth", "token"),
            send("sent", message({"n": 1})),
            ("await", "sent"),
            send("without payload", message()),
            ("await", "without payload"),
        ],
    ),
    Scenario(
        "fallback-warning",
        ("A12",),
        [("channel", "a", "room"), send("sent", message({"n": 1})), ("await", "sent")],
        client={"logger": {"$logger": "falling back"}},
    ),
    Scenario(
        "send-over-http-fails",
        ("V36",),
        [
            ("channel", "a", "room"),
            ("server", "answer", {"status": 500}),
            send("refused", message({"n": 1})),
            ("await", "refused"),
            ("server", "answer", {"status": 200, "hang": True}),
            send("late", message({"n": 2}), {"timeout": {"$seconds": 1}}),
            ("await", "late"),
        ],
    ),
    Scenario(
        "send-while-disconnected",
        ("V34",),
        [
            *joined(),
            ("call", "gone", "client", "disconnect"),
            ("await", "gone"),
            send("sent", message({"n": 1})),
            ("await", "sent"),
        ],
        rules=("close-code",),
    ),
    Scenario(
        "persist-acknowledged",
        ("V2", "A2"),
        [
            ("server", "hold", "broadcast"),
            *joined(opts={"config": {"private": True, "broadcast": {"ack": True}}}),
            send("stored", message({"n": 1}, persist=True)),
            ("server", "expect", "broadcast"),
            ("server", "reply", "error", {"error": "cannot store"}),
            ("await", "stored"),
            send("for a while", message({"n": 1}, persist={"ttl": 60})),
            ("server", "expect", "broadcast"),
            ("server", "reply"),
            ("await", "for a while"),
        ],
    ),
    Scenario(
        "persist-where-it-cannot-be",
        ("V2", "V38", "A2", "A3"),
        [
            *joined(),
            send("public", message({"n": 1}, persist=True)),
            ("await", "public"),
            ("channel", "b", "secret", PRIVATE),
            ("call", "not joined", "b", "send", message({"n": 1}, persist=True)),
            ("await", "not joined"),
            ("call", "http", "a", "http_send", "e", {"n": 1}, {"persist": True}),
            ("await", "http"),
        ],
    ),
    Scenario(
        "persist-vsn-1",
        ("V2", "A2"),
        [
            *joined(opts=PRIVATE),
            send("stored", message({"n": 1}, persist=True)),
            ("await", "stored"),
        ],
        client={"vsn": "1.0.0"},
    ),
    Scenario(
        "http-send",
        ("V37", "V18"),
        [
            ("channel", "a", "room:42"),
            ("call", "sent", "a", "http_send", "user/joined now", {"n": 1}),
            ("await", "sent"),
            ("call", "list", "a", "http_send", "e", [1]),
            ("await", "list"),
            ("call", "bytes", "a", "http_send", "e", {"$bytes": "00ff"}),
            ("await", "bytes"),
        ],
    ),
    Scenario(
        "http-send-private",
        ("V37", "A3"),
        [
            ("call", "auth", "client", "set_auth", "token"),
            ("channel", "a", "room", PRIVATE),
            ("call", "sent", "a", "http_send", "e", {"n": 1}),
            ("await", "sent"),
            ("call", "stored", "a", "http_send", "e", {"n": 1}, {"persist": True}),
            ("await", "stored"),
            ("call", "for a while", "a", "http_send", "e", 1, {"persist": {"ttl": 60}}),
            ("await", "for a while"),
        ],
    ),
    Scenario(
        "http-send-fails",
        (),
        [
            ("channel", "a", "room"),
            ("call", "nothing", "a", "http_send", "e", None),
            ("await", "nothing"),
            ("server", "answer", {"status": 500, "body": {"error": "broken"}}),
            ("call", "error", "a", "http_send", "e", 1),
            ("await", "error"),
            ("server", "answer", {"status": 422, "body": {"message": "wrong"}}),
            ("call", "message", "a", "http_send", "e", 1),
            ("await", "message"),
            ("server", "answer", {"status": 503, "text": "<p>", "reason": "Busy"}),
            ("call", "text", "a", "http_send", "e", 1),
            ("await", "text"),
            ("server", "answer", {"status": 404, "body": {}}),
            ("call", "missing", "a", "http_send", "e", 1),
            ("await", "missing"),
            ("server", "answer", {"status": 202, "hang": True}),
            ("call", "late", "a", "http_send", "e", 1, {"timeout": {"$seconds": 1}}),
            ("await", "late"),
        ],
        differs=(
            Differs(
                "results.late",
                js={"error": "This operation was aborted"},
                ours={"error": "no answer within 0.2 s"},
                why="TimedOut with a text of our own; JS gives fetch's AbortError",
            ),
            Differs(
                "results.missing",
                js={
                    "error": (
                        "httpSend() requires Realtime server v2.97.0 or newer; the "
                        "endpoint returned 404. Update your Supabase CLI to a recent "
                        "version, or upgrade the Realtime server in your self-hosted "
                        "setup. See "
                        "https://github.com/supabase/supabase-js/blob/master/packages/core/realtime-js/migrations/httpsend-server-version.md"
                    )
                },
                ours={
                    "error": (
                        "httpSend() requires Realtime server v2.97.0 or newer; the "
                        "endpoint returned 404. (Not Found)"
                    )
                },
                why="our text names the server's reason instead of a link for JavaScript",
            ),
        ),
    ),
]

"""Random schedules of faults, each made from one seed."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from .wsframes import BINARY, CLOSE, PING, PONG, TEXT

__all__ = ["JUNK", "Step", "make_schedule"]

Junk = tuple[int, bytes, int]
"""Opcode, content, and bits to set in the first byte."""

JUNK: tuple[Junk, ...] = (
    *((TEXT, text, 0) for text in (b"", b"null", b"[]", b"{}", b"[1,2,3,4,5]", b"not json")),
    (TEXT, b"[" * 10_000, 0),
    (TEXT, b"\xff\xfe\x00", 0),
    (TEXT, b'[null,null,"realtime:room-0","broadcast",null]', 0),
    (TEXT, b'[null,null,"realtime:room-0","postgres_changes",{"ids":[1],"data":7}]', 0),
    (TEXT, b'[null,"999999","realtime:room-0","phx_reply",{"status":"ok","response":{}}]', 0),
    (TEXT, b'["999999","999999","realtime:room-0","phx_close",{}]', 0),
    (TEXT, b'[null,null,"realtime:nobody","phx_error",{}]', 0),
    (TEXT, b'{"topic":"realtime:room-0","event":"surprise","payload":{},"ref":null}', 0),
    (BINARY, b"", 0),
    (BINARY, b"\x04\xff\xff", 0),
    (BINARY, b"\x09nonsense", 0),
    (PING, b"are you there", 0),
    (PONG, b"nobody asked", 0),
    # From here on the faults break the protocol itself, and so the link.
    (0x3, b"reserved", 0),
    (TEXT, b"bits", 0x40),
    (CLOSE, b"\x03", 0),
)

CODES = (None, 1000, 1001, 1002, 1007, 1011, 1012, 1013, 4000)
STATUSES = (429, 500, 502, 503, "reset", "hang")
SPOILS = ("duplicate", "drop", "half", "utf8", "bits", "cut")
REFUSALS = (
    "UnableToConnectToProject: Realtime was unable to connect to the project database",
    "RpcError: the node is gone",
    "ClientJoinRateLimitReached: Too many joins per second",
)
CAUSES = (None, "Too many messages per second", "Something nobody has heard of")


class Step(NamedTuple):
    """After ``pause`` seconds, call the method ``name`` of ``LabFaults``."""

    pause: float
    name: str
    arguments: tuple[Any, ...] = ()


def _arguments(name: str, rng: random.Random) -> tuple[Any, ...]:
    seconds = round(rng.choice((rng.uniform(0, 3), rng.uniform(0, 40), rng.uniform(30, 150))), 2)
    way = rng.choice(("up", "down"))
    match name:
        case "stall":
            return (rng.choice((("up", "down"), ("up",), ("down",))), rng.random() < 0.5, seconds)
        case "outage" | "deaf" | "restart" | "rest":
            return (seconds,)
        case "token":
            return (rng.choice(("raises", "hangs", "is None", "is cancelled")), seconds)
        case "refuse":
            return (rng.choice(STATUSES), seconds)
        case "latency":
            return (way, round(rng.uniform(0, 4), 2))
        case "bandwidth":
            return (way, rng.randrange(300, 5000))
        case "spoil":
            return (way, rng.choice(SPOILS), rng.randrange(1, 4))
        case "inject":
            return (rng.choice(JUNK),)
        case "close":
            return (rng.choice(CODES),)
        case "end_join":
            return (rng.randrange(3), rng.choice(("phx_close", "phx_error")))
        case "server_ends":
            return (rng.randrange(3), rng.random() < 0.5, rng.choice(CAUSES))
        case "refuse_join":
            return (rng.choice(REFUSALS), rng.randrange(1, 4))
        case "burst":
            return (rng.randrange(10, 80),)
        case "send" | "track":
            return (rng.randrange(3),)
    return ()


WEIGHTS = {
    "reset": 3,
    "fin": 2,
    "close": 3,
    "stall": 5,
    "outage": 2,
    "refuse": 2,
    "latency": 2,
    "bandwidth": 1,
    "spoil": 5,
    "inject": 4,
    "end_join": 2,
    "server_ends": 3,
    "shut_down": 1,
    "deaf": 1,
    "restart": 2,
    "refuse_join": 2,
    "burst": 3,
    "send": 3,
    "track": 1,
    "token": 2,
    "rest": 2,
    "cancel": 1,
}


def make_schedule(seed: int) -> list[Step]:
    """Returns the steps of this seed: 3 to 14, some close together and some far apart."""
    rng = random.Random(seed)
    names = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=rng.randrange(3, 15))
    steps = []
    for name in names:
        pause = rng.choice((0.0, rng.uniform(0, 0.1), rng.uniform(0, 5), rng.uniform(0, 60)))
        steps.append(Step(round(pause, 3), name, _arguments(name, rng)))
    return steps

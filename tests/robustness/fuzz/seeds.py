"""The inputs that a fuzzer starts from: recorded frames, and one example of each grammar."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["seeds"]

RECORDINGS = Path(__file__).parents[2] / "contract" / "recordings"
LONGEST = 1500
EVENTS = ("broadcast", "postgres_changes", "presence_diff")

WRITTEN: dict[str, tuple[bytes, ...]] = {
    "roundtrip": (b"\x01\x14realtime:roomabcdefgh\x02\x00\x07\x02\x04\x05",),
    "cells": (
        b"\x00\x07-12.5e3",
        b"\x00\x092026-01-02T03:04:05.678+00:00",
        b"\x00\x0c04:05:06+02",
        b"\x00\x0d0f8fad5b-d9cb-469f-a165-70867728950e",
        b"\x00\x0e\\x00ff",
        b'\x00\x10{"a":[1,2]}',
        b'\x01\x07{1,NULL,"2.5"}',
        b"\x01\x12{(1,2),(3,4);(0,0),(1,1)}",
    ),
    "model": (
        b'\x01\x11\x07\x09{"id":1,"title":"t","price":1.25,"at":"2026-01-02T03:04:05Z","tags":["a"],"meta":{}}',
        b'\x01\x11\x07\x08{"id":"1","price":"2.5","at":"2026-01-02 03:04:05+00","tags":"{a,b}"}',
    ),
    "array": (b'\x00[0:1][-3:-2]={{1,NULL},{"a\\"b",c}}', b"\x01{(1,1);(0,0)}", b"\x00{}"),
    "filter_builder": (b'\x02\x00\x17realtime "a,b" (c) \\d ef\x00',),
    "filter_parser": (
        b'room=eq."a,b",n=gt.3',
        b'id=in.(1,"a,b",3),name=not.like.%x_',
        b'a=is.null,b=isdistinct.true,c=imatch.^(x|y)"',
    ),
    "rest_query": (
        b"select=id,name:title&id=gt.3&order=id.desc.nullslast,a&limit=10&offset=2",
        b"and=(id.gt.1,or(a.eq.x,not.and(b.is.null,c.in.(1,2))))",
    ),
    "pgoutput_message": (
        b"B" + bytes(20),
        b"R\x00\x00\x00\x01public\x00t\x00d\x00\x01\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff",
        b"I\x00\x00\x00\x01N\x00\x02t\x00\x00\x00\x011n",
        b"U\x00\x00\x00\x01O\x00\x01t\x00\x00\x00\x011N\x00\x01u",
        b"T\x00\x00\x00\x01\x00\x00\x00\x00\x01",
    ),
    "token": (b"eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDB9.c2ln", b"sb_publishable_x"),
    "address": (b"\x01\x02\x03https://user:pw@x.supabase.co:1/base/?apikey=1#x",),
    "edge": (
        b'\x00{"type":"broadcast","event":"e","payload":{"a":1},"meta":{"id":"x"}}',
        b'\x00{"type":"broadcast","event":"e","payload":"AAE=","encoding":"base64"}',
        b'\x01{"extension":"system","status":"ok","message":"m","channel":"c"}',
        b'\x02{"schema":"s","table":"t","commit_timestamp":null,"eventType":"INSERT"}',
        b'\x02{"schema":null,"table":null,"commit_timestamp":null,"eventType":"DELETE","new":{}}',
    ),
    "presences": (b"\x00\x01\x00\x01\x00\x05\x01\x01\x01\x02\x01\x07\x01\x00\x01\x00\x05",),
}  # fmt: skip


def _frames() -> Iterator[tuple[str, Any]]:
    """Every short frame that was recorded, with its direction."""
    for path in sorted(RECORDINGS.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            found = json.loads(line) if line else {}
            if found.get("dir") in ("send", "recv") and len(found.get("text", "")) <= LONGEST:
                if "text" in found:
                    yield found["dir"], found["text"]
                elif "hex" in found:
                    yield found["dir"], bytes.fromhex(found["hex"])


def _of_text(frame: str) -> Iterator[tuple[str, bytes]]:
    try:
        found = json.loads(frame)
    except ValueError:
        found = None
    yield "text", bytes([isinstance(found, list)]) + frame.encode()
    if not isinstance(found, list) or len(found) != 5:
        return
    event, payload = found[3], found[4]
    if event in EVENTS:
        yield "short_way", bytes([EVENTS.index(event)]) + frame.encode()
    kind = {"broadcast": 0, "system": 1, "postgres_changes": 2}.get(event)
    if kind is not None:
        yield "payloads", bytes([kind, 1]) + json.dumps(payload).encode()
    if event == "postgres_changes" and isinstance(payload, dict):
        data = payload.get("data", {})
        columns = json.dumps(data.get("columns"), separators=(",", ":")).encode()
        if len(columns) < 256:
            yield (
                "rows",
                bytes([1, len(columns)]) + columns + json.dumps(data.get("record")).encode(),
            )


def seeds(target: str) -> list[bytes]:
    """Returns the inputs that ``target`` starts from, without repetition."""
    found = dict.fromkeys(WRITTEN.get(target, ()))
    for direction, frame in _frames():
        if isinstance(frame, str):
            found |= {data: None for name, data in _of_text(frame) if name == target}
        raw = frame.encode() if isinstance(frame, str) else frame
        is_text = isinstance(frame, str)
        if target == "binary" and not is_text:
            found[raw] = None
        elif target == "server" and direction == "send" and len(raw) < 256:
            found[bytes([1, 0 if is_text else 1, len(raw)]) + raw] = None
        elif target == "session" and direction == "recv" and len(raw) < 256:
            found[bytes([0, 0, 6, is_text, len(raw)]) + raw] = None
    return list(found)

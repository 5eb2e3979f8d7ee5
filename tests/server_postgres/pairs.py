"""Compares decoded frames whose ids, references and times differ from run to run."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["Pairs", "loads", "read_kind_4", "stream"]

TIMES = {"commit_timestamp", "inserted_at"}
NAMES = {"id", "phx_ref", "phx_ref_prev"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FANNED_OUT = {"broadcast", "presence_diff", "postgres_changes"}


def loads(text: str | bytes) -> Any:
    """Decode JSON with numbers as texts, so that 1.50 is not 1.5."""
    return json.loads(text, parse_float=str, parse_int=lambda digits: f"int {digits}")


def read_kind_4(data: bytes) -> list[Any]:
    """Split a binary broadcast of the server: topic, event, metadata, encoding, body."""
    assert data[0] == 4
    fields, start = [], 5
    for length in data[1:4]:
        fields.append(data[start : start + length])
        start += length
    meta = loads(fields[2]) if fields[2] else None
    body = loads(data[start:]) if data[4] == 1 else data[start:]
    return [fields[0].decode(), fields[1].decode(), meta, data[4], body]


def stream(frame: str | bytes) -> tuple[str, str]:
    """Returns the stream that a frame belongs to; frames of one stream have an order.

    The frames of one channel process are one stream of a topic. Frames for many receivers take
    different ways, one for each kind. The real server does not order these ways.
    """
    if isinstance(frame, bytes):
        return str(read_kind_4(frame)[0]), "broadcast"
    found = json.loads(frame)
    topic, event = found[2:4] if isinstance(found, list) else (found["topic"], found["event"])
    return topic, event if event in FANNED_OUT else "channel"


class Pairs:
    """The map from recorded names to ours; each has exactly one."""

    def __init__(self) -> None:
        self._ours: dict[str, str] = {}
        self._theirs: dict[str, str] = {}

    def same_frame(self, theirs: str | bytes, ours: str | bytes) -> bool:
        """Returns True if our frame equals the recorded one."""
        if isinstance(theirs, bytes) or isinstance(ours, bytes):
            both = isinstance(theirs, bytes) and isinstance(ours, bytes)
            return both and self.match(read_kind_4(theirs), read_kind_4(ours))  # type: ignore[arg-type]
        return self.match(loads(theirs), loads(ours))

    def _same(self, theirs: str, ours: str) -> bool:
        return (
            self._ours.setdefault(theirs, ours) == ours
            and self._theirs.setdefault(ours, theirs) == theirs
        )

    def match(self, theirs: Any, ours: Any, name: str = "", table: object = None) -> bool:
        """Returns True if two decoded values are equal; ``name`` is their key."""
        if theirs is None or type(theirs) is not type(ours):
            return theirs is ours
        if name == "ids":
            known = {self._ours.get(f"None id {each}") for each in theirs}
            return len(theirs) == len(ours) and known == {f"None id {each}" for each in ours}
        if name in NAMES:
            # Rows of different tables may have the same number.
            return self._same(f"{table} {name} {theirs}", f"{table} {name} {ours}")
        if name in TIMES:
            return re.sub(r"\d+", "0", ours) == re.sub(r"\d+", "0", theirs)
        if isinstance(theirs, dict):
            rows = theirs.get("table") if "record" in theirs or "old_record" in theirs else table
            ours = self._renamed(theirs, ours)
            return theirs.keys() == ours.keys() and all(
                self.match(theirs[key], ours[key], key, rows) for key in theirs
            )
        if isinstance(theirs, list):
            return len(theirs) == len(ours) and all(
                self.match(a, b, table=table) for a, b in zip(theirs, ours, strict=True)
            )
        same: bool = theirs == ours
        return same

    def _renamed(self, theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
        """Replace generated keys of presences in our value by the recorded ones."""
        made = [key for key in ours if UUID.fullmatch(key)]
        recorded = [key for key in theirs if UUID.fullmatch(key)]
        names = dict(zip(made, recorded, strict=False))
        if not all(self._same(f"key {theirs}", f"key {mine}") for mine, theirs in names.items()):
            return ours
        return {names.get(key, key): value for key, value in ours.items()}

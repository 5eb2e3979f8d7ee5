"""The frames, read without the package: its own mistakes must not cancel out here.

``read`` parses a frame of a client. ``renumber`` puts our refs into a frame of the server and
changes no other byte, because numbers must keep their text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CUT_OFF", "Frame", "contains", "placeholders", "read", "renumber"]

_V1_HEAD = re.compile(r'\{"ref":"([^"]*)"')
_V2_HEAD = re.compile(r'\[(null|"[^"]*"),(null|"[^"]*"),')
_CUT = re.compile(r'\{"topic":"([^"]*)","event":"([^"]*)",.*\.\.\.\[\d+ chars\]\Z', re.DOTALL)


@dataclass(frozen=True)
class Frame:
    """One frame of a client. ``payload`` of a binary broadcast has the form of that of a text
    broadcast.
    """

    topic: str
    event: str
    payload: Any
    ref: str | None
    join_ref: str | None
    raw: str | bytes

    @property
    def kind(self) -> tuple[str, str]:
        """The key by which a frame of ours is matched with the recorded one."""
        return self.topic, self.event


CUT_OFF: Any = object()
"""The payload of a recorded frame that was too long to keep."""


def read(raw: str | bytes) -> Frame | None:
    """Reads a client's frame of either vsn; returns None if it is not a message."""
    if isinstance(raw, bytes):
        return _read_kind_3(raw)
    cut = _CUT.match(raw)
    if cut is not None:
        return Frame(cut[1], cut[2], CUT_OFF, None, None, raw)
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    if isinstance(found, list) and len(found) == 5:
        join_ref, ref, topic, event, payload = found
        return Frame(topic, event, payload, ref, join_ref, raw)
    if isinstance(found, dict) and "topic" in found:
        return Frame(
            found["topic"],
            found["event"],
            found["payload"],
            found["ref"],
            found.get("join_ref"),
            raw,
        )
    return None


def _read_kind_3(raw: bytes) -> Frame:
    assert raw[0] == 3, f"a client sends binary frames of kind 3, not {raw[0]}"
    lengths, encoding = raw[1:6], raw[6]
    fields, start = [], 7
    for length in lengths:
        fields.append(raw[start : start + length])
        start += length
    join_ref, ref, topic, event = (field.decode() for field in fields[:4])
    payload = {
        "type": "broadcast",
        "event": event,
        "payload": json.loads(raw[start:]) if encoding else raw[start:],
        **(json.loads(fields[4]) if fields[4] else {}),
    }
    return Frame(topic, "broadcast", payload, ref, join_ref, raw)


def renumber(text: str, refs: Mapping[str, str]) -> str:
    """Returns a recorded text frame of the server with our refs; unknown refs stay."""

    def ours(ref: str) -> str:
        return json.dumps(refs.get(json.loads(ref), json.loads(ref)))

    if text.startswith("["):
        return _V2_HEAD.sub(lambda head: f"[{ours(head[1])},{ours(head[2])},", text, count=1)
    return _V1_HEAD.sub(lambda head: f'{{"ref":"{refs.get(head[1], head[1])}"', text, count=1)


def contains(ours: Any, recorded: Any) -> bool:
    """Returns True if ``ours`` contains all of ``recorded``: a join may send its defaults
    explicitly.
    """
    if isinstance(recorded, dict) and isinstance(ours, dict):
        return all(key in ours and contains(ours[key], recorded[key]) for key in recorded)
    return bool(ours == recorded)


def placeholders(ours: Any) -> Any:
    """Returns ``ours`` with tokens as the recordings write them.

    Two tokens of one role and subject look alike there, so a driver marks them by a text after
    ``#``.
    """
    if isinstance(ours, dict):
        return {key: placeholders(value) for key, value in ours.items()}
    if isinstance(ours, str) and ours.startswith("JWT:"):
        return ours.partition("#")[0]
    return ours

"""The frames of both protocol versions, read and written without the code under test."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["decode", "encode", "user_broadcast"]

Frame = dict[str, Any]


def decode(data: str | bytes) -> Frame:
    """A frame of a client: ``join_ref``, ``ref``, ``topic``, ``event``, ``payload``."""
    if isinstance(data, bytes):
        return _decode_push(data)
    found = json.loads(data)
    if isinstance(found, list):
        return dict(zip(("join_ref", "ref", "topic", "event", "payload"), found, strict=True))
    return {"join_ref": None, **found}


def _decode_push(data: bytes) -> Frame:
    """Kind 3: five lengths and an encoding, five texts, the payload."""
    assert data[0] == 3, f"binary kind {data[0]}"
    texts, at = [], 7
    for size in data[1:6]:
        texts.append(data[at : at + size].decode())
        at += size
    join_ref, ref, topic, event, metadata = texts
    body: Any = json.loads(data[at:]) if data[6] == 1 else {"bytes": data[at:].hex()}
    payload = {"type": "broadcast", "event": event, "payload": body}
    if metadata:
        payload["metadata"] = json.loads(metadata)
    return {
        "join_ref": join_ref or None,
        "ref": ref or None,
        "topic": topic,
        "event": "broadcast",
        "payload": payload,
        "kind": 3,
    }


def encode(frame: Frame, vsn: str) -> str:
    """A frame of the server as text; on 1.0.0 it names no join (tests/contract/recordings)."""
    keys = ("join_ref", "ref", "topic", "event", "payload")
    if vsn == "2.0.0":
        return json.dumps([frame.get(key) for key in keys])
    return json.dumps({key: frame.get(key) for key in keys[1:]})


def user_broadcast(topic: str, event: str, payload: Any, meta: Any = None) -> bytes:
    """Kind 4, the form in which the server sends a broadcast; ``{"bytes": hex}`` stays
    unchanged.
    """
    raw = isinstance(payload, dict) and set(payload) == {"bytes"}
    body = bytes.fromhex(payload["bytes"]) if raw else json.dumps(payload).encode()
    texts = [topic.encode(), event.encode(), b"" if meta is None else json.dumps(meta).encode()]
    head = bytes([4, *(len(text) for text in texts), 0 if raw else 1])
    return head + b"".join(texts) + body

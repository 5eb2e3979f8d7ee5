"""The presences of a topic, and the limit on presence calls.

See docs/protocol.md#8-presence.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import secrets
from collections.abc import Hashable
from typing import Any

__all__ = ["Diff", "PresenceBook", "PresenceWindow"]

Diff = dict[str, dict[str, Any]]

_serial = itertools.count(1)
_origin = secrets.token_bytes(8)


def _phx_ref() -> str:
    """Returns sixteen characters that are unique in this process and across processes."""
    serial = next(_serial).to_bytes(4, "big", signed=False)
    return base64.urlsafe_b64encode(_origin + serial).decode()


@dataclasses.dataclass
class _Entry:
    key: str
    payload: dict[str, Any]
    ref: str
    previous: str | None = None

    def meta(self) -> dict[str, Any]:
        """Returns the meta as sent; its refs replace keys of the same name in the payload."""
        refs = {"phx_ref": self.ref}
        if self.previous is not None:
            refs["phx_ref_prev"] = self.previous
        return refs | {k: v for k, v in self.payload.items() if k not in refs}


def _grouped(entry: _Entry | None) -> dict[str, Any]:
    return {entry.key: {"metas": [entry.meta()]}} if entry else {}


class PresenceBook:
    """The presences of one topic, one per member."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}

    def track(self, member: Hashable, key: str, payload: dict[str, Any]) -> Diff | None:
        """Record the payload of a member; returns the diff to send, None if nothing changed.

        An update has the new meta in joins and the old one in leaves
        (docs/protocol.md#differences).
        """
        before = self._entries.get(member)
        if before is not None and before.payload == payload:
            return None
        entry = _Entry(key, payload, _phx_ref(), before.ref if before else None)
        self._entries[member] = entry
        return {"joins": _grouped(entry), "leaves": _grouped(before)}

    def untrack(self, member: Hashable) -> Diff | None:
        """Remove a member; returns the diff to send, None if it was not tracked."""
        before = self._entries.pop(member, None)
        return {"joins": {}, "leaves": _grouped(before)} if before else None

    def state(self) -> dict[str, Any]:
        """Returns the payload of ``presence_state``."""
        found: dict[str, Any] = {}
        for entry in self._entries.values():
            found.setdefault(entry.key, {"metas": []})["metas"].append(entry.meta())
        return found


class PresenceWindow:
    """A fixed window of calls that starts at the first one (docs/protocol.md#presence-limits)."""

    def __init__(self, limit: tuple[int, float] | None) -> None:
        self._limit = limit
        self._start = -float("inf")
        self._count = 0

    def admit(self, now: float) -> bool:
        """Count a call at ``now``; returns False if it exceeds the limit."""
        if self._limit is None:
            return True
        calls, seconds = self._limit
        if now - self._start >= seconds:
            self._start, self._count = now, 0
        self._count += 1
        return self._count <= calls

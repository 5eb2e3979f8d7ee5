"""What the server sees, told on the inspector's topic to whoever listens there."""

from __future__ import annotations

import asyncio
import collections
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from ...protocol.messages import TOPIC_PREFIX, UserBroadcast
from ..activity import Happening
from ..auth import Rights, Token
from ..backend import INSPECTOR, Backend
from ..outgoing import Fanout

__all__ = ["Inspector"]

INTERVAL = 0.1
"""Seconds between two messages to the page, however much happens."""
STATE_INTERVAL = 0.5
MOST_EVENTS = 200
"""Told at once; of more than that the newest."""
MOST_SOCKETS = 200
OWN_REQUESTS = "/inspector/"
LONGEST = 2_000
"""Characters of a payload that are told."""
OF_STATE = {"connect", "disconnect", "join", "leave", "presence"}
SPACE = (INSPECTOR, True)


class Watched(Protocol):
    """What is asked of a socket."""

    def describe(self) -> dict[str, Any]:
        """Its number, peer, vsn and channels."""


class Inspector:
    """Watches while somebody listens, and costs nothing while nobody does."""

    def __init__(self, backend: Backend, sockets: Mapping[int, Watched]) -> None:
        self._backend = backend
        self._sockets = sockets
        self._pending: collections.deque[dict[str, Any]] = collections.deque(maxlen=MOST_EVENTS)
        self._changed = False
        self._told_state = 0.0
        self._end: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        backend.inspect = self._admit

    def close(self) -> None:
        """Stop watching."""
        end, self._end = self._end, None
        if end is not None:
            end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pending.clear()

    def _admit(self, token: Token) -> Rights:
        """Whether a token may listen: private payloads of everybody are told here."""
        if token.role != "service_role":
            return Rights.none()
        if self._end is None:
            self._end = self._backend.activity.watch(self._note)
        self._changed = True
        self._arm()
        return Rights.read()

    def _note(self, found: Happening) -> None:
        if found.topic == INSPECTOR:
            self._changed = True
        elif not found.topic.startswith(OWN_REQUESTS):
            self._changed = self._changed or found.kind in OF_STATE
            self._pending.append(_told(found))
        self._arm()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if not self._backend.hub.members(SPACE):
            self.close()
            return
        if self._pending:
            self._tell("events", list(self._pending))
            self._pending.clear()
        if self._changed:
            self._flush_state()

    def _flush_state(self) -> None:
        now = time.monotonic()
        if now - self._told_state < STATE_INTERVAL:
            self._arm()
            return
        self._told_state, self._changed = now, False
        self._tell("state", self._state())

    def _tell(self, event: str, content: Any) -> None:
        # Past the hub's ``broadcast``, which counts against the limits of the project.
        payload = {"type": "broadcast", "event": event, "payload": content}
        message = Fanout(TOPIC_PREFIX + INSPECTOR, "broadcast", payload)
        for member in self._backend.hub.members(SPACE):
            member.deliver(message)

    def _state(self) -> dict[str, Any]:
        backend, sockets = self._backend, list(self._sockets.values())
        presence: list[dict[str, Any]] = [
            {"topic": topic, "private": private, "present": _present(state)}
            for (topic, private), state in backend.hub.spaces()
            if state
        ]
        described = [socket.describe() for socket in sockets[:MOST_SOCKETS]]
        for each in described:
            kept = [one for one in each["channels"] if one["topic"] != INSPECTOR]
            each["inspector"] = len(kept) < len(each["channels"])
            each["channels"] = kept
        return {
            "sockets": described,
            "presence": presence[:MOST_SOCKETS],
            "totals": {
                "sockets": len(sockets),
                "present": sum(len(each["present"]) for each in presence),
                "joins": backend.joins,
                "connections": backend.connections,
                "unreadable": backend.malformed,
            },
        }


def _present(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: found["metas"] for key, found in state.items()}


def _told(found: Happening) -> dict[str, Any]:
    return {
        "at": time.time(),
        "kind": found.kind,
        "connection": found.connection,
        "topic": found.topic,
        "event": found.event,
        "text": found.text,
        "content": _shown(found.content),
        "reached": found.reached,
    }


def _shown(content: Any) -> str:
    """A payload or a row as text, cut where it is long."""
    if content is None:
        return ""
    if isinstance(content, UserBroadcast):
        if not content.is_json:
            return f"{len(content.body):,} bytes: {content.body[:32].hex(' ')}"
        text = content.body.decode("utf-8", "replace")
    elif isinstance(content, msgspec.Raw):
        text = bytes(content).decode("utf-8", "replace")
    else:
        text = json.dumps(content, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"

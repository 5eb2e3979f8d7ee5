"""Messages sent from the database side, kept for replay.

See docs/protocol.md#replay, #broadcasts-from-the-database.
"""

from __future__ import annotations

import collections
import dataclasses
import uuid
from typing import Any

from ..._wire.envelope import UserBroadcast
from ..._wire.json_codec import dumps
from .join_request import MAX_REPLAY, Replay
from .memory_bounds import MOST_STORED

__all__ = ["MessageStore", "StoredMessage"]

OVERHEAD = 512


@dataclasses.dataclass(frozen=True)
class StoredMessage:
    """One row of ``realtime.messages``."""

    id: str
    event: str
    payload: Any
    inserted_at: float

    @classmethod
    def make(cls, event: str, payload: Any, now: float) -> StoredMessage:
        """Create a message with a new id, which is also added to an object without an ``id``."""
        message_id = str(uuid.uuid4())
        if isinstance(payload, bytes | bytearray | memoryview):
            payload = bytes(payload)
        elif isinstance(payload, dict):
            payload = {"id": message_id} | payload
        else:
            raise TypeError(f"a broadcast payload is a dict or bytes, not {type(payload).__name__}")
        return cls(message_id, event, payload, now)

    @property
    def size(self) -> int:
        """The size of its payload in bytes."""
        return len(self.payload if isinstance(self.payload, bytes) else dumps(self.payload))

    def meta(self, *, replayed: bool = False) -> dict[str, Any]:
        """Returns the metadata that receivers see."""
        return {"id": self.id, "replayed": True} if replayed else {"id": self.id}

    def user_broadcast(self, *, replayed: bool = False) -> UserBroadcast:
        """Returns the message in binary form."""
        is_json = not isinstance(self.payload, bytes)
        body = dumps(self.payload) if is_json else self.payload
        return UserBroadcast(self.event, is_json, dumps(self.meta(replayed=replayed)), body)

    def replayed(self) -> Any:
        """Returns the payload that a replay sends; JSON is sent as text, also to vsn 2.0.0.

        See docs/protocol.md#what-receivers-get.
        """
        if isinstance(self.payload, bytes):
            return self.user_broadcast(replayed=True)
        return {
            "event": self.event,
            "meta": self.meta(replayed=True),
            "payload": self.payload,
            "type": "broadcast",
        }


class MessageStore:
    """Keeps the newest private messages of each sub-topic, as many as one replay may request."""

    def __init__(self, most: int = MOST_STORED) -> None:
        self._messages: dict[str, collections.deque[StoredMessage]] = {}
        self._sizes: dict[str, tuple[str, int]] = {}
        self._most = most
        self._total = 0

    def add(self, sub_topic: str, message: StoredMessage) -> None:
        """Keep a message; above the limits the oldest ones are dropped."""
        kept = self._messages.setdefault(sub_topic, collections.deque())
        kept.append(message)
        size = OVERHEAD + len(sub_topic) + message.size
        self._sizes[message.id] = (sub_topic, size)
        self._total += size
        if len(kept) > MAX_REPLAY:
            self._forget(kept[0].id)
        while self._total > self._most:
            self._forget(next(iter(self._sizes)))

    def _forget(self, oldest: str) -> None:
        sub_topic, size = self._sizes.pop(oldest)
        self._total -= size
        kept = self._messages[sub_topic]
        kept.popleft()
        if not kept:
            del self._messages[sub_topic]

    def replay(self, sub_topic: str, wanted: Replay) -> list[StoredMessage]:
        """Returns the requested messages, oldest first; above the limit only the newest."""
        found = [
            message
            for message in self._messages.get(sub_topic, ())
            if message.inserted_at * 1000 >= wanted.since
        ]
        return found[-wanted.limit :]

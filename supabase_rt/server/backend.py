"""What all sessions of one server share: no sockets, no clock, no asyncio."""

from __future__ import annotations

import collections
import dataclasses
import logging
from typing import Any

from ..errors import DecodeError
from ..protocol.messages import Message
from ..protocol.serializer import payload_object
from .auth import Policy, Rights, Token, Tokens, default_policy
from .changes import ChangeFeed
from .faults import Faults
from .hub import Hub
from .outgoing import Fanout
from .settings import Settings
from .stored import MessageStore, StoredMessage

__all__ = ["Backend", "Received"]

logger = logging.getLogger("supabase_rt.server")


@dataclasses.dataclass(frozen=True)
class Received:
    """A message that a client sent; ``connection`` counts the sockets from 1."""

    connection: int
    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    undecoded: Any = dataclasses.field(repr=False)

    @property
    def payload(self) -> Any:
        """The payload as plain data, a binary broadcast in the shape of a text one."""
        message = Message(self.join_ref, self.ref, self.topic, self.event, self.undecoded)
        try:
            return payload_object(message)
        except DecodeError:
            return self.undecoded


class Backend:
    """The state behind the sockets."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        tokens: Tokens | None = None,
        policy: Policy = default_policy,
        faults: Faults | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.tokens = tokens or Tokens()
        self.policy = policy
        self.faults = faults or Faults()
        self.hub = Hub()
        self.feed = ChangeFeed(
            strict=self.settings.strict_tables, max_record_bytes=self.settings.max_record_bytes
        )
        self.messages = MessageStore()
        self.received: collections.deque[Received] = collections.deque(maxlen=10_000)
        self.connections = 0
        self.joins = 0
        self.malformed = 0

    def note(self, connection: int, message: Message) -> None:
        """Remember what a client sent, for tests to look at."""
        found = Received(
            connection,
            message.join_ref,
            message.ref,
            message.topic,
            message.event,
            message.payload,
        )
        self.received.append(found)

    def rights(self, token: Token, sub_topic: str) -> Rights:
        """The rights on a private topic; a policy that raises grants nothing."""
        try:
            found = self.policy(token.role, token.claims, sub_topic)
        except Exception:
            logger.exception("the policy failed for role %r on %r", token.role, sub_topic)
            return Rights.none()
        if isinstance(found, Rights):
            return found
        return Rights() if found else Rights.none()

    def broadcast(
        self, sub_topic: str, event: str, payload: Any, *, private: bool, now: float
    ) -> int:
        """Send from the database side, as ``realtime.send`` does (section 7.9)."""
        message = StoredMessage.make(event, payload, now)
        if private:
            self.messages.add(sub_topic, message)
        fanout = Fanout(f"realtime:{sub_topic}", "broadcast", message.user_broadcast())
        return self.hub.broadcast((sub_topic, private), fanout)

"""What all sessions of one server share: no sockets and no clock."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Callable
from typing import Any, Final, Protocol

from ..._printable import get_logger
from ..._wire.envelope import TOPIC_PREFIX, Message
from ..._wire.serializer import payload_object
from ...errors import DecodeError
from .._http.postgrest.query import RestQuery
from .._http.turns import Turns
from .._tables.change_feed import ChangeFeed, Feed
from ..activity import Activity
from ..faults import Faults
from ..settings import Settings
from ..tokens import Policy, Rights, Token, Tokens, default_policy
from .join_request import Replay
from .memory_bounds import MOST_RECEIVED, MOST_REMEMBERED, Outgoing, Reader, held
from .message_store import MessageStore, StoredMessage
from .outgoing import Fanout
from .rate_limits import Limits
from .topics import Hub

__all__ = ["Backend", "DatabaseAway", "Received", "logger"]

logger: Final = get_logger("supabase_rt.server")


@dataclasses.dataclass(frozen=True)
class Received:
    """A message that a client sent; ``connection`` counts the sockets from 1."""

    connection: int
    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    undecoded: Any = dataclasses.field(repr=False)
    size: int = dataclasses.field(default=0, repr=False, compare=False)
    """The bytes of memory that it holds."""

    @property
    def payload(self) -> Any:
        """The payload as plain data, a binary broadcast in the shape of a text one."""
        message = Message(self.join_ref, self.ref, self.topic, self.event, self.undecoded)
        try:
            return payload_object(message)
        except DecodeError:
            return self.undecoded


class DatabaseAway(Exception):
    """The database does not answer."""


class AskedDatabase(Protocol):
    """What is asked of a database; the answers come through callbacks."""

    @property
    def reachable(self) -> bool:
        """Whether it is there."""

    def ask_rights(
        self,
        token: Token,
        sub_topic: str,
        done: Callable[[Rights | None], None],
        client: object = None,
    ) -> None:
        """The rights of a token on a private topic; None where the database is away.

        ``client`` is the number of the socket that asks.
        """

    async def rights(self, token: Token, sub_topic: str) -> Rights | None:
        """The same, awaited."""

    def ask_replay(
        self,
        sub_topic: str,
        wanted: Replay,
        done: Callable[[list[StoredMessage] | None], None],
        client: object = None,
    ) -> None:
        """Stored messages, oldest first; None where the database cannot say."""

    def client_left(self, client: object) -> None:
        """Cancel what is still asked for a client."""

    async def read_table(
        self, token: Token, schema: str, table: str, query: RestQuery
    ) -> tuple[bytes, int]:
        """Rows as JSON, and how many; raises ``RestProblem`` or ``DatabaseAway``."""
        ...


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
        self.settings: Settings = settings or Settings()
        self.tokens: Tokens = tokens or Tokens()
        self.policy = policy
        self.faults: Faults = faults or Faults()
        self.activity: Activity = Activity()
        self.limits: Limits = Limits(self.settings)
        self.hub: Hub = Hub(self.limits, self.activity)
        self.tables: ChangeFeed = ChangeFeed(
            strict=self.settings.strict_tables,
            max_record_bytes=self.settings.max_record_bytes,
            activity=self.activity,
        )
        self.feed: Feed = self.tables
        self.database: AskedDatabase | None = None
        self.messages: MessageStore = MessageStore()
        self.received: collections.deque[Received] = collections.deque()
        self.unexpected: collections.deque[Received] = collections.deque()
        """The same, without what a test has asked for by ``expect``."""
        self._remembered = 0
        self.news: asyncio.Future[None] | None = None
        """Done when the next message has come."""
        self.readers: dict[int, Reader] = {}
        """The open sockets, by connection number."""
        self.outgoing: Outgoing = Outgoing(self.readers.values)
        """What waits for all clients."""
        self.turns: Turns = Turns()
        self.channel_bytes = 0
        """What all channels were joined with."""
        self.connections = 0
        self.joins = 0
        self.malformed = 0

    def note(self, connection: int, message: Message, frame: int = 0) -> None:
        """Remember what a client sent in a frame of so many bytes, for tests to look at."""
        found = Received(
            connection,
            message.join_ref,
            message.ref,
            message.topic,
            message.event,
            message.payload,
            held(message, frame),
        )
        self.received.append(found)
        self.unexpected.append(found)
        self._remembered += found.size
        while len(self.received) > MOST_RECEIVED or self._remembered > MOST_REMEMBERED:
            self._forget(self.received.popleft())
        if self.news is not None and not self.news.done():
            self.news.set_result(None)

    def _forget(self, oldest: Received) -> None:
        self._remembered -= oldest.size
        if self.unexpected and self.unexpected[0] is oldest:
            self.unexpected.popleft()

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
        """Send from the database side, as ``realtime.send`` does.

        See docs/protocol.md#broadcasts-from-the-database.
        """
        message = StoredMessage.make(event, payload, now)
        if private:
            self.messages.add(sub_topic, message)
        return self.send_stored(sub_topic, private, message)

    def send_stored(self, sub_topic: str, private: bool, message: StoredMessage) -> int:
        """Tell the members of a space of a message from the database side."""
        if self.limits.events.tripped:
            return 0
        topic, content = TOPIC_PREFIX + sub_topic, message.user_broadcast()
        if len(content.body) > self.settings.max_payload_size:
            logger.warning("a message for %r is too large and dropped", sub_topic)
            return 0
        fanout = Fanout(topic, "broadcast", content, message_id=message.id)
        try:
            return self.hub.broadcast((sub_topic, private), fanout)
        except ValueError as exc:
            # A name too long for a binary frame; the sender is not there to be told.
            logger.warning("a message for %r is dropped: %s", sub_topic, exc)
            return 0

    # -- what a database may be asked --------------------------------------------------

    def _asked(self) -> AskedDatabase | None:
        """The database, where it decides: a policy written in Python comes first."""
        return self.database if self.policy is default_policy else None

    @property
    def away(self) -> bool:
        """Whether there is a database that cannot be reached; then nothing can be joined."""
        return self.database is not None and not self.database.reachable

    def authorize(
        self,
        token: Token,
        sub_topic: str,
        done: Callable[[Rights | None], None],
        client: object = None,
    ) -> None:
        """Find the rights on a private topic for a socket; ``done`` is called now or later.

        None stands for a database that is away.
        """
        database = self._asked()
        if database is None:
            done(self.rights(token, sub_topic))
        else:
            database.ask_rights(token, sub_topic, done, client)

    async def rights_of(self, token: Token, sub_topic: str) -> Rights | None:
        """The rights on a private topic, None where the database is away."""
        database = self._asked()
        if database is None:
            return self.rights(token, sub_topic)
        return await database.rights(token, sub_topic)

    def replay(
        self,
        sub_topic: str,
        wanted: Replay,
        done: Callable[[list[StoredMessage] | None], None],
        client: object = None,
    ) -> None:
        """Find stored messages, oldest first; ``done`` gets None where the database fails."""
        mine = self.messages.replay(sub_topic, wanted)
        if self.database is None:
            done(mine)
            return

        def merge(found: list[StoredMessage] | None) -> None:
            if found is not None:
                found = sorted([*found, *mine], key=lambda message: message.inserted_at)
                found = found[-wanted.limit :]
            done(found)

        self.database.ask_replay(sub_topic, wanted, merge, client)

    def client_left(self, number: int) -> None:
        """A socket is gone, and so is who waits for what it asked a database."""
        if self.database is not None:
            self.database.client_left(number)

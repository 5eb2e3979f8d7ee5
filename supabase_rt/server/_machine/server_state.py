"""The state that all sessions of one server share, without sockets or a clock."""

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
from .._tables.change_feed import ChangeFeed, ServerFeed
from ..activity import Activity
from ..faults import Faults
from ..settings import Settings
from ..tokens import Policy, Rights, Token, Tokens, default_policy
from .join_request import Replay
from .memory_bounds import MOST_RECEIVED, MOST_REMEMBERED, Outgoing, SlowReader, held
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
    """The memory that it holds, in bytes."""

    @property
    def payload(self) -> Any:
        """The payload as plain data; a binary broadcast has the shape of a text one."""
        message = Message(self.join_ref, self.ref, self.topic, self.event, self.undecoded)
        try:
            return payload_object(message)
        except DecodeError:
            return self.undecoded


class DatabaseAway(Exception):
    """The database does not answer."""


class AskedDatabase(Protocol):
    """A database, as the server queries it; results come by callbacks or are awaited."""

    @property
    def reachable(self) -> bool:
        """True if the database is there."""

    def ask_rights(
        self,
        token: Token,
        sub_topic: str,
        done: Callable[[Rights | None], None],
        client: object = None,
    ) -> None:
        """Call ``done`` with a token's rights on a private topic; None if the database is away.

        ``client`` is the number of the socket.
        """

    async def rights(self, token: Token, sub_topic: str) -> Rights | None:
        """Returns the rights of a token on a private topic; None if the database is away."""

    def ask_replay(
        self,
        sub_topic: str,
        wanted: Replay,
        done: Callable[[list[StoredMessage] | None], None],
        client: object = None,
    ) -> None:
        """Call ``done`` with stored messages, oldest first; with None if the database fails."""

    def client_left(self, client: object) -> None:
        """Cancel the queries of a client."""

    async def read_table(
        self, token: Token, schema: str, table: str, query: RestQuery
    ) -> tuple[bytes, int]:
        """Returns rows as JSON, and their number; raises ``RestProblem`` or ``DatabaseAway``."""
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
        self.feed: ServerFeed = self.tables
        self.database: AskedDatabase | None = None
        self.messages: MessageStore = MessageStore()
        self.received: collections.deque[Received] = collections.deque()
        self.unexpected: collections.deque[Received] = collections.deque()
        """The received messages that no ``expect`` has returned."""
        self._remembered = 0
        self.news: asyncio.Future[None] | None = None
        """Set when the next message arrives."""
        self.readers: dict[int, SlowReader] = {}
        """The open sockets, by connection number."""
        self.outgoing: Outgoing = Outgoing(self.readers.values)
        """The data that waits to be written, for all clients."""
        self.turns: Turns = Turns()
        self.channel_bytes = 0
        """The memory of the joins of all channels, in bytes."""
        self.connections = 0
        self.joins = 0
        self.malformed = 0

    def note(self, connection: int, message: Message, frame: int = 0) -> None:
        """Remember a message of a client for tests; ``frame`` is the size of its frame."""
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
        """Returns the rights on a private topic by the policy; none if the policy raises."""
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
        """Send a broadcast as the database's ``realtime.send`` does.

        See docs/protocol.md#broadcasts-from-the-database.
        """
        message = StoredMessage.make(event, payload, now)
        if private:
            self.messages.add(sub_topic, message)
        return self.send_stored(sub_topic, private, message)

    def send_stored(self, sub_topic: str, private: bool, message: StoredMessage) -> int:
        """Send a message of the database to the members of a space."""
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
            # The name is too long for a binary frame. The sender cannot be told, so it is logged.
            logger.warning("a message for %r is dropped: %s", sub_topic, exc)
            return 0

    # -- queries to the database -------------------------------------------------------

    def _asked(self) -> AskedDatabase | None:
        """Returns the database if it decides on rights; a policy in Python takes precedence."""
        return self.database if self.policy is default_policy else None

    @property
    def away(self) -> bool:
        """True if the database cannot be reached; then all joins are refused."""
        return self.database is not None and not self.database.reachable

    def authorize(
        self,
        token: Token,
        sub_topic: str,
        done: Callable[[Rights | None], None],
        client: object = None,
    ) -> None:
        """Call ``done``, now or later, with the rights on a private topic.

        They are None if the database is away.
        """
        database = self._asked()
        if database is None:
            done(self.rights(token, sub_topic))
        else:
            database.ask_rights(token, sub_topic, done, client)

    async def rights_of(self, token: Token, sub_topic: str) -> Rights | None:
        """Returns the rights on a private topic; None if the database is away."""
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
        """Call ``done`` with stored messages, oldest first; with None if the database fails."""
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
        """Cancel the queries of a socket that has closed."""
        if self.database is not None:
            self.database.client_left(number)

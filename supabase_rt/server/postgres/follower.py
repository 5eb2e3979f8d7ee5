"""Follows the WAL of a database, across its restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
import psycopg

from ...printable import get_logger
from ..changes import timestamp
from ..schemas import is_hidden
from ..stored import StoredMessage
from .images import Image, RowChange, row_change
from .pgoutput import Begin, Commit, Delete, Insert, Message, PgOutputError, Relation, Update
from .problems import DatabaseProblem
from .replication import Arrived, ReplicationStream

__all__ = ["Follower", "Sent"]

logger: Final = get_logger("supabase_rt.server")

BATCH = 100
FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0

Sent = Callable[[str, bool, StoredMessage], object]
"""Takes a row of ``realtime.messages``: sub-topic, private or not, message."""


class Follower:
    """Turns the stream into changes and messages.

    ``tell`` gets the changes in commit order and is awaited; ``sent`` gets the messages that
    were inserted into ``realtime.messages``.
    """

    def __init__(
        self,
        open_stream: Callable[[], Awaitable[ReplicationStream]],
        tell: Callable[[Sequence[RowChange]], Awaitable[None]],
        sent: Sent,
    ) -> None:
        self._open_stream = open_stream
        self._tell = tell
        self._sent = sent
        self._stream: ReplicationStream | None = None
        self._relations: dict[int, Relation] = {}
        self._begun: Begin | None = None
        self._batch: list[RowChange] = []
        self._dealt_with = 0
        self._owes_answer = False

    async def open(self) -> None:
        """Open the stream; raises ``DatabaseProblem``."""
        self._stream = await self._open_stream()

    @property
    def following(self) -> bool:
        """Whether the stream is open."""
        return self._stream is not None

    async def close(self) -> None:
        """Close the stream; ``run`` must have ended."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    async def run(self) -> None:
        """Follow until cancelled; open the stream again when it breaks."""
        delay = FIRST_DELAY
        while True:
            try:
                if self._stream is None:
                    await self.open()
                    logger.warning(
                        "the database is followed again; "
                        "changes made meanwhile were missed unless the slot has a name"
                    )
                delay = FIRST_DELAY
                await self._follow()
            except (psycopg.Error, DatabaseProblem, PgOutputError, OSError) as exc:
                problem = " ".join(str(exc).split())
                logger.warning(
                    "the database is not followed: %s; next attempt in %.1f s", problem, delay
                )
            except Exception:
                # Our own mistake; without a word all changes would cease.
                logger.exception("the database is not followed; next attempt in %.1f s", delay)
            await self.close()
            self._batch.clear()
            self._begun = None
            self._dealt_with = 0
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)

    async def _follow(self) -> None:
        assert self._stream is not None
        while True:
            arrived = self._stream.ready()
            if arrived is None:
                await self._flush()
                await self._stream.wait()
                continue
            self._take(arrived)
            if len(self._batch) >= BATCH:
                await self._flush()

    async def _flush(self) -> None:
        """Tell what has been gathered, and let go of the WAL before it."""
        if self._batch:
            batch, self._batch = self._batch, []
            await self._tell(batch)
            # In the middle of a long transaction, too: the database hangs up on who is silent.
            self._owes_answer = True
        if self._owes_answer and self._stream is not None:
            self._stream.confirm(self._dealt_with)
            self._owes_answer = False

    def _take(self, arrived: Arrived) -> None:
        message = arrived.message
        if message is None:
            # Nothing of ours is before this point: also a quiet server lets go of the WAL.
            if self._begun is None and not self._batch:
                self._dealt_with = arrived.end
            self._owes_answer = True
        elif isinstance(message, Commit):
            self._begun = None
            self._dealt_with = message.end_lsn
            self._owes_answer = True
        elif isinstance(message, Begin):
            self._begun = message
        elif isinstance(message, Relation):
            self._relations[message.oid] = message
        else:
            self._take_row(message)

    def _take_row(self, message: Message) -> None:
        if not isinstance(message, Insert | Update | Delete):
            return
        relation, begun = self._relations.get(message.relation), self._begun
        if relation is None or begun is None:
            raise PgOutputError("a row outside of a transaction, or of an unknown table")
        moment = timestamp(begun.committed_at)
        change = row_change(relation, message, begun.final_lsn, moment, begun.xid)
        if not is_hidden(relation.schema):
            self._batch.append(change)
        elif (relation.schema, relation.name) != ("realtime", "messages"):
            # Of a schema of the system nobody is told, whatever is in the publication.
            return
        elif change.type == "INSERT" and change.new is not None:
            self._send(change.new, begun.committed_at.timestamp())

    def _send(self, row: Image, now: float) -> None:
        topic, event = row.get("topic"), row.get("event")
        if row.get("extension") != "broadcast" or topic is None or event is None:
            return
        binary, text = row.get("binary_payload"), row.get("payload")
        if binary is not None:
            payload: bytes | msgspec.Raw = bytes.fromhex(binary.removeprefix("\\x"))
        else:
            payload = msgspec.Raw((text or "{}").encode())
        message = StoredMessage(row.get("id") or "", event, payload, now)
        self._sent(topic, row.get("private") == "t", message)

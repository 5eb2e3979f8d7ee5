"""Follows the WAL of a database, across its restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import msgspec
import psycopg

from ...._printable import get_logger
from ..._machine.message_store import StoredMessage
from ..._tables.change_feed import timestamp
from ..._tables.hidden_schemas import is_hidden
from ..errors import DatabaseProblem
from .pgoutput import Begin, Commit, Delete, Insert, Message, PgOutputError, Relation, Update
from .row_changes import Image, RowChange, row_change
from .stream import Arrived, ReplicationStream

__all__ = ["Follower", "Sent"]

logger: Final = get_logger("supabase_rt.server")

BATCH = 100
BATCH_BYTES = 4 * 2**20
"""Bytes of one batch: batches of large rows are smaller, to fit into memory and a timeout."""
LARGE = 2**20
ATTEMPTS = 3
"""Attempts for a change that always fails; after them it is skipped."""
DELAYS = (0.1, 0.3, 1.0)
FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0

FAILED = "ERROR 58000 (system_error) sending them failed several times"

Sent = Callable[[str, bool, StoredMessage], object]
"""Called with a row of ``realtime.messages``: sub-topic, True if private, message."""


class Follower:
    """Turns the replication stream into changes and messages.

    ``deliver`` is awaited with the changes, in commit order. ``sent`` is called with the messages
    inserted into ``realtime.messages``. ``skip`` is called with changes that are skipped, and the
    reason: ``deliver`` failed for them several times while the database was there.
    """

    def __init__(
        self,
        open_stream: Callable[[], Awaitable[ReplicationStream]],
        deliver: Callable[[Sequence[RowChange]], Awaitable[None]],
        sent: Sent,
        skip: Callable[[Sequence[RowChange], str], object] = lambda changes, reason: None,
    ) -> None:
        self._open_stream = open_stream
        self._deliver = deliver
        self._sent = sent
        self._skip = skip
        self._stream: ReplicationStream | None = None
        self._relations: dict[int, Relation] = {}
        self._begun: Begin | None = None
        self._batch: list[RowChange] = []
        self._bytes = 0
        self._row = 0
        # The change that failed last: position of its transaction and number of its row.
        self._failed_at: tuple[int, int] | None = None
        self._failures = 0
        self._handled_lsn = 0
        self._owes_answer = False

    async def open(self) -> None:
        """Open the stream; raises ``DatabaseProblem``."""
        self._stream = await self._open_stream()

    @property
    def following(self) -> bool:
        """True while the stream is open."""
        return self._stream is not None

    async def close(self) -> None:
        """Close the stream; ``run`` must have ended."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    async def run(self) -> None:
        """Follow until cancelled, and open the stream again when it breaks."""
        delay = FIRST_DELAY
        while True:
            try:
                if self._stream is None:
                    await self.open()
                    logger.warning(
                        "the database is followed again; "
                        "changes made meanwhile were missed, unless the slot has a name"
                    )
                delay = FIRST_DELAY
                await self._follow()
            except (psycopg.Error, DatabaseProblem, PgOutputError, OSError) as exc:
                problem = " ".join(str(exc).split())
                logger.warning(
                    "the database is not followed: %s; next attempt in %.1f s", problem, delay
                )
            except Exception:
                # A bug of ours; without the log entry all changes would stop silently.
                logger.exception("the database is not followed; next attempt in %.1f s", delay)
            await self.close()
            self._batch.clear()
            self._bytes = 0
            self._begun = None
            self._handled_lsn = 0
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)

    async def _follow(self) -> None:
        assert self._stream is not None
        while True:
            try:
                arrived = self._stream.ready()
                if arrived is not None:
                    self._take_or_skip(arrived)
            except PgOutputError as exc:
                # Skip it and read on: after a reopen, a named slot would send it again, for ever.
                logger.warning("a message of the database is skipped: %r", str(exc))
                await asyncio.sleep(0)
                continue
            if arrived is None:
                await self._flush()
                await self._stream.wait()
            elif len(self._batch) >= self._most() or self._bytes >= BATCH_BYTES:
                await self._flush()

    def _take_or_skip(self, arrived: Arrived) -> None:
        try:
            self._take(arrived)
        except PgOutputError:
            raise
        except Exception:
            # A bug of ours, which would occur again at the next attempt.
            logger.exception("a message of the database is skipped")

    def _most(self) -> int:
        """Returns the size of a batch: 1 up to the change that failed, to isolate it."""
        if self._failed_at is not None and self._begun is not None:
            if self._begun.final_lsn <= self._failed_at[0]:
                return 1
            self._failed_at = None
        return BATCH

    async def _flush(self) -> None:
        """Pass the collected changes on, and confirm the WAL before them."""
        if self._batch:
            batch, self._batch = self._batch, []
            self._bytes = 0
            left = len(batch)
            for part in _apart(batch):
                left -= len(part)
                await self._deliver_all(part, left)
            # Also within a long transaction: the database disconnects a silent follower.
            self._owes_answer = True
        if self._owes_answer and self._stream is not None:
            self._stream.confirm(self._handled_lsn)
            self._owes_answer = False

    async def _deliver_all(self, batch: Sequence[RowChange], left: int) -> None:
        """Pass changes on, with ``left`` to come; skip them if they fail too often."""
        at = (batch[0].commit_lsn, self._row - left - len(batch))
        if at == self._failed_at and self._failures >= ATTEMPTS:
            self._failed_at = None
            logger.warning("%d changes are skipped after %d attempts", len(batch), ATTEMPTS)
            self._skip(batch, FAILED)
            return
        try:
            await self._deliver_with_retries(batch)
        except Exception:
            self._failures = self._failures + 1 if at == self._failed_at else 1
            self._failed_at = at
            raise

    async def _deliver_with_retries(self, batch: Sequence[RowChange]) -> None:
        # A short loss of the other connections must not end the stream. With a temporary slot,
        # opening it again would lose all changes until then.
        for delay in DELAYS:
            try:
                await self._deliver(batch)
            except DatabaseProblem:
                await asyncio.sleep(delay)
            else:
                return
        await self._deliver(batch)

    def _take(self, arrived: Arrived) -> None:
        message = arrived.message
        if message is None:
            # No open transaction is before this point, so a quiet server can confirm it too.
            if self._begun is None and not self._batch:
                self._handled_lsn = arrived.end
            self._owes_answer = True
        elif isinstance(message, Commit):
            self._begun = None
            self._handled_lsn = message.end_lsn
            self._owes_answer = True
        elif isinstance(message, Begin):
            self._begun = message
            self._row = 0
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
            self._bytes += change.size()
            self._row += 1
        elif (relation.schema, relation.name) != ("realtime", "messages"):
            # Changes in system schemas are never sent, even if the publication has them.
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


def _apart(batch: Sequence[RowChange]) -> Iterator[Sequence[RowChange]]:
    """Split a batch before and after each large change, so that it delays only later ones."""
    start = 0
    for nth, change in enumerate(batch):
        if change.size() > LARGE:
            if start < nth:
                yield batch[start:nth]
            yield batch[nth : nth + 1]
            start = nth + 1
    if start < len(batch):
        yield batch[start:]

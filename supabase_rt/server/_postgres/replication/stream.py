"""A replication connection: the slot, and the stream of pgoutput messages from it.

psycopg does not implement the replication protocol, so the functions of libpq are used:
https://www.postgresql.org/docs/current/protocol-replication.html.
"""

from __future__ import annotations

import asyncio
import dataclasses
import struct
from collections.abc import Sequence

import psycopg
from psycopg import generators, pq, sql

from ..connections import connect
from ..errors import DatabaseProblem
from .pgoutput import Message, decode

__all__ = ["Arrived", "ReplicationStream"]

HEAD = struct.Struct("!QQq")
KEEPALIVE = struct.Struct("!QqB")
STATUS = struct.Struct("!QQQqB")
REMEDIES = {
    "all replication slots are in use": "; raise max_replication_slots, or drop one of them",
    "max_wal_senders": "; raise max_wal_senders",
    "no pg_hba.conf entry": "; allow replication for this user and address in pg_hba.conf",
}


@dataclasses.dataclass(frozen=True)
class Arrived:
    """A message of pgoutput, or None for a keepalive; ``end`` is the position in the WAL."""

    message: Message | None
    end: int
    reply_wanted: bool = False


class ReplicationStream:
    """An open stream.

    A ``temporary`` slot ends with the connection, also when this process is killed. So no
    forgotten slot keeps the WAL of the database for ever. Any other slot is found again, and
    continues at its last position.
    """

    def __init__(self, conn: psycopg.AsyncConnection, slot: str, *, temporary: bool) -> None:
        self._conn = conn
        self._slot = slot
        self._temporary = temporary
        self._readable = asyncio.Event()
        self._watched: int | None = None

    @classmethod
    async def open(
        cls, url: str, slot: str, publications: Sequence[str], *, temporary: bool
    ) -> ReplicationStream:
        """Connect, create or find the slot, and start; raises ``DatabaseProblem``."""
        conn = await connect(url, "changes", replication=True)
        stream = cls(conn, slot, temporary=temporary)
        try:
            await stream.make_slot()
            await stream.start(publications)
        except BaseException as exc:
            await stream.close()
            if not isinstance(exc, psycopg.Error):
                raise
            problem = " ".join(str(exc).split())
        else:
            return stream
        remedy = next((text for words, text in REMEDIES.items() if words in problem), "")
        raise DatabaseProblem(f"the changes of the database cannot be followed: {problem}{remedy}")

    async def make_slot(self) -> None:
        """Create the replication slot, unless a named one is found; part of ``open``."""
        name = sql.Identifier(self._slot)
        if not self._temporary and await self._found():
            return
        kind = sql.SQL("TEMPORARY " if self._temporary else "")
        await self._conn.execute(
            sql.SQL("CREATE_REPLICATION_SLOT {} {}LOGICAL pgoutput NOEXPORT_SNAPSHOT").format(
                name, kind
            )
        )

    async def _found(self) -> bool:
        """Returns True if the slot exists; drops one that lost its WAL."""
        query = sql.SQL(
            "select active_pid, plugin, wal_status, database = current_database()"
            " from pg_replication_slots where slot_name = {}"
        ).format(sql.Literal(self._slot))
        row = await (await self._conn.execute(query)).fetchone()
        if row is None:
            return False
        pid, plugin, status, is_ours = row
        if pid is not None:
            raise DatabaseProblem(
                f"the replication slot {self._slot} is in use by process {pid}; "
                "stop the other server or choose another slot"
            )
        if plugin != "pgoutput" or not is_ours:
            raise DatabaseProblem(
                f"the replication slot {self._slot} is of another plugin or database; "
                "choose another slot"
            )
        if status == "lost":
            await self._conn.execute(
                sql.SQL("DROP_REPLICATION_SLOT {}").format(sql.Identifier(self._slot))
            )
            return False
        return True

    async def start(self, publications: Sequence[str]) -> None:
        """Start the stream from the slot; part of ``open``."""
        names = ",".join('"' + name.replace('"', '""') + '"' for name in publications)
        query = sql.SQL(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {})"
        ).format(sql.Identifier(self._slot), sql.Literal(names))
        pgconn = self._conn.pgconn
        pgconn.send_query(query.as_bytes(self._conn))
        (result,) = await self._conn.wait(generators.execute(pgconn))
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
        self._watched = pgconn.socket
        asyncio.get_running_loop().add_reader(self._watched, self._readable.set)

    def ready(self) -> Arrived | None:
        """Returns the next message, if one has arrived; raises ``psycopg.Error`` at the end."""
        pgconn = self._conn.pgconn
        size, data = pgconn.get_copy_data(1)
        if size == 0:
            pgconn.consume_input()
            size, data = pgconn.get_copy_data(1)
        if size > 0:
            return _read(bytes(data))
        if size == 0:
            return None
        result = pgconn.get_result()
        said = result.error_message.decode(errors="replace") if result is not None else ""
        raise psycopg.OperationalError(said.strip() or "the database ended the stream")

    async def wait(self) -> None:
        """Wait until a message may have arrived."""
        await self._readable.wait()
        self._readable.clear()

    def confirm(self, lsn: int) -> None:
        """Confirm to the database all changes before ``lsn``; 0 only keeps the stream alive."""
        self._conn.pgconn.put_copy_data(b"r" + STATUS.pack(lsn, lsn, lsn, 0, 0))
        self._conn.pgconn.flush()

    async def close(self) -> None:
        """Close the connection; a temporary slot ends with it."""
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = None
        await self._conn.close()


def _read(data: bytes) -> Arrived:
    if data[:1] == b"k":
        end, _, wanted = KEEPALIVE.unpack_from(data, 1)
        return Arrived(None, end, bool(wanted))
    start, _, _ = HEAD.unpack_from(data, 1)
    return Arrived(decode(data[1 + HEAD.size :]), start)

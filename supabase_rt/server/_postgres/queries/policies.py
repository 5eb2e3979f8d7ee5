"""Rights on private topics and their stored messages, from ``realtime.messages``."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec
import psycopg

from ...._printable import get_logger
from ..._machine.join_request import Replay
from ..._machine.message_store import StoredMessage
from ...tokens import Rights, Token
from ..connections import is_lost
from ..pool import Pool, rolled_back
from ..roles import Login
from .claims import act_as, act_for_server

__all__ = ["Authority"]

logger: Final = get_logger("supabase_rt.server")

PROBES = """
insert into realtime.messages (topic, extension, event, payload, private)
values (%(topic)s, 'broadcast', 'probe', '{}', true),
    (%(topic)s, 'presence', 'probe', '{}', true)
returning id
"""
READABLE = "select extension from realtime.messages where id = any(%s)"
WRITE = "insert into realtime.messages (topic, extension, private) values (%s, %s, true)"
# The result is reversed later. Messages of one transaction then come newest first, as recorded.
STORED = """
select id::text, event, payload::text, binary_payload, timezone('UTC', inserted_at)
from realtime.messages
where topic = %s and private and extension = 'broadcast'
    and inserted_at >= timezone('UTC', to_timestamp(%s / 1000.0))
order by inserted_at desc, ctid limit %s
"""


class Authority:
    """Evaluates the policies on ``realtime.messages``, on connections of its own.

    ``login`` belongs to the connections of ``pool``.
    """

    def __init__(self, pool: Pool, login: Login) -> None:
        self._pool = pool
        self._login = login

    async def rights(self, token: Token, sub_topic: str, client: object = None) -> Rights:
        """Returns the rights of a token on a private topic; none after an error of a policy.

        All four rights are evaluated at once; the real server evaluates those to write when they
        are first needed. All changes are rolled back. Raises ``DatabaseProblem`` if the database
        is away. See docs/protocol.md#rights-on-a-private-channel.
        """

        async def ask(conn: psycopg.AsyncConnection) -> Rights:
            async with rolled_back(conn):
                return await self._ask(conn, token, sub_topic)

        try:
            return await self._pool.run(ask, client)
        except (psycopg.Error, ValueError, RecursionError) as exc:
            # ValueError: for instance a topic that the database cannot store as text.
            problem = " ".join(str(exc).split())
        logger.warning("role %r gets no rights on %r: %r", token.role, sub_topic, problem)
        return Rights.none()

    async def _ask(self, conn: psycopg.AsyncConnection, token: Token, topic: str) -> Rights:
        await act_for_server(conn, self._login)
        probes = await (await conn.execute(PROBES, {"topic": topic})).fetchall()
        await act_as(conn, token.claims, topic, token.headers)
        rows = await (await conn.execute(READABLE, ([row[0] for row in probes],))).fetchall()
        readable = {extension for (extension,) in rows}
        return Rights(
            broadcast_read="broadcast" in readable,
            broadcast_write=await self._may_write(conn, topic, "broadcast"),
            presence_read="presence" in readable,
            presence_write=await self._may_write(conn, topic, "presence"),
        )

    async def _may_write(self, conn: psycopg.AsyncConnection, topic: str, extension: str) -> bool:
        try:
            async with conn.transaction(force_rollback=True):
                await conn.execute(WRITE, (topic, extension))
        except psycopg.errors.QueryCanceled:
            # The other rights would time out as well.
            raise
        except psycopg.Error as exc:
            if is_lost(exc, conn):
                raise
            return False
        return True

    async def replay(
        self, sub_topic: str, wanted: Replay, client: object = None
    ) -> list[StoredMessage]:
        """Returns the newest stored messages, oldest first (docs/protocol.md#replay)."""
        async with self._pool.rolled_back(client) as conn:
            await act_for_server(conn, self._login)
            found = await conn.execute(STORED, (sub_topic, wanted.since, wanted.limit))
            rows = await found.fetchall()
        return [_stored(*row) for row in reversed(rows)]


def _stored(
    message_id: str, event: str, payload: str | None, binary: bytes | None, at: dt.datetime
) -> StoredMessage:
    body = binary if binary is not None else msgspec.Raw((payload or "{}").encode())
    return StoredMessage(message_id, event, body, at.timestamp())

"""Waits until a transaction that was told is one that others can see.

The database writes a commit to its log, and to whoever follows the log, a moment before the
transaction is over for everybody else. Whoever asks within that moment finds the table as it was:
without the new row, which row level security would then hide, or without the new column.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import psycopg

__all__ = ["settled"]

# The log has the lower half of a transaction's number; the upper one is that of the present.
VISIBLE = """
with present as (
    select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as top
), told as (
    select greatest(0, ((top >> 32) << 32) + low + case
        when low - (top & 4294967295) > 2147483648 then -4294967296
        when (top & 4294967295) - low > 2147483648 then 4294967296
        else 0
    end) as number
    from present, unnest(%s::bigint[]) as low
)
select bool_and(pg_visible_in_snapshot(number::text::xid8, pg_current_snapshot())) from told
"""
PAUSE = 0.002
ATTEMPTS = 500
"""A second, more than any commit takes; synchronous replication may take longer, and is told of
all the same."""


async def settled(conn: psycopg.AsyncConnection, numbers: Iterable[int]) -> bool:
    """Wait until these transactions can be seen; False where that took too long.

    The numbers are those of the log.
    """
    wanted = sorted(set(numbers))
    for _ in range(ATTEMPTS):
        row = await (await conn.execute(VISIBLE, (wanted,))).fetchone()
        if row is None or row[0] is not False:
            return True
        await asyncio.sleep(PAUSE)
    return False

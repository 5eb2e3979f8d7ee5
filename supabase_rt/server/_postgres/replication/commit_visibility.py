"""Waits until a transaction read from the WAL is visible to queries.

The database writes a commit to the WAL, and to its followers, a moment before other sessions can
see it. A query within that moment finds the old table. Row level security would then hide the
new row, or a new column would be missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import psycopg

__all__ = ["settled"]

# The WAL has the lower 32 bits of a transaction id; the upper bits come from the database's present
# id.
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
"""One second in all. A commit takes less, except with synchronous replication."""


async def settled(conn: psycopg.AsyncConnection, numbers: Iterable[int]) -> bool:
    """Wait until these transactions are visible; returns False if that takes too long.

    ``numbers`` are transaction ids as in the WAL.
    """
    wanted = sorted(set(numbers))
    for _ in range(ATTEMPTS):
        row = await (await conn.execute(VISIBLE, (wanted,))).fetchone()
        if row is None or row[0] is not False:
            return True
        await asyncio.sleep(PAUSE)
    return False

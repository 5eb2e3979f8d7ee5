"""A commit arrives a moment before queries can see it; no query runs in between."""

from __future__ import annotations

import asyncio

import psycopg

from supabase_rt.server._postgres.embedded import EmbeddedPostgres
from supabase_rt.server._postgres.replication.commit_visibility import settled

NUMBER = "select pg_current_xact_id()::text::bigint & 4294967295"


async def test_a_transaction_that_is_not_over_is_waited_for(postgres: EmbeddedPostgres) -> None:
    connect = psycopg.AsyncConnection.connect
    async with (
        await connect(postgres.url) as writer,
        await connect(postgres.url, autocommit=True) as reader,
    ):
        row = await (await writer.execute(NUMBER)).fetchone()
        assert row is not None
        waiting = asyncio.ensure_future(settled(reader, [row[0]]))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await writer.commit()
        assert await waiting


async def test_what_is_over_is_not_waited_for(postgres: EmbeddedPostgres) -> None:
    connect = psycopg.AsyncConnection.connect
    async with await connect(postgres.url, autocommit=True) as conn:
        row = await (await conn.execute(NUMBER)).fetchone()
        assert row is not None
        # One of these ids belongs to the previous epoch.
        for numbers in ([row[0]], [3, row[0]], [4294967295], []):
            assert await settled(conn, numbers)


async def test_what_never_comes_is_given_up(postgres: EmbeddedPostgres) -> None:
    connect = psycopg.AsyncConnection.connect
    async with await connect(postgres.url, autocommit=True) as conn:
        assert not await settled(conn, [2_000_000_000])

"""The pool of connections: turns, time limits, and lost connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import psycopg
import pytest

from supabase_rt.server._postgres.embedded import EmbeddedPostgres
from supabase_rt.server._postgres.errors import DatabaseProblem
from supabase_rt.server._postgres.pool import ConnectionEnded, Pool
from tests.support.waiting import turns, until

from .test_one_client_cannot_hurt_another import STUBBORN

NOBODY = "postgresql://postgres@127.0.0.1:1/postgres"
SESSIONS = "select pid, state from pg_stat_activity where application_name = 'supabase_rt pooled'"


@pytest.fixture
async def pool(postgres: EmbeddedPostgres) -> AsyncIterator[Pool]:
    found = Pool(postgres.url, "pooled", size=3, share=2, timeout=0.4)
    yield found
    await found.close()


async def hold(pool: Pool, client: str, until: asyncio.Event, holding: list[str]) -> None:
    async with pool.use(client):
        holding.append(client)
        await until.wait()


async def test_no_client_takes_all_connections(pool: Pool) -> None:
    ends = asyncio.Event()
    holding: list[str] = []
    tasks = [asyncio.create_task(hold(pool, name, ends, holding)) for name in "aaaab"]
    await until(lambda: len(holding) == 3)
    assert sorted(holding) == ["a", "a", "b"]
    ends.set()
    await asyncio.gather(*tasks)
    assert sorted(holding) == ["a", "a", "a", "a", "b"]


async def test_who_gives_up_waiting_leaves_the_turn_to_the_next(pool: Pool) -> None:
    ends = asyncio.Event()
    holding: list[str] = []
    tasks = [asyncio.create_task(hold(pool, "a", ends, holding)) for _ in range(4)]
    await until(lambda: len(holding) == 2)
    tasks[2].cancel()
    await turns()
    ends.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results].count(asyncio.CancelledError) == 1
    assert len(holding) == 3


async def test_a_statement_that_takes_too_long_ends_and_its_connection_lives(pool: Pool) -> None:
    async with pool.use() as conn:
        process = conn.info.backend_pid
        with pytest.raises(psycopg.errors.QueryCanceled):
            await conn.execute("select pg_sleep(60)")
    async with pool.use() as conn:
        assert conn.info.backend_pid == process


async def test_one_that_does_not_listen_loses_its_session(
    pool: Pool, postgres: EmbeddedPostgres
) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as other:
        other.execute(STUBBORN.encode())
        start = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await pool.run(lambda conn: conn.execute("select stubborn()"))
        assert time.monotonic() - start < 5
        await until(lambda: not other.execute(SESSIONS).fetchall())
        async with pool.use() as conn:
            await conn.execute("select 1")


async def test_a_caller_who_is_cancelled_leaves_nothing_running(
    pool: Pool, postgres: EmbeddedPostgres
) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as other:
        other.execute(STUBBORN.encode())
        task = asyncio.create_task(
            pool.run(lambda conn: conn.execute("select stubborn()"), limit=60)
        )
        await until(lambda: [row for row in other.execute(SESSIONS) if row[1] == "active"])
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not other.execute(SESSIONS).fetchall())


async def test_a_statement_that_ends_its_session_is_told_from_a_database_that_is_away(
    pool: Pool,
) -> None:
    with pytest.raises(ConnectionEnded):
        await pool.run(lambda conn: conn.execute("select pg_terminate_backend(pg_backend_pid())"))
    away = Pool(NOBODY, "pooled")
    with pytest.raises(DatabaseProblem, match="cannot connect"):
        await away.run(lambda conn: conn.execute("select 1"))
    await away.close()


async def test_a_session_that_the_database_ended_meanwhile_is_replaced(
    pool: Pool, postgres: EmbeddedPostgres
) -> None:
    async with pool.use() as conn:
        process = conn.info.backend_pid
    with psycopg.connect(postgres.url, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 5000)", (process,))
    found = await pool.run(lambda conn: conn.execute("select pg_backend_pid()"))
    row = await found.fetchone()
    assert row is not None
    assert row[0] != process


async def test_the_end_waits_for_nobody(pool: Pool) -> None:
    ends = asyncio.Event()
    holding: list[str] = []
    tasks = [asyncio.create_task(hold(pool, "a", ends, holding)) for _ in range(3)]
    await until(lambda: len(holding) == 2)
    await pool.cancel()
    with pytest.raises(DatabaseProblem, match="stops"):
        await tasks[2]
    with pytest.raises(DatabaseProblem, match="stops"):
        await pool.run(lambda conn: conn.execute("select 1"))
    ends.set()
    await asyncio.gather(*tasks[:2])

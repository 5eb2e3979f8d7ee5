"""Backfill from end to end: rows in Postgres, cut links, a killed process."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from supabase_rt import Backfill, PostgresChange, RealtimeClient
from supabase_rt.server import LocalRealtime

from ..support.clients import QUICK
from ..support.waiting import until

INSERTS = {"event": "INSERT", "schema": "public", "table": "plain"}
WAIT = 40.0


class Publisher:
    """Inserts numbered rows, one transaction each; some are committed late."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.written: list[int] = []

    async def write(self, count: int, *, held: int = 0, pause: float = 0.004) -> None:
        """Insert rows; ``held`` of them commit only after the next one."""
        late = sorted(random.sample(range(count - 1), held))
        async with (
            await psycopg.AsyncConnection.connect(self._url, autocommit=True) as conn,
            await psycopg.AsyncConnection.connect(self._url) as other,
        ):
            for number in range(count):
                is_late = number in late
                await self._insert(other if is_late else conn)
                if not is_late and number - 1 in late:
                    await other.commit()
                await asyncio.sleep(pause)
            await other.commit()

    async def _insert(self, conn: psycopg.AsyncConnection) -> None:
        found = await conn.execute("insert into plain (v) values ('x') returning id")
        row = await found.fetchone()
        assert row is not None
        self.written.append(row[0])


async def trouble(server: LocalRealtime, chance: random.Random) -> None:
    """Cut, stall and refuse at random moments, until cancelled."""
    try:
        while True:
            await asyncio.sleep(chance.uniform(0.01, 0.25))
            kind = chance.choice(["cut", "close", "refuse", "error"])
            if kind == "cut":
                server.faults.cut()
            elif kind == "close":
                server.faults.close(1012)
            elif kind == "error":
                server.faults.phx_error()
            else:
                server.faults.refuse(503)
                server.faults.cut()
                await asyncio.sleep(chance.uniform(0.0, 0.2))
                server.faults.refuse(None)
    finally:
        server.faults.refuse(None)


@pytest.mark.parametrize("seed", [1, 2])
async def test_all_rows_are_handled_in_order_and_none_twice_over_a_link_that_is_cut(
    db: LocalRealtime, seed: int
) -> None:
    seen: list[PostgresChange] = []

    async def handler(change: PostgresChange) -> None:
        await asyncio.sleep(0)
        seen.append(change)

    client = RealtimeClient(
        db.ws_url, params={"apikey": db.anon_key}, reconnect=QUICK, heartbeat_interval=1.0
    )
    channel = client.channel("room")
    channel.on("postgres_changes", INSERTS, handler, backfill=Backfill("id"))
    await channel.subscribe()
    await channel.ready()
    publisher = Publisher(db.database_url)
    troubled = asyncio.create_task(trouble(db, random.Random(seed)), name="trouble")
    try:
        await publisher.write(150)
    finally:
        troubled.cancel()
        await asyncio.gather(troubled, return_exceptions=True)
    await until(lambda: len(seen) >= len(publisher.written), WAIT)
    await client.disconnect()
    assert [change.new["id"] for change in seen] == publisher.written
    assert any(change.backfilled for change in seen)


async def test_rows_that_commit_late_are_handled_too(db: LocalRealtime) -> None:
    seen: list[int] = []
    client = RealtimeClient(
        db.ws_url, params={"apikey": db.anon_key}, reconnect=QUICK, heartbeat_interval=1.0
    )
    channel = client.channel("room")
    channel.on(
        "postgres_changes",
        INSERTS,
        lambda change: seen.append(change.new["id"]),
        backfill=Backfill("id", overlap=(20, 5.0)),
    )
    await channel.subscribe()
    await channel.ready()
    publisher = Publisher(db.database_url)
    troubled = asyncio.create_task(trouble(db, random.Random(4)), name="trouble")
    try:
        await publisher.write(120, held=25)
    finally:
        troubled.cancel()
        await asyncio.gather(troubled, return_exceptions=True)
    await until(lambda: len(seen) >= len(publisher.written), WAIT)
    await client.disconnect()
    assert sorted(seen) == sorted(publisher.written)


BOT = """
import asyncio, sys
from supabase_rt import Backfill, ReconnectPolicy, SqliteStore, create_client

url, key, folder = sys.argv[1:]

async def main():
    client = create_client(url, key, realtime={"reconnect": ReconnectPolicy(initial_backoff=0.01)})
    with open(folder + "/handled", "a") as out:
        def handler(change):
            out.write(f"{change.new['id']}\\n")
            out.flush()

        store = SqliteStore(folder + "/notes.db")
        channel = client.channel("room")
        channel.on(
            "postgres_changes", {"event": "INSERT", "schema": "public", "table": "plain"}, handler,
            backfill=Backfill("id", store=store),
        )
        await channel.subscribe()
        await channel.ready()
        print("ready", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_process_that_is_killed_again_and_again_handles_every_row(
    db: LocalRealtime, tmp_path: Path
) -> None:
    publisher = Publisher(db.database_url)
    handled = tmp_path / "handled"
    handled.touch()
    kills = 0
    writing: asyncio.Task[Any] | None = None
    while writing is None or not writing.done():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", BOT, db.url, db.anon_key, str(tmp_path),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        if writing is None:
            writing = asyncio.create_task(publisher.write(200, pause=0.01), name="writing")
        if kills < 2:
            before = len(handled.read_text().split())
            with contextlib.suppress(AssertionError):
                await until(lambda: len(handled.read_text().split()) > before + 5, WAIT)  # noqa: B023
            kills += 1
        else:
            await asyncio.wait([writing])
            await until(lambda: set(publisher.written) <= numbers(handled), WAIT)
        process.kill()
        await process.wait()
    await writing
    found = [int(line) for line in handled.read_text().split()]
    assert set(found) == set(publisher.written)
    assert len(found) - len(set(found)) <= kills, "a kill repeats one event at most"


def numbers(handled: Path) -> set[int]:
    return {int(line) for line in handled.read_text().split() if line}

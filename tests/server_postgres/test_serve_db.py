"""``supabase-rt serve`` with a database: its output, and its clean end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import aiohttp
import psycopg
import pytest

from supabase_rt import PostgresChange, create_client
from supabase_rt.server import new_secret
from supabase_rt.server._postgres.embedded import EmbeddedPostgres
from tests.support.waiting import until
from tests.tools.cli.kit import PLAIN, PYTHON, serving

from .test_database import SLOTS, gone, query, run
from .test_one_client_cannot_hurt_another import ENDLESS, STUBBORN, VICTIM


def folder_of(url: str) -> Path:
    return Path(url.rpartition("=")[2].replace("%2F", "/"))


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_an_embedded_database_is_gone_with_the_server(sent: signal.Signals) -> None:
    async with serving("--embedded-db") as server:
        url = server.shown["Database"]
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("create table t (id int primary key, v text)")
            conn.execute("alter publication supabase_realtime add table t")
            supabase = create_client(server.shown["URL"], server.shown["anon key"])
            got: list[PostgresChange] = []
            async with supabase.realtime:
                room = supabase.channel("room").on(
                    "postgres_changes", {"event": "*", "schema": "public", "table": "t"}, got.append
                )
                await room.subscribe().ready(10)
                conn.execute("insert into t values (1, 'x')")
                await until(lambda: got)
            await server.until("database +INSERT +public.t$")
        pid = int((folder_of(url) / "data" / "postmaster.pid").read_text().split()[0])
        code, _, err = await server.end(sent)
        assert code == (0 if sent is not signal.SIGKILL else -signal.SIGKILL)
        assert err == ""
    await until(lambda: not folder_of(url).exists())
    await until(lambda: not Path(f"/proc/{pid}").exists() or not Path("/proc").exists())


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
async def test_the_database_is_not_told_the_secret() -> None:
    """PostgreSQL may run as another user, and its superusers can read its environment."""
    secret = new_secret()
    async with serving("--embedded-db", SUPABASE_JWT_SECRET=secret) as server:
        pids = folder_of(server.shown["Database"]) / "data" / "postmaster.pid"
        pid = int(pids.read_text().split()[0])
        environment = environment_of(pid)
    assert b"PATH=" in environment
    assert secret.encode() not in environment


@pytest.mark.parametrize("stubborn", [False, True], ids=["slow", "stubborn"])
async def test_a_signal_ends_it_soon_whatever_runs(stubborn: bool) -> None:
    async with serving("--embedded-db", "--statement-timeout=600") as server:
        with psycopg.connect(server.shown["Database"], autocommit=True) as conn:
            conn.execute(STUBBORN.encode())
            conn.execute("create table t (id int primary key, v text)")
            conn.execute("insert into t values (1, %s)", (VICTIM,))
            conn.execute("alter table t enable row level security")
            rule = "stubborn()" if stubborn else "true"
            conn.execute(f"create policy p on t using ({rule})".encode())
        async with aiohttp.ClientSession() as session:
            params = {"v": f"match.{ENDLESS}", "apikey": server.shown["anon key"]}
            url = f"{server.shown['URL']}/rest/v1/t"
            asking = asyncio.create_task(session.get(url, params=params))
            with psycopg.connect(server.shown["Database"], autocommit=True) as conn:
                busy = (
                    "select from pg_stat_activity where query like '%json_agg%' "
                    "and state = 'active' and pid <> pg_backend_pid()"
                )
                while not conn.execute(busy).rowcount:
                    await asyncio.sleep(0.02)
            start = time.monotonic()
            code, _, _ = await server.end(signal.SIGTERM)
            assert time.monotonic() - start < 5
            assert code == 0
            with contextlib.suppress(aiohttp.ClientError):
                await asking


async def test_a_signal_during_the_start_leaves_nothing_behind(open_folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *PYTHON,
        "serve",
        "--port=0",
        "--embedded-db",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **PLAIN, "TMPDIR": str(open_folder)},
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"starting PostgreSQL ...\n"
    await until(lambda: list(open_folder.iterdir()))
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")
    await until(lambda: not list(open_folder.iterdir()))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
async def test_no_slot_stays_in_a_given_database(
    prepared: EmbeddedPostgres, sent: signal.Signals
) -> None:
    async with serving(f"--db={prepared.url}") as server:
        assert server.shown["Database"] == prepared.url
        assert len(await run(prepared, SLOTS)) == 1
        await server.end(sent)
    assert await gone(prepared, SLOTS)


async def test_a_named_slot_is_kept_by_a_crash_and_dropped_at_the_end(
    prepared: EmbeddedPostgres,
) -> None:
    words = [f"--db={prepared.url}", "--slot=found_again"]
    async with serving(*words) as server:
        await server.end(signal.SIGKILL)
    assert await gone(prepared, f"{SLOTS} where active")
    assert query(prepared, SLOTS) == [("found_again", False)]
    async with serving(*words) as server:
        assert query(prepared, f"{SLOTS} where active") == [("found_again", False)]
        await server.end(signal.SIGTERM)
    assert query(prepared, SLOTS) == []

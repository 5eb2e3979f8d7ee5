"""A server and its database: start, stop, failures and queries."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest

from supabase_rt.server import LocalRealtime, Rights
from supabase_rt.server._postgres import embedded
from supabase_rt.server._postgres.embedded import EmbeddedPostgres
from supabase_rt.server._postgres.errors import DatabaseProblem
from tests.server.kit import Wire, as_page, wire

from .test_changes_db import TOPIC, change, silent, subscribe

ME = embedded._other_user() or {"user": os.geteuid(), "group": os.getegid()}
"""The user that PostgreSQL runs as; not empty, so that the binaries seem to be another's."""
SLOTS = "select slot_name, temporary from pg_replication_slots"
ROOM = "realtime:private-room"


def query(postgres: EmbeddedPostgres, statement: str, database: str = "postgres") -> Any:
    url = postgres.url.replace("/postgres?", f"/{database}?")
    with psycopg.connect(url, autocommit=True) as conn:
        found = conn.execute(statement.encode())
        return found.fetchall() if found.description else []


async def run(postgres: EmbeddedPostgres, statement: str, database: str = "postgres") -> Any:
    return await asyncio.to_thread(query, postgres, statement, database)


async def gone(postgres: EmbeddedPostgres, statement: str) -> bool:
    """Returns True if the rows of a statement disappear within two seconds."""
    for _ in range(40):
        if not await run(postgres, statement):
            return True
        await asyncio.sleep(0.05)
    return False


# -- start and end -------------------------------------------------------------------------


async def test_nothing_stays_in_the_database(prepared: EmbeddedPostgres) -> None:
    async with LocalRealtime(db=prepared.url) as server:
        assert server.database_url == prepared.url
        ((name, temporary),) = await run(prepared, SLOTS)
        assert name.startswith(f"supabase_rt_{os.getpid()}_")
        assert temporary
    assert await gone(prepared, SLOTS)
    ours = "select 1 from pg_stat_activity where application_name like 'supabase_rt%'"
    assert await gone(prepared, ours)


async def test_an_embedded_database_lives_as_long_as_the_server(open_folder: Path) -> None:
    folder = open_folder / "kept"
    async with LocalRealtime(embedded_db=folder) as server, wire(server) as client:
        await server.sql("create table if not exists kept (id int primary key)")
        await server.sql("alter publication supabase_realtime add table kept")
        # In our own database the roles get new tables, as in a Supabase project.
        assert (await subscribe(client, {"table": "kept"}))["status"] == "ok"
        await server.sql("insert into kept values (1)")
        assert (await change(client))["record"] == {"id": 1}
        await server.restart()
        assert await server.sql("select id from kept") == [{"id": 1}]
        sockets = server.database_url.rpartition("=")[2].replace("%2F", "/")
    assert not os.access(sockets, os.F_OK)
    with pytest.raises(RuntimeError, match="not been started"):
        server.database_url
    async with LocalRealtime(embedded_db=folder) as server:
        assert await server.sql("select id from kept") == [{"id": 1}]


def test_a_folder_in_use_and_one_left_by_a_crash(open_folder: Path) -> None:
    folder = open_folder / "shared"
    with EmbeddedPostgres(folder):
        with pytest.raises(DatabaseProblem, match="another server uses this folder"):
            EmbeddedPostgres(folder).start()
        left = (folder / "postmaster.pid").read_text()
    # As after a power cut: the file says "ready", but the process does not exist.
    (folder / "postmaster.pid").write_text("\n".join(["999999", *left.splitlines()[1:]]))
    with EmbeddedPostgres(folder) as found:
        assert query(found, "select 1") == [(1,)]
    (folder / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(DatabaseProblem, match="another version made this folder"):
        EmbeddedPostgres(folder).start()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseProblem, match=r"cannot keep data in .*: File exists"):
        EmbeddedPostgres(tmp_path / "file").start()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DatabaseProblem, match="holds something else than PostgreSQL's data"):
        EmbeddedPostgres(tmp_path).start()
    assert (tmp_path / "thesis.txt").stat().st_uid == os.getuid()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_killed_process_leaves_no_database_behind() -> None:
    code = (
        "from supabase_rt.server._postgres.embedded import EmbeddedPostgres\n"
        "found = EmbeddedPostgres().start()\n"
        "print(found._base, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not folder.exists()


def test_a_wheel_in_a_closed_folder_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    # As for root with a virtual environment in its home.
    monkeypatch.setattr(embedded, "_is_open", lambda path: False)
    monkeypatch.setattr(embedded, "_other_user", lambda: ME)
    with EmbeddedPostgres() as found:
        assert query(found, "select 1") == [(1,)]


async def test_a_named_slot_is_found_again(db: LocalRealtime, prepared: EmbeddedPostgres) -> None:
    create = "select pg_create_logical_replication_slot('mine', 'pgoutput')"
    await run(prepared, create)
    async with LocalRealtime(db=prepared.url, slot="mine") as server, wire(server) as client:
        with pytest.raises(DatabaseProblem, match="slot mine is in use by process"):
            await LocalRealtime(db=prepared.url, slot="mine").start()
        await subscribe(client, {"table": "plain"})
        await server.sql("insert into plain(v) values ('x')")
        assert (await change(client))["record"]["v"] == "x"
    assert not [row for row in await run(prepared, SLOTS) if row[0] == "mine"]
    async with LocalRealtime(db=prepared.url, slot="mine"):
        assert ("mine", False) in await run(prepared, SLOTS)


async def test_a_restart_of_the_database_is_survived(
    db: LocalRealtime, prepared: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    async with wire(db) as client:
        await subscribe(client, {"table": "plain"})
        await db.sql("insert into plain(v) values ('before')")
        await change(client)
        await asyncio.to_thread(prepared.restart, 0.2)
        for _ in range(100):
            if "followed again" in caplog.text:
                break
            await asyncio.sleep(0.05)
        await db.sql("insert into plain(v) values ('after')")
        assert (await change(client))["record"]["v"] == "after"
        assert await client.beats()
    assert "the database is not followed" in caplog.text
    assert "Traceback" not in caplog.text


# -- what is wrong with it -----------------------------------------------------------------


async def test_what_is_wrong_is_said_in_one_line(
    db: LocalRealtime, prepared: EmbeddedPostgres
) -> None:
    await run(
        prepared,
        "drop role if exists guest; drop role if exists follower; drop role if exists member; "
        "create role guest login; create role follower login replication; "
        "create role member login replication in role anon, authenticated, service_role",
    )
    await run(prepared, "drop database if exists bare")
    await run(prepared, "create database bare")
    url = prepared.url.replace("/postgres?", "/bare?")
    cases = {
        "postgresql://postgres@127.0.0.1:1/postgres": "cannot connect to the database",
        url.replace("postgres@", "guest@"): "run ALTER ROLE guest REPLICATION as a superuser",
        url.replace("postgres@", "follower@"): "follower may not act as anon, authenticated and",
        url.replace("postgres@", "member@"): "member may not create the schema auth",
        "nonsense": "cannot read the database URL",
        prepared.url_of(
            "missing"
        ): '"missing" does not exist; name another one in the database URL',
        url.replace("postgres@", "nobody@"): '"nobody" does not exist; name another one',
        "postgresql:///x?host=/nowhere": "No such file or directory.*; start it, or give the URL",
    }
    for bad, problem in cases.items():
        with pytest.raises(DatabaseProblem, match=problem) as caught:
            await LocalRealtime(db=bad).start()
        assert "\n" not in str(caught.value)


async def test_a_user_who_may_not_create_the_publication(prepared: EmbeddedPostgres) -> None:
    await run(prepared, "drop database if exists unpublished with (force)")
    await run(prepared, "create database unpublished")
    url = prepared.url_of("unpublished")
    async with LocalRealtime(db=url) as server:
        await server.sql("drop publication supabase_realtime; drop role if exists watcher")
        await server.sql("create role watcher login replication")
        await server.sql("grant anon, authenticated, service_role to watcher")
        await server.sql("alter table realtime.messages owner to watcher")
    with pytest.raises(DatabaseProblem, match="watcher may not create the publication supabase_"):
        await LocalRealtime(db=url.replace("postgres@", "watcher@")).start()


async def test_a_database_without_a_slot_to_spare(prepared: EmbeddedPostgres) -> None:
    fill = "select pg_create_physical_replication_slot('full_' || n) from generate_series(1, {}) n"
    most = int((await run(prepared, "show max_replication_slots"))[0][0])
    ((taken,),) = await run(prepared, "select count(*) from pg_replication_slots")
    await run(prepared, fill.format(most - taken))
    try:
        with pytest.raises(DatabaseProblem, match="raise max_replication_slots, or drop one"):
            await LocalRealtime(db=prepared.url).start()
    finally:
        names = "select slot_name from pg_replication_slots where slot_name like 'full_%'"
        await run(prepared, f"select pg_drop_replication_slot(slot_name) from ({names}) full_ones")


async def test_a_database_without_logical_wal() -> None:
    def replica_level() -> EmbeddedPostgres:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(embedded.OPTIONS, "wal_level", "replica")
            return EmbeddedPostgres().start()

    postgres = await asyncio.to_thread(replica_level)
    try:
        with pytest.raises(DatabaseProblem, match="wal_level = replica; run ALTER SYSTEM"):
            await LocalRealtime(db=postgres.url).start()
    finally:
        await asyncio.to_thread(postgres.stop)


async def test_there_is_one_database_or_none() -> None:
    with pytest.raises(ValueError, match="two databases"):
        LocalRealtime(db="postgresql://", embedded_db=True)
    async with LocalRealtime() as server:
        with pytest.raises(RuntimeError, match="has no database"):
            await server.sql("select 1")


async def test_rows_are_changed_with_sql_only(db: LocalRealtime) -> None:
    with pytest.raises(RuntimeError, match="change its rows with sql"):
        db.insert("plain", {"v": "x"})
    assert await db.sql("select %s::int + 1 as n", 1) == [{"n": 2}]
    with pytest.raises(psycopg.errors.UndefinedTable):
        await db.sql("select * from nowhere")
    assert await db.sql("create temporary table t (id int)") == []


# -- private channels ----------------------------------------------------------------------


async def test_a_python_policy_comes_before_the_database(prepared: EmbeddedPostgres) -> None:
    def policy(role: str, claims: Any, topic: str) -> Rights:
        return Rights() if topic == "python" else Rights.none()

    async with LocalRealtime(db=prepared.url, policy=policy) as server, wire(server) as client:
        assert (await client.join("realtime:python", private=True))[4]["status"] == "ok"
        assert (await client.join(ROOM, private=True))[4]["status"] == "error"


async def test_policies_decide_over_http_too(db: LocalRealtime) -> None:
    member = db.token("authenticated", "u")
    path = "/api/broadcast/private-room/events/e?private=true"
    async with wire(db, member) as client, aiohttp.ClientSession() as session:
        await client.join(ROOM, private=True)
        for token, status in ((db.anon_key, 403), (member, 202)):
            headers = {"Authorization": f"Bearer {token}"}
            async with session.post(db.url + path, json={"x": 1}, headers=headers) as response:
                assert response.status == status
        message = {"topic": "private-room", "event": "b", "payload": {}, "private": True}
        for token in (db.anon_key, member):
            async with session.post(
                f"{db.url}/api/broadcast",
                json={"messages": [message]},
                headers={"apikey": token},
            ) as response:
                assert response.status == 202
        assert isinstance(await client.recv(), bytes)
        assert (await client.recv())[4]["event"] == "b"
        assert await silent(client)
    assert await db.sql("select count(*)::int as n from realtime.messages") == [{"n": 0}]


async def test_policies_may_look_at_headers(db: LocalRealtime) -> None:
    await db.sql(
        "create policy by_header on realtime.messages for select to authenticated using"
        " (current_setting('request.headers', true)::jsonb ->> 'x-team' = 'blue')"
    )
    try:
        params = {"apikey": db.token("authenticated", "u")}
        async with aiohttp.ClientSession() as session:
            for team, status in (("red", "error"), ("blue", "ok")):
                url = f"{db.ws_url}/websocket?vsn=2.0.0"
                headers = {"X-Team": team}
                async with session.ws_connect(url, params=params, headers=headers) as ws:
                    found = await Wire(ws).join("realtime:by-header", private=True)
                    assert found[4]["status"] == status
    finally:
        await db.sql("drop policy by_header on realtime.messages")


async def test_a_database_that_is_away_is_said_to_be(
    db: LocalRealtime, prepared: EmbeddedPostgres
) -> None:
    gone = "Realtime was unable to connect to the project database"
    member, other = db.token("authenticated", "u"), db.token("authenticated", "v")
    async with wire(db, member) as client, aiohttp.ClientSession() as session:
        await client.join(ROOM, private=True)
        assert db.backend.database is not None
        await db.backend.database.stop()  # type: ignore[attr-defined]
        for private in (True, False):
            config = {"config": {"private": private}}
            found = await client.ask("2", "2", "realtime:x", "phx_join", config)
            assert found[4]["response"] == {"reason": f"UnableToConnectToProject: {gone}"}
        await client.send("1", "3", ROOM, "access_token", {"access_token": other})
        assert (await client.recv())[4]["message"] == gone
        assert (await client.recv())[3] == "phx_close"
        path = "/api/broadcast/private-room/events/e?private=true"
        headers = {"Authorization": f"Bearer {member}"}
        async with session.post(db.url + path, json={}, headers=headers) as response:
            assert response.status == 422
            assert await response.json() == {"message": "Tenant database unavailable"}


async def test_an_unknown_role_gets_no_rights(db: LocalRealtime) -> None:
    async with wire(db, db.token("nobody_here")) as client:
        assert (await client.join(ROOM, private=True))[4]["status"] == "error"
        assert (await client.join(ROOM))[4]["status"] == "ok"


async def test_a_replayed_message_is_not_told_twice(db: LocalRealtime) -> None:
    await db.sql("select realtime.send('{}', 'one', 'private-room')")
    # A message sent from Python is in the same replay.
    db.broadcast("private-room", "two", {"x": 1}, private=True)
    async with wire(db, db.token("authenticated", "u")) as client:
        replay = {"replay": {"since": int((time.time() - 60) * 1000), "limit": 5}}
        await client.join(ROOM, private=True, broadcast=replay)
        assert [(await client.recv())[4]["event"] for _ in range(2)] == ["one", "two"]
        await db.sql("select realtime.send('{}', 'three', 'private-room')")
        assert b"three" in await client.recv()


async def test_a_send_that_fails_only_warns(db: LocalRealtime) -> None:
    async with wire(db) as client:
        await client.join(TOPIC)
        await db.sql("select realtime.send('[1]', 'e', 'room', false)")
        await db.sql("select realtime.send('{\"id\": 5}', 'e', 'room', false)")
        assert (await client.recv()).endswith(b'{"id": 5}')


# -- the status page -----------------------------------------------------------------------


async def test_the_status_page_inserts_real_rows(db: LocalRealtime) -> None:
    headers = as_page(db)
    url = f"{db.url}/inspector/rows"
    async with wire(db) as client, aiohttp.ClientSession(headers=headers) as session:
        await subscribe(client, {"table": "plain"})
        async with session.get(url) as response:
            tables = (await response.json())["tables"]
            assert tables[:2] == ["public.all_types", "public.messages"]
        for record, v in (({"v": "typed"}, "typed"), ({}, None)):
            async with session.post(url, json={"table": "plain", "record": record}) as response:
                row = (await response.json())["row"]
            assert row == {"id": row["id"], "v": v}
            assert (await change(client))["record"] == row
        body = {"table": "plain", "record": {"nope": 1}}
        async with session.post(url, json=body) as response:
            assert response.status == 400
            assert '"nope"' in (await response.json())["error"]

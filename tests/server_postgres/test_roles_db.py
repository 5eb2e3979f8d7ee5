"""No statement caused by a client runs as a superuser, in any database."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from supabase_rt.server import LocalRealtime
from supabase_rt.server._http.status_page.page import RowRefused
from supabase_rt.server._postgres.database import Database
from supabase_rt.server._postgres.embedded import OURS, EmbeddedPostgres
from supabase_rt.server._postgres.errors import DatabaseProblem
from supabase_rt.server._postgres.setup import OPEN_PUBLIC
from tests.server.kit import wire

from ..server.test_rest import fetch
from .test_changes_db import TOPIC, change, subscribe
from .test_database import ROOM, query, run

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
LEAVING = ("reset role", "set role none", "set session authorization default", "set role postgres")
"""Statements by which a function may leave the role of a token."""


@pytest.fixture
def mark(open_folder: Path) -> Path:
    """The path of a file that a program would create, in a folder open to PostgreSQL."""
    open_folder.chmod(0o777)
    return open_folder / "made"


async def escape(db: LocalRealtime, mark: Path) -> None:
    """Create ``escape()``, which tries every way to leave its role, then runs a program."""
    attempts = "\n".join(
        f"begin execute '{way}'; exception when others then null; end;" for way in LEAVING
    )
    await db.sql(
        "drop function if exists escape cascade;"
        "create function escape() returns boolean language plpgsql as $$ begin\n"
        f"{attempts}\n"
        f"copy (select 1) to program 'touch {mark}';\n"
        "return true; end $$"
    )


def made(mark: Path) -> bool:
    """Returns True if the program ran."""
    return mark.exists()


def rows(db: LocalRealtime) -> Any:
    """The tables of the status page."""
    return cast("Database", db.backend.database).rows


@pytest.fixture(params=["embedded", "given"])
async def either(
    request: pytest.FixtureRequest, prepared: EmbeddedPostgres
) -> AsyncIterator[LocalRealtime]:
    """A server with our own database, and one with a superuser's URL of another database."""
    url = prepared.url
    if request.param == "given":
        query(prepared, "drop database if exists foreign_one with (force)")
        query(prepared, "create database foreign_one")
        # Without this setting, the server treats the embedded database as a foreign one.
        url = prepared.url_of("foreign_one") + f"&options=-c%20{OURS}%3Doff"
    async with LocalRealtime(db=url) as server:
        await server.sql(
            "drop table if exists plain; create table plain (id bigserial primary key, v text);"
            "grant all on all tables in schema public to anon, authenticated, service_role;"
            "grant all on all sequences in schema public to anon, authenticated, service_role;"
            "alter publication supabase_realtime set table plain"
        )
        yield server
        await server.sql("drop table if exists plain cascade; drop function if exists escape")


# -- the row box ---------------------------------------------------------------------------


async def test_the_row_box_writes_to_no_table_of_the_system(either: LocalRealtime) -> None:
    for name, record in (
        ("pg_catalog.pg_proc", {"proname": "evil"}),
        ("pg_catalog.pg_authid", {"oid": 99999, "rolname": "evil", "rolsuper": True}),
        ("pg_toast.pg_toast_1255", {}),
        ("information_schema.sql_features", {"feature_id": "x"}),
        ("realtime.messages", {"topic": "x", "extension": "broadcast"}),
        ("auth.users", {}),
    ):
        schema, _, table = name.partition(".")
        with pytest.raises(RowRefused, match="not for the status page"):
            await rows(either).insert(schema, table, record)
    assert await either.sql("select from pg_roles where rolname = 'evil'") == []


async def test_the_row_box_has_no_right_to_the_system_either(either: LocalRealtime) -> None:
    await either.sql(
        "create or replace function rise() returns trigger language plpgsql as $$ begin"
        " update pg_authid set rolsuper = true where rolname = 'anon'; return new; end $$;"
        "create trigger rise before insert on plain for each row execute function rise()"
    )
    with pytest.raises(RowRefused, match="permission denied for table pg_authid"):
        await rows(either).insert("public", "plain", {})
    assert await either.sql("select from pg_roles where rolname = 'anon' and rolsuper") == []


async def test_a_view_is_no_way_into_the_system_for_the_row_box(either: LocalRealtime) -> None:
    # A view has the rights of its owner, who may write to the catalog.
    await either.sql(
        "create view functions as select * from pg_proc; grant all on functions to service_role"
    )
    try:
        with pytest.raises(RowRefused, match=r"public.functions is no table"):
            await rows(either).insert("public", "functions", {"proname": "evil"})
    finally:
        await either.sql("drop view functions")


async def test_a_trigger_of_the_row_box_runs_no_program(either: LocalRealtime, mark: Path) -> None:
    await either.sql(
        "create or replace function touch() returns trigger language plpgsql as $$ begin"
        f" copy (select 1) to program 'touch {mark}'; return new; end $$;"
        "create trigger touch before insert on plain for each row execute function touch()"
    )
    with pytest.raises(RowRefused, match="permission denied to COPY"):
        await rows(either).insert("public", "plain", {"v": "x"})
    assert not made(mark)


async def test_what_a_trigger_sets_is_gone_with_its_row(either: LocalRealtime) -> None:
    await either.sql(
        "create or replace function stay() returns trigger language plpgsql as $$ begin"
        " new.v = current_setting('request.jwt.claims', true) || current_setting('search_path');"
        " perform set_config('search_path', 'evil', false);"
        " perform set_config('request.jwt.claims', 'evil', false); return new; end $$;"
        "create trigger stay before insert on plain for each row execute function stay()"
    )
    for _ in range(2):
        assert "evil" not in (await rows(either).insert("public", "plain", {}))["v"]


# -- policies, filters, tables -------------------------------------------------------------


async def test_a_policy_that_gives_its_role_back_runs_no_program_over_rest(
    db: LocalRealtime, mark: Path
) -> None:
    await escape(db, mark)
    await db.sql(
        "drop table if exists guarded; create table guarded (id int primary key);"
        "insert into guarded values (1); alter table guarded enable row level security;"
        "create policy p on guarded using (escape())"
    )
    status, body, _ = await fetch(db, "guarded")
    assert (status, body["code"]) == (401, "42501")
    assert not made(mark)


async def test_a_policy_that_gives_its_role_back_runs_no_program_for_a_change(
    db: LocalRealtime, mark: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await escape(db, mark)
    await db.sql(
        "drop table if exists guarded; create table guarded (id int primary key);"
        "alter table guarded enable row level security;"
        "create policy p on guarded using (escape());"
        "alter publication supabase_realtime add table guarded"
    )
    async with wire(db) as other, wire(db) as client:
        await subscribe(other, {"table": "guarded"})
        await subscribe(client, {"table": "plain"})
        await db.sql("insert into guarded values (1)")
        await db.sql("insert into plain(v) values ('x')")
        assert (await change(client))["table"] == "plain"
    assert "permission denied to COPY" in caplog.text
    assert not made(mark)


async def test_a_policy_that_gives_its_role_back_runs_no_program_at_a_join(
    db: LocalRealtime, mark: Path
) -> None:
    await escape(db, mark)
    await db.sql("create policy p on realtime.messages for select using (escape())")
    try:
        async with wire(db, db.token()) as client:
            # No other policy allows this, so Postgres evaluates this one.
            reply = await client.join("realtime:elsewhere", private=True)
            assert reply[4]["status"] == "error"
    finally:
        await db.sql("drop function escape cascade")
    assert not made(mark)


async def test_a_trigger_on_the_messages_runs_no_program_at_a_join(
    db: LocalRealtime, mark: Path
) -> None:
    await escape(db, mark)
    await db.sql(
        "create or replace function touch() returns trigger language plpgsql as $$ begin"
        " perform escape(); return new; end $$;"
        "create trigger touch before insert on realtime.messages"
        " for each row execute function touch()"
    )
    try:
        async with wire(db, db.token()) as client:
            assert (await client.join(ROOM, private=True))[4]["status"] == "error"
    finally:
        await db.sql("drop function touch cascade")
    assert not made(mark)


async def test_an_operator_of_somebody_runs_no_program_for_a_filter(
    db: LocalRealtime, mark: Path
) -> None:
    await escape(db, mark)
    await db.sql(
        "drop table if exists moods; drop type if exists mood cascade;"
        "create type mood as enum ('calm', 'wild');"
        "create function same(mood, mood) returns boolean language sql as 'select escape()';"
        "create operator public.= (leftarg = mood, rightarg = mood, function = same);"
        "create table moods (id int primary key, m mood);"
        "grant all on moods to anon, authenticated;"
        "alter publication supabase_realtime add table moods"
    )
    try:
        async with wire(db) as attacker, wire(db) as client:
            await subscribe(attacker, {"table": "moods", "filter": "m=eq.calm"})
            await subscribe(client, {"table": "plain"})
            await db.sql("insert into moods values (1, 'calm')")
            await db.sql("insert into plain(v) values ('x')")
            assert (await change(client))["table"] == "plain"
    finally:
        await db.sql("drop table moods; drop type mood cascade")
    assert not made(mark)


async def test_types_of_any_schema_are_told(db: LocalRealtime) -> None:
    await db.sql(
        "drop schema if exists app cascade; create schema app;"
        "create type app.mood as enum ('calm', 'wild');"
        "create table app.moods (id int primary key, m app.mood);"
        "grant usage on schema app to anon; grant select on app.moods to anon;"
        "alter publication supabase_realtime add table app.moods"
    )
    async with wire(db) as client:
        binding = {"schema": "app", "table": "moods", "filter": "m=eq.calm"}
        assert (await subscribe(client, binding))["status"] == "ok"
        await db.sql("insert into app.moods values (1, 'wild'), (2, 'calm')")
        assert (await change(client))["record"] == {"id": 2, "m": "calm"}
    await db.sql("drop schema app cascade")


async def test_schemas_of_the_system_are_not_told(db: LocalRealtime) -> None:
    await db.sql(
        "drop table if exists auth.secrets; create table auth.secrets (id int primary key);"
        "grant select on auth.secrets to anon;"
        "alter publication supabase_realtime add table auth.secrets"
    )
    try:
        async with wire(db) as client:
            await subscribe(client, {"schema": "*", "table": "*"})
            await db.sql("insert into auth.secrets values (1)")
            await db.sql("insert into plain(v) values ('x')")
            assert (await change(client))["table"] == "plain"
            assert "auth.secrets" not in await rows(db).tables()
    finally:
        await db.sql("drop table auth.secrets")


# -- roles of tokens -----------------------------------------------------------------------

NOBODY = ("none", "postgres", "authenticator", "supabase_realtime_admin", "pg_read_all_data")


@pytest.mark.parametrize("role", NOBODY)
async def test_a_role_that_was_not_granted_is_nobody(role: str, either: LocalRealtime) -> None:
    await either.sql("insert into plain (v) values ('x')")
    token = either.token(role=role)
    status, _, _ = await fetch(either, "plain", token=token)
    assert status in (400, 403)
    async with wire(either, token) as client:
        assert (await client.join(ROOM, private=True))[4]["status"] == "error"
        bindings = [{"event": "*", "schema": "public", "table": "plain"}]
        await client.join(TOPIC, postgres_changes=bindings)
        said = await client.recv()
        assert said[4]["status"] == "error", said
        assert role in said[4]["message"]


async def test_a_role_granted_to_authenticator_is_one_more_role(db: LocalRealtime) -> None:
    await db.sql(
        "drop role if exists premium; create role premium nologin; grant select on plain to premium"
    )
    try:
        await db.sql("insert into plain (v) values ('x')")
        token = db.token(role="premium")
        assert (await fetch(db, "plain", token=token))[0] == 403
        await db.sql("grant premium to authenticator")
        assert (await fetch(db, "plain?select=v", token=token))[1] == [{"v": "x"}]
        await db.sql("revoke premium from authenticator")
        assert (await fetch(db, "plain", token=token))[0] == 403
        await db.sql("grant premium to authenticator")
        # A role that may run programs is refused, at the latest after the check expires.
        await db.sql("grant pg_execute_server_program to premium")
        await asyncio.sleep(1.1)
        assert (await fetch(db, "plain", token=token))[0] == 403
    finally:
        await db.sql("drop owned by premium; drop role premium")


async def test_a_long_name_is_not_cut_to_that_of_another_role(db: LocalRealtime) -> None:
    name = "r" * 63
    await db.sql(f"drop role if exists {name}; create role {name} superuser")
    try:
        status, _, _ = await fetch(db, "plain", token=db.token(role=name + "more"))
        assert status == 400
    finally:
        await db.sql(f"drop role {name}")


async def test_no_session_for_clients_is_a_superusers(either: LocalRealtime) -> None:
    await either.sql(
        "create or replace view me as select session_user::text as session, current_user::text as"
        " now, usesuper from pg_user where usename = session_user; grant select on me to anon"
    )
    try:
        found = {"session": "authenticator", "now": "anon", "usesuper": False}
        assert (await fetch(either, "me"))[1] == [found]
    finally:
        await either.sql("drop view me")


async def test_the_authenticator_has_no_right_of_its_own(db: LocalRealtime) -> None:
    # A role that a user has created, and that inherits the rights granted to it.
    await db.sql("grant service_role to authenticator with inherit true")
    await db.sql("alter role authenticator inherit createdb bypassrls replication")
    async with LocalRealtime(db=db.database_url) as other:
        assert await other.sql(
            "select rolsuper or rolinherit or rolreplication or rolbypassrls or rolcreaterole"
            " or rolcreatedb or has_table_privilege('authenticator', 'plain', 'select') as may"
            " from pg_roles where rolname = 'authenticator'"
        ) == [{"may": False}]


# -- data of an earlier version ------------------------------------------------------------


def first_version(folder: Path) -> None:
    """Create a data folder as version 0.1.0 left it: the superuser owns all but three roles."""
    schema = resources.files("supabase_rt.server._postgres").joinpath("schema.sql")
    with EmbeddedPostgres(folder) as postgres:
        hba = "local all all trust\nlocal replication all trust\n"
        (folder / "pg_hba.conf").write_text(hba)
        with psycopg.connect(postgres.url, autocommit=True) as conn, conn.transaction():
            conn.execute(schema.read_bytes())
            conn.execute(OPEN_PUBLIC.encode())
            conn.execute("create publication supabase_realtime")
            conn.execute("create schema app; create type app.mood as enum ('calm')")
            conn.execute("create table kept (id int primary key, m app.mood)")
            conn.execute("insert into kept values (1, 'calm')")
            conn.execute("alter publication supabase_realtime add table kept")


async def test_a_folder_of_the_first_version_gets_the_roles(open_folder: Path) -> None:
    folder = open_folder / "kept"
    await asyncio.to_thread(first_version, folder)
    for _ in range(2):
        async with LocalRealtime(embedded_db=folder) as server, wire(server) as client:
            assert (await fetch(server, "kept"))[1] == [{"id": 1, "m": "calm"}]
            assert (await subscribe(client, {"table": "kept"}))["status"] == "ok"
            await server.sql("update kept set m = 'calm'")
            assert (await change(client))["record"] == {"id": 1, "m": "calm"}
            with pytest.raises(RowRefused, match="duplicate key"):
                await rows(server).insert("public", "kept", {"id": 1})
            owners = await server.sql(
                "select distinct pg_get_userbyid(nspowner) as name from pg_namespace"
                " where nspname in ('auth', 'realtime') union"
                " select pg_get_userbyid(relowner) from pg_class where relname = 'messages' union"
                " select pg_get_userbyid(proowner) from pg_proc"
                " where pronamespace in ('auth'::regnamespace, 'realtime'::regnamespace)"
            )
            assert owners == [{"name": "supabase_realtime_admin"}]


# -- a database of the user's own ----------------------------------------------------------


async def test_an_authenticator_that_is_not_fit_is_said_to_be(prepared: EmbeddedPostgres) -> None:
    async with LocalRealtime(db=prepared.url):
        pass
    await run(prepared, "revoke anon from authenticator")
    try:
        with pytest.raises(DatabaseProblem, match=r"permission denied to set role.*GRANT anon"):
            await LocalRealtime(db=prepared.url).start()
    finally:
        await run(prepared, "grant anon to authenticator")


# -- other users of the machine ------------------------------------------------------------

STRANGER = """
import os, sys
import psycopg
os.setgroups([]); os.setgid(1); os.setuid(1)
try:
    psycopg.connect(sys.argv[1]).close()
except psycopg.OperationalError as exc:
    print(exc)
else:
    print("in")
"""


@pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")
def test_another_user_of_the_machine_is_not_let_in(postgres: EmbeddedPostgres) -> None:
    def attempt() -> str:
        words = [sys.executable, "-c", STRANGER, postgres.url]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    sockets = Path(postgres.url.rpartition("=")[2].replace("%2F", "/"))
    assert sockets.stat().st_mode & 0o077 == 0
    assert "Permission denied" in attempt()
    # The folder is refused even if it was opened to others.
    sockets.chmod(0o711)
    try:
        assert "authentication failed" in attempt()
    finally:
        sockets.chmod(0o700)


def test_a_database_of_ours_has_no_port(postgres: EmbeddedPostgres) -> None:
    assert query(postgres, "show listen_addresses") == [("",)]
    kinds = query(postgres, "select distinct type, auth_method from pg_hba_file_rules")
    assert kinds == [("local", "peer")]


@pytest.mark.skipif(not IS_ROOT, reason="only root runs it as another user")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_secrets_of_roots_environment_stay_with_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_JWT_SECRET", "roots-own-and-nobody-elses")
    with EmbeddedPostgres() as found:
        ((folder,),) = query(found, "show data_directory")
        server = (Path(folder) / "postmaster.pid").read_text().split()[0]
        keeper = Path(f"/proc/{server}/stat").read_text().split()[3]
        for process in (server, keeper):
            environment = Path(f"/proc/{process}/environ").read_bytes()
            assert b"PATH=" in environment
            assert b"roots-own" not in environment


# -- root ----------------------------------------------------------------------------------


@pytest.mark.skipif(not IS_ROOT, reason="only root gives files away")
def test_root_gives_no_file_of_others_away_with_a_folder(open_folder: Path) -> None:
    folder, secret = open_folder / "data", open_folder / "secret"
    EmbeddedPostgres(folder).start().stop()
    secret.write_text("root's")
    os.link(secret, folder / "link")
    with EmbeddedPostgres(folder):
        assert secret.stat().st_uid == 0


@pytest.mark.skipif(not IS_ROOT, reason="only root gives files away")
@pytest.mark.parametrize("swapped", ["folder", "parent"])
def test_root_follows_no_folder_that_was_swapped(open_folder: Path, swapped: str) -> None:
    victim = open_folder / "victim"
    (victim / "data").mkdir(parents=True)
    mine = open_folder / "mine"
    mine.mkdir()
    # A path that another user replaces right after the process has checked it.
    postgres = EmbeddedPostgres(mine / "data")
    if swapped == "folder":
        (mine / "data").symlink_to(victim / "data")
    else:
        mine.rmdir()
        mine.symlink_to(victim)
    with pytest.raises(DatabaseProblem, match="symbolic link"):
        postgres.start()
    assert (victim / "data").stat().st_uid == 0


@pytest.mark.skipif(not IS_ROOT, reason="only root is refused the data of others")
def test_root_does_not_take_the_data_of_another_user(open_folder: Path) -> None:
    folder = open_folder / "data"
    EmbeddedPostgres(folder).start().stop()
    os.chown(folder, 1, 1)
    with pytest.raises(DatabaseProblem, match=r"belongs to daemon.*chown -R"):
        EmbeddedPostgres(folder).start()
    assert folder.stat().st_uid == 1

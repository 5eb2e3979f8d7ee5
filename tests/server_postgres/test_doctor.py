"""``supabase-rt doctor --db``: the checks of the database."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from supabase_rt.cli.doctor import Report, check_database
from supabase_rt.server import LocalRealtime
from supabase_rt.server._postgres.embedded import EmbeddedPostgres


def examine(url: str, table: str | None = None, role: str = "anon") -> dict[str, tuple[str, str]]:
    report = Report(lambda result: None)
    check_database(report, url, schema="public", table=table, role=role, timeout=5)
    return {each.name: (each.state, f"{each.text} {each.remedy}") for each in report.results}


@pytest.fixture
def connection(db: LocalRealtime, prepared: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    with psycopg.connect(prepared.url, autocommit=True) as found:
        yield found
        found.execute("drop table if exists outside, closed, owned, silent")


def test_a_sound_table_is_well(connection: psycopg.Connection, prepared: EmbeddedPostgres) -> None:
    found = examine(prepared.url, "messages")
    assert [name for name, (state, _) in found.items() if state == "fail"] == []
    assert found["old rows"][0] == "ok"
    assert found["policies"][0] == "warn"
    assert found["private"][0] == "ok"


@pytest.mark.parametrize(
    ("statement", "table", "check", "words"),
    [
        ("select 1", "nowhere", "table", "there is no table public.nowhere"),
        ("create table outside (id int)", "outside", "table", "add table outside"),
        (
            "create table closed (id int primary key); revoke all on closed from anon",
            "closed",
            "grants",
            "grant select on closed to anon",
        ),
        (
            """create table owned (id int); grant select on owned to anon;
            alter table owned enable row level security;
            create policy own on owned for select to authenticated using (true)""",
            "owned",
            "policies",
            "no policy for anon",
        ),
        (
            "create table silent (id int); alter table silent replica identity nothing",
            "silent",
            "old rows",
            "no UPDATE and no DELETE",
        ),
    ],
)
def test_what_keeps_a_table_silent_is_named(
    connection: psycopg.Connection,
    prepared: EmbeddedPostgres,
    statement: str,
    table: str,
    check: str,
    words: str,
) -> None:
    connection.execute(statement.encode())
    state, said = examine(prepared.url, table)[check]
    assert state == "fail"
    assert words in said


def test_a_policy_for_the_role_is_found(
    connection: psycopg.Connection, prepared: EmbeddedPostgres
) -> None:
    found = examine(prepared.url, "private_notes", "authenticated")
    assert found["policies"] == ("ok", "1 for select by authenticated ")


@pytest.mark.parametrize(
    ("breaking", "mending", "words"),
    [
        (
            "alter publication supabase_realtime set (publish = 'insert')",
            "alter publication supabase_realtime set (publish = 'insert, update, delete')",
            "leaves out UPDATE, DELETE",
        ),
        (
            "alter publication supabase_realtime rename to elsewhere",
            "alter publication elsewhere rename to supabase_realtime",
            "there is no publication",
        ),
    ],
)
def test_a_publication_that_lacks_something(
    connection: psycopg.Connection,
    prepared: EmbeddedPostgres,
    breaking: str,
    mending: str,
    words: str,
) -> None:
    connection.execute(breaking.encode())
    try:
        assert words in examine(prepared.url)["publication"][1]
    finally:
        connection.execute(mending.encode())


def test_a_role_that_is_none(connection: psycopg.Connection, prepared: EmbeddedPostgres) -> None:
    assert "--role" in examine(prepared.url, "messages", "somebody")["table"][1]


@pytest.mark.parametrize("password", ["letmein", "let@letmein"])
def test_a_database_that_cannot_be_reached_shows_no_password(password: str) -> None:
    state, said = examine(f"postgresql://me:{password}@127.0.0.1:1/x")["database"]
    assert state == "fail"
    assert "letmein" not in said

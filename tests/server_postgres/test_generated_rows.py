"""Rows that ``gen types`` wrote, from the database through the socket into a handler."""

from __future__ import annotations

import datetime
import importlib.util
import sys
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from supabase_rt import DecodeError, RealtimeClient
from supabase_rt.cli.gen_types import read_database, render
from supabase_rt.server import LocalRealtime
from supabase_rt.server._postgres.embedded import EmbeddedPostgres

from ..support.clients import QUICK
from ..support.recorder import ClientEvents, Recorder
from ..support.waiting import until

TABLE = """
drop schema if exists parts cascade;
create schema parts;
create type parts.state as enum ('new', 'in progress', 'done');
create table parts.everything (
    id bigint primary key, price numeric(20, 4) not null, seen timestamptz not null, day date,
    token uuid not null, photo bytea not null, state parts.state not null, history parts.state[],
    tags text[], prices numeric[], tokens uuid[], moments timestamptz[], grid int[][],
    meta jsonb, "class" text, flag boolean not null, missing text
);
alter table parts.everything replica identity full;
alter publication supabase_realtime add table parts.everything;
grant usage on schema parts to anon, authenticated, service_role;
grant select on parts.everything to anon, authenticated, service_role;
"""

INSERT = r"""
insert into parts.everything values (
    9007199254740993, 1234567890123456.7890, '2026-01-02 03:04:05.678901+02', '2026-02-03',
    '00000000-0000-4000-8000-000000000001', '\x00ff10', 'in progress', '{new,"in progress"}',
    '{a,"b,c"}', '{1.50}', '{00000000-0000-4000-8000-000000000002}',
    '{"2026-01-01 00:00:00+00"}', '{{1,2},{3,4}}', '{"a": [1, 2.5]}', 'first', true
);
"""

EVERYTHING: Any = {"event": "*", "schema": "parts", "table": "everything"}


@pytest.fixture
async def rows(
    db: LocalRealtime, prepared: EmbeddedPostgres, tmp_path: Path
) -> AsyncIterator[ModuleType]:
    """The module that ``gen types`` writes for the table."""
    await db.sql(TABLE)
    text, _ = render(read_database(prepared.url, ["parts"]))
    path = tmp_path / "generated_parts.py"
    path.write_text(text)
    found = load(path)
    yield found
    sys.modules.pop("generated_parts", None)
    await db.sql("drop schema parts cascade")


@pytest.fixture
async def client(db: LocalRealtime) -> AsyncIterator[RealtimeClient]:
    found = RealtimeClient(db.ws_url, params={"apikey": db.anon_key}, reconnect=QUICK)
    yield found
    await found.remove_all_channels()


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


async def test_generated_rows_arrive_with_the_types_of_their_columns(
    db: LocalRealtime, rows: Any, client: RealtimeClient
) -> None:
    seen, plain = Recorder(), Recorder()
    errors = ClientEvents(client)
    channel = client.channel("room").on(
        "postgres_changes", EVERYTHING, seen, model=rows.EverythingRow
    )
    channel.on("postgres_changes", EVERYTHING, plain)
    stream = channel.stream("postgres_changes", EVERYTHING, model=rows.EverythingRow)
    await channel.subscribe()
    await channel.ready()
    waiting = channel.wait_for("postgres_changes", EVERYTHING, model=rows.EverythingRow, timeout=20)
    await db.sql(INSERT)
    await db.sql("update parts.everything set price = 0.5, state = 'done', tags = null")
    await db.sql("delete from parts.everything")
    inserted, updated, deleted = await seen.count(3, 20)

    expected = rows.EverythingRow(
        id=9007199254740993,
        price=Decimal("1234567890123456.7890"),
        seen=datetime.datetime(2026, 1, 2, 1, 4, 5, 678901, tzinfo=datetime.UTC),
        day=datetime.date(2026, 2, 3),
        token=uuid.UUID("00000000-0000-4000-8000-000000000001"),
        photo=b"\x00\xff\x10",
        state=rows.State.IN_PROGRESS,
        history=[rows.State.NEW, rows.State.IN_PROGRESS],
        tags=["a", "b,c"],
        prices=[Decimal("1.50")],
        tokens=[uuid.UUID("00000000-0000-4000-8000-000000000002")],
        moments=[datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)],
        grid=[[1, 2], [3, 4]],
        meta={"a": [1, 2.5]},
        class_="first",
        flag=True,
        missing=None,
    )
    assert inserted.new == expected
    assert str(inserted.new.price) == "1234567890123456.7890"
    assert isinstance(inserted.new.state, rows.State)
    assert isinstance(inserted.new.id, int)
    assert (await anext(stream)).new == (await waiting).new == expected
    assert (updated.new.price, updated.new.state, updated.new.tags) == (
        Decimal("0.5000"),
        rows.State.DONE,
        None,
    )
    assert updated.old == expected
    assert (deleted.new, deleted.old.id) == (None, expected.id)
    assert plain.seen[0].new["class"] == "first"
    assert errors.errors == []
    await stream.aclose()


async def test_an_element_of_an_array_may_be_null(
    db: LocalRealtime, rows: Any, client: RealtimeClient
) -> None:
    seen: list[Any] = []
    inserts = {**EVERYTHING, "event": "INSERT"}
    channel = client.channel("room")
    channel.on("postgres_changes", inserts, seen.append, model=rows.EverythingRow)
    await channel.subscribe()
    await channel.ready()
    await db.sql(INSERT.replace("'{a,", "'{NULL,"))
    await until(lambda: seen, 20)
    assert seen[0].new.tags[0] is None


async def test_a_value_that_the_types_do_not_know_is_an_error_of_the_handler(
    db: LocalRealtime, rows: Any, client: RealtimeClient
) -> None:
    """It names the column, and the next row arrives."""
    seen: list[Any] = []
    events = ClientEvents(client)

    def handler(change: Any) -> None:
        seen.append(change.new)

    inserts = {**EVERYTHING, "event": "INSERT"}
    channel = client.channel("room")
    channel.on("postgres_changes", inserts, handler, model=rows.EverythingRow)
    await channel.subscribe()
    await channel.ready()
    await db.sql("alter type parts.state add value 'lost'")
    await db.sql(INSERT.replace("'in progress', '{new", "'lost', '{new"))
    await db.sql(INSERT.replace("9007199254740993", "2"))
    await until(lambda: seen, 20)
    ((error, event, told),) = events.of("error")
    assert isinstance(error, DecodeError)
    assert "parts.everything: column 'state'" in str(error)
    assert (event.table, told, [one.id for one in seen]) == ("everything", handler, [2])

"""Hostile tables, databases and messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import psycopg
import pytest

from supabase_rt.server import LocalRealtime
from supabase_rt.server._postgres.embedded import EmbeddedPostgres
from supabase_rt.server._postgres.replication.follower import Follower
from supabase_rt.server._postgres.replication.pgoutput import (
    EPOCH,
    Begin,
    Insert,
    Message,
    Relation,
    RelationColumn,
)
from supabase_rt.server._postgres.replication.row_changes import RowChange
from supabase_rt.server._postgres.replication.stream import Arrived
from tests.server.kit import Wire, as_page, wire
from tests.support.waiting import until

from .tables import OTHER, OWNER
from .test_changes_db import TOPIC, change, make, silent, subscribe, told_of_a_miss

GENERATED = "the log holds generated columns as of PostgreSQL 18"


@pytest.fixture
async def client(db: LocalRealtime) -> AsyncIterator[Wire]:
    async with wire(db) as found:
        yield found


async def test_a_domain_that_allows_no_null_is_one_in_half_a_row_too(
    db: LocalRealtime, client: Wire
) -> None:
    await db.sql("drop domain if exists outer_name, name_of cascade")
    await db.sql("create domain name_of as varchar(9) not null check (value <> '')")
    await db.sql("create domain outer_name as name_of")
    await make(db, "id int primary key, a name_of, b outer_name")
    answer = await subscribe(client, {"table": "things"}, {"table": "things", "filter": "b=eq.y"})
    assert answer["status"] == "ok", answer
    await db.sql("insert into things values (1, 'x', 'y')")
    found = await change(client)
    assert found["record"] == {"id": 1, "a": "x", "b": "y"}
    assert [column["type"] for column in found["columns"]] == ["int4", "name_of", "outer_name"]
    await db.sql("update things set a = 'z'; delete from things")
    assert (await change(client))["record"]["a"] == "z"
    assert (await change(client))["old_record"] == {"id": 1}


async def test_generated_columns_are_told(db: LocalRealtime, client: Wire) -> None:
    rows = await db.sql("select current_setting('server_version_num')::int >= 180000 as new")
    if not rows[0]["new"]:
        pytest.skip(GENERATED)
    await make(
        db,
        "id int primary key, double int generated always as (id * 2) stored",
        "alter table things replica identity full",
    )
    answer = await subscribe(client, {"table": "things", "filter": "double=gt.2"})
    assert answer["status"] == "ok", answer
    await db.sql("insert into things values (1), (2); update things set id = 3 where id = 2")
    assert (await change(client))["record"] == {"id": 2, "double": 4}
    found = await change(client)
    assert found["record"] == {"id": 3, "double": 6}
    assert found["old_record"] == {"id": 2, "double": 4}


async def test_a_new_token_misses_no_change(db: LocalRealtime, client: Wire) -> None:
    owner = db.token(sub=OWNER, role="authenticated")
    await subscribe(client, {"table": "plain"}, token=owner)
    async with await psycopg.AsyncConnection.connect(db.database_url) as other:
        # This lock blocks the subscription, and the change is committed meanwhile.
        await other.execute("lock table pg_publication")
        token = db.token(sub=OTHER, role="authenticated")
        await client.send("1", "2", TOPIC, "access_token", {"access_token": token})
        await until(lambda: waits_for_lock(db))
        await db.sql("insert into plain(v) values ('meanwhile')")
        await other.rollback()
    frames = [(await client.recv()) for _ in range(2)]
    assert {frame[3] for frame in frames} == {"system", "postgres_changes"}


def waits_for_lock(db: LocalRealtime) -> bool:
    with psycopg.connect(db.database_url, autocommit=True) as conn:
        found = conn.execute("select from pg_locks where not granted").fetchall()
    return bool(found)


@pytest.mark.parametrize("where", ["topic", "filter", "table"])
@pytest.mark.parametrize("text", ["\ud800", "\0"], ids=["half", "nul"])
async def test_what_no_text_of_a_database_holds_is_refused_and_holds_up_nothing(
    db: LocalRealtime, client: Wire, where: str, text: str
) -> None:
    if where == "topic":
        config: dict[str, Any] = {"private": True}
    else:
        names = {"table": "plain", "filter": "v=eq.x"}
        names[where] += text
        config = {"postgres_changes": [{"event": "*", "schema": "public", **names}]}
    topic = f"realtime:private-room{text}" if where == "topic" else TOPIC
    payload = {"config": config, "access_token": db.token(sub=OWNER, role="authenticated")}
    reply = await client.ask("1", "1", topic, "phx_join", payload)
    if where == "topic":
        assert reply[4]["response"]["reason"].startswith("Unauthorized")
    else:
        said = (await client.recv())[4]
        assert (said["status"], said["message"][:19]) == ("error", "Unable to subscribe")
    reply = await client.ask(None, "9", "phoenix", "heartbeat", {})
    assert reply[4] == {"status": "ok", "response": {}}
    assert await silent(client)


async def test_a_database_may_write_bytes_in_its_own_way(postgres: EmbeddedPostgres) -> None:
    url = f"{postgres.url}&options=-c%20bytea_output%3Descape"
    async with LocalRealtime(db=url) as server, wire(server) as client:
        await client.ask("1", "1", TOPIC, "phx_join", {"config": {}})
        await server.sql("select realtime.send_binary('\\x00ff5c', 'e', 'room', false)")
        assert (await client.recv()).endswith(b"\x00\xff\x5c")


async def test_a_filter_that_fails_costs_its_own_channel_the_change(
    db: LocalRealtime, client: Wire
) -> None:
    """Postgres detects the unfinished pattern only when it matches a value."""
    answer = await subscribe(client, {"table": "plain", "filter": "v=like.abc\\"})
    assert answer["status"] == "ok", answer
    async with wire(db) as other:
        await subscribe(other, {"table": "plain"}, {"table": "plain", "filter": "v=like.abc%"})
        await db.sql("insert into plain(v) values ('abcd')")
        frame = await other.recv()
        assert (frame[4]["data"]["record"]["v"], len(frame[4]["ids"])) == ("abcd", 2)
    assert await told_of_a_miss(client) == (
        "Unable to tell of 1 change of public.plain: ERROR 22025 (invalid_escape_sequence)"
    )
    assert await silent(client)
    assert db.missed_changes == 1


async def test_the_status_page_inserts_into_columns_of_any_name(db: LocalRealtime) -> None:
    await make(db, 'id int primary key, "a %s" text')
    url, headers = f"{db.url}/inspector/rows", as_page(db)
    async with aiohttp.ClientSession(headers=headers) as session:

        async def post(table: str, record: dict[str, Any]) -> tuple[int, Any]:
            async with session.post(url, json={"table": table, "record": record}) as response:
                return response.status, await response.json()

        row = {"id": 1, "a %s": "x"}
        assert await post("public.things", row) == (200, {"row": row})
        assert (await post("public.things\ud800", row))[0] == 400


# -- the follower by itself ----------------------------------------------------------------

BEGIN = Begin(1, EPOCH, 7)
RELATION = Relation(1, "public", "t", "d", (RelationColumn("id", 23, is_key=True),))


class Stream:
    """A stream with one row, and nothing after it."""

    def __init__(self, *values: str) -> None:
        rows = [Insert(1, (value,)) for value in values]
        self._coming: list[Message] = [BEGIN, RELATION, *rows]
        self.confirmed: list[int] = []

    def ready(self) -> Arrived | None:
        return Arrived(self._coming.pop(0), 1) if self._coming else None

    async def wait(self) -> None:
        await asyncio.Event().wait()

    def confirm(self, lsn: int) -> None:
        self.confirmed.append(lsn)

    async def close(self) -> None:
        pass


async def test_a_mistake_of_ours_does_not_end_the_following_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    streams: list[Any] = [Stream("1"), Stream("2")]
    told: list[Any] = []

    async def open_stream() -> Any:
        return streams.pop(0)

    async def tell(changes: Sequence[RowChange]) -> None:
        if streams:
            raise RuntimeError("a mistake")
        told.extend(change.new for change in changes)

    follower = Follower(open_stream, tell, lambda *_: None)
    task = asyncio.create_task(follower.run())
    await until(lambda: told)
    assert told == [{"id": "2"}]
    assert "a mistake" in caplog.text
    task.cancel()
    await asyncio.wait([task])


async def test_the_database_hears_of_us_in_the_middle_of_a_long_transaction() -> None:
    """The database disconnects a follower that is silent for ``wal_sender_timeout``."""
    stream: Any = Stream(*map(str, range(250)))
    told: list[int] = []

    async def open_stream() -> Any:
        return stream

    async def tell(changes: Sequence[RowChange]) -> None:
        told.append(len(changes))

    follower = Follower(open_stream, tell, lambda *_: None)
    task = asyncio.create_task(follower.run())
    await until(lambda: len(stream.confirmed) == 3)
    assert told == [100, 100, 50]
    assert stream.confirmed == [0, 0, 0]
    task.cancel()
    await asyncio.wait([task])

"""Attacks of one client on a server with a database; the other clients do not notice."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import psycopg
import pytest

from supabase_rt.server import LocalRealtime
from supabase_rt.server._postgres.embedded import EmbeddedPostgres
from supabase_rt.server._postgres.errors import DatabaseProblem
from supabase_rt.server._postgres.replication.follower import Follower
from supabase_rt.server._postgres.replication.pgoutput import PgOutputError
from supabase_rt.server._postgres.replication.row_changes import RowChange
from tests.server.kit import Wire, wire
from tests.support.waiting import until

from .tables import OTHER, OWNER, TABLES
from .test_changes_db import TOPIC, change, make, silent, subscribe, told_of_a_miss
from .test_hostile_tables import Stream, waits_for_lock

LIMIT = 0.8
"""The statement timeout here, in seconds."""
SOON = LIMIT + 2.0
"""A little more, on a machine that is busy with other tests."""
ENDLESS = r"(.+)(.+)(.+)\3\2\1$"
"""A pattern with back-references that takes for ever on a text it does not match."""
VICTIM = "".join(random.Random(1).choices("acdefgh", k=2_000))
STUBBORN = """
create or replace function stubborn() returns boolean language plpgsql as $$
begin
    loop
        begin
            perform pg_sleep(60);
        exception when query_canceled then null;
        end;
    end loop;
end
$$
"""


@pytest.fixture
async def db(prepared: EmbeddedPostgres) -> AsyncIterator[LocalRealtime]:
    """A server with a short statement timeout."""
    async with LocalRealtime(
        db=prepared.url, statement_timeout=LIMIT, max_events_per_second=None
    ) as server:
        with psycopg.connect(prepared.url, autocommit=True) as conn:
            conn.execute(TABLES.encode())
        yield server


@pytest.fixture
async def client(db: LocalRealtime) -> AsyncIterator[Wire]:
    async with wire(db) as found:
        yield found


async def soon(client: Wire, name: str = "v") -> Any:
    """Returns the value of the next change, which must come soon."""
    start = time.monotonic()
    frame = await client.recv(3 * SOON)
    assert frame[3] == "postgres_changes", frame
    assert time.monotonic() - start < SOON
    return frame[4]["data"]["record"][name]


@contextlib.asynccontextmanager
async def joined(
    db: LocalRealtime, *bindings: dict[str, Any], token: str | None = None
) -> AsyncIterator[Wire]:
    async with wire(db) as found:
        said = await subscribe(found, *bindings, token=token)
        assert said["status"] == "ok", said
        yield found


# -- filters -------------------------------------------------------------------------------


async def test_a_filter_that_is_too_complex_is_its_own_channels_problem(
    db: LocalRealtime, client: Wire
) -> None:
    await subscribe(client, {"table": "plain"})
    evil_filter = {"table": "plain", "filter": "v=like." + "%e" * 60_000}
    async with joined(db, evil_filter, {"table": "plain", "filter": "v=like.short%"}) as evil:
        values = ["e" * 70_000 + "x", "short", "e" * 70_000 + "y", "shorter"]
        for value in values:
            await db.sql("insert into plain(v) values (%s)", value)
        assert [await soon(client) for _ in values] == values
        assert "54001" in await told_of_a_miss(evil)
        assert (await change(evil))["record"]["v"] == "short"
        assert "54001" in await told_of_a_miss(evil)
        assert (await change(evil))["record"]["v"] == "shorter"
        assert db.missed_changes == 2


async def test_a_filter_that_fails_tells_nothing_of_a_row_that_its_channel_may_not_see(
    db: LocalRealtime,
) -> None:
    await make(
        db,
        "id int primary key, owner text, v text",
        "alter table things enable row level security; create policy p on things using "
        "(owner = auth.jwt() ->> 'who')",
    )
    # The filter fails only for a row that begins with an e, so it is a guess at the content.
    guess = {"table": "things", "filter": "v=like." + "e%" + "%e" * 60_000}
    mine = {"table": "things", "filter": "v=like.short%"}
    token = db.token(role="authenticated", who="me")
    async with joined(db, guess, mine, token=token) as curious:
        value = "e" * 70_000 + "x"
        await db.sql("insert into things values (1, 'somebody', %s)", value)
        await db.sql("insert into things values (2, 'me', 'short')")
        assert (await change(curious))["record"]["v"] == "short"
        await db.sql("insert into things values (3, 'somebody', %s), (4, 'me', %s)", value, value)
        assert "tell of 1 change of public.things: ERROR 54001" in await told_of_a_miss(curious)
        await db.sql("insert into things values (5, 'me', 'shorter')")
        assert (await change(curious))["record"]["v"] == "shorter"
        assert db.missed_changes == 1


async def test_with_a_named_slot_a_change_is_tried_for_a_while_only(
    prepared: EmbeddedPostgres, db: LocalRealtime, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        LocalRealtime(db=prepared.url, slot="patient", statement_timeout=LIMIT) as server,
        wire(server) as client,
    ):
        await subscribe(client, {"table": "plain"})
        pattern = "%e" * 60_000
        async with joined(server, {"table": "plain", "filter": f"v=like.{pattern}"}) as evil:
            await server.sql("insert into plain(v) values (%s)", "e" * 70_000 + "x")
            await server.sql("insert into plain(v) values ('next')")
            assert len(await soon(client)) == 70_001
            assert await soon(client) == "next"
            assert "ERROR 54001" in await told_of_a_miss(evil)
    assert "not followed" not in caplog.text


async def test_a_regular_expression_without_end_holds_up_its_own_channel(
    db: LocalRealtime, client: Wire
) -> None:
    await subscribe(client, {"table": "plain"}, {"table": "plain", "filter": "v=match.^b"})
    async with joined(db, {"table": "plain", "filter": f"v=match.{ENDLESS}"}) as evil:
        values = [VICTIM + str(number) for number in range(4)]
        for value in values:
            await db.sql("insert into plain(v) values (%s)", value)
        assert [await soon(client) for _ in values] == values
        assert "57014" in await told_of_a_miss(evil, 10)
        # Once known as slow, it no longer delays the others.
        start = time.monotonic()
        await db.sql("insert into plain(v) values ('b')")
        assert await soon(client) == "b"
        assert time.monotonic() - start < LIMIT


async def test_many_filters_without_end_cost_the_others_no_more_than_one(
    db: LocalRealtime, client: Wire
) -> None:
    await subscribe(client, {"table": "plain"}, {"table": "plain", "filter": "v=neq.b"})
    bindings = [{"table": "plain", "filter": f"v=match.{ENDLESS}|{n}{n}"} for n in range(20)]
    async with contextlib.AsyncExitStack() as stack:
        for number in range(4):
            await stack.enter_async_context(joined(db, *bindings[number * 5 : number * 5 + 5]))
        values = [VICTIM + str(number) for number in range(3)]
        for value in values:
            await db.sql("insert into plain(v) values (%s)", value)
        assert [await soon(client) for _ in values] == values


async def test_more_filters_than_one_statement_bears(db: LocalRealtime, client: Wire) -> None:
    await subscribe(client, {"table": "plain"})
    bindings = [{"table": "plain", "filter": f"v=neq.{n}"} for n in range(400)]
    async with wire(db) as evil:
        await subscribe(evil, *bindings)
        await db.sql("insert into plain(v) select 'x' || n from generate_series(1, 50) n")
        assert [await soon(client) for _ in range(50)] == [f"x{n + 1}" for n in range(50)]


async def test_a_filter_with_a_nul_or_half_a_character(db: LocalRealtime, client: Wire) -> None:
    await subscribe(client, {"table": "plain"})
    for text in ("\0", "\ud800"):
        async with wire(db) as evil:
            said = await subscribe(evil, {"table": "plain", "filter": f"v=eq.{text}"})
            assert said["status"] == "error"
    await db.sql("insert into plain(v) values ('x')")
    assert await soon(client) == "x"


# -- tokens --------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    found: Any = "x"
    for _ in range(depth):
        found = {"a": found}
    return found


CLAIMS: dict[str, dict[str, Any]] = {
    "half": {"sub": "\ud800"},
    "nul": {"sub": "\0"},
    "no_uuid": {"sub": "nonsense"},
    "huge": {"sub": "y" * 40_000},
    "nul_inside": {"more": {"a\0": ["\0"]}},
    "half_inside": {"more": ["\udfff"]},
    "a_list": {"sub": ["x"]},
    "nested": {"sub": OTHER, "more": nested(300)},
}


@pytest.mark.parametrize("claims", CLAIMS.values(), ids=CLAIMS)
async def test_a_token_that_no_database_can_read_costs_its_own_channel_the_rows(
    db: LocalRealtime, client: Wire, claims: dict[str, Any]
) -> None:
    owner = db.token(sub=OWNER, role="authenticated")
    await subscribe(client, {"table": "private_notes"}, token=owner)
    token = db.token(**{"role": "authenticated", **claims})
    async with wire(db) as evil:
        await subscribe(evil, {"table": "private_notes"}, {"table": "plain"}, token=token)
        for note in ("one", "two"):
            await db.sql("insert into private_notes (owner, note) values (%s, %s)", OWNER, note)
        assert [await soon(client, "note") for _ in range(2)] == ["one", "two"]
        await db.sql("insert into plain(v) values ('for all')")
        while (frame := await evil.recv(SOON))[3] == "system":
            assert "of public.private_notes: ERROR" in frame[4]["message"] or (
                frame[4]["status"] == "ok"
            )
        assert frame[4]["data"]["record"]["v"] == "for all"


async def test_a_token_nested_without_end_is_refused(db: LocalRealtime, client: Wire) -> None:
    header = b'{"alg":"HS256","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    deep = base64.urlsafe_b64encode(header).decode().rstrip("=")
    payload = {"config": {"private": True}, "access_token": f"{deep}.e30.c2ln"}
    reply = await client.ask("1", "1", TOPIC, "phx_join", payload)
    assert reply[4]["response"]["reason"].startswith("MalformedJWT")
    assert await client.beats()


@pytest.mark.parametrize("role", ["\ud800", "\0", "nobody_here", "none'--"])
async def test_a_role_that_cannot_be_is_told_so(db: LocalRealtime, client: Wire, role: str) -> None:
    await subscribe(client, {"table": "plain"})
    async with wire(db) as evil:
        said = await subscribe(evil, {"table": "plain"}, token=db.token(role=role))
        assert said["status"] == "error"
        assert "does not exist" in said["message"]
    await db.sql("insert into plain(v) values ('x')")
    assert await soon(client) == "x"


async def test_a_role_that_vanishes_takes_only_its_own_rows_with_it(
    db: LocalRealtime, client: Wire
) -> None:
    await db.sql("drop role if exists passing; create role passing; grant passing to authenticator")
    owner = db.token(sub=OWNER, role="authenticated")
    await subscribe(client, {"table": "private_notes"}, token=owner)
    async with joined(db, {"table": "private_notes"}, token=db.token(role="passing")):
        await db.sql("drop role passing")
        await db.sql("insert into private_notes (owner, note) values (%s, 'x')", OWNER)
        assert await soon(client, "note") == "x"


# -- policies ------------------------------------------------------------------------------

EVIL = "auth.jwt() ->> 'evil' = 'yes'"
POLICIES = {
    "raises": "fails('P0001')",
    "calls_itself_gone": "fails('57P01')",
    "calls_the_connection_lost": "fails('08006')",
    "disk_full": "fails('53100')",
    "out_of_memory": "fails('53200')",
    "too_many_connections": "fails('53300')",
    "an_unknown_code": "fails('ZZ999')",
    "divides_by_zero": "1 / (id - id) = 1",
    "sleeps": "pg_sleep(60) is null",
    "does_not_listen": "stubborn()",
    "recurses": "recurses(1)",
    "ends_its_session": "pg_terminate_backend(pg_backend_pid())",
    "lifts_the_timeout": "set_config('statement_timeout', '0', false) = '' or pg_sleep(60) is null",
    "waits_for_a_lock": "pg_advisory_lock(4711) is null",
}
HELPERS = (
    STUBBORN
    + """;
create or replace function fails(code text) returns boolean language plpgsql as $$
begin raise exception 'on purpose' using errcode = code; end $$;
create or replace function recurses(n int) returns boolean language plpgsql as $$
begin return recurses(n + 1); end $$
"""
)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
async def test_a_policy_that_fails_for_one_token_fails_for_no_other(
    db: LocalRealtime, client: Wire, policy: str, prepared: EmbeddedPostgres
) -> None:
    await db.sql(HELPERS)
    await db.sql("grant execute on function pg_terminate_backend to public")
    await make(
        db,
        "id int primary key, v text",
        "alter table things enable row level security; create policy p on things using "
        f"(case when {EVIL} then {policy} else true end)",
    )
    await subscribe(client, {"table": "things"}, token=db.token(role="postgres"))
    with psycopg.connect(prepared.url, autocommit=True) as holder:
        holder.execute("select pg_advisory_lock(4711)")
        token = db.token(role="authenticated", evil="yes")
        other = db.token(role="authenticated")
        async with (
            joined(db, {"table": "things"}, token=token) as evil,
            joined(db, {"table": "things"}, token=other) as honest,
        ):
            for number in range(4):
                await db.sql("insert into things values (%s, %s)", number, f"v{number}")
            assert [await soon(honest) for _ in range(4)] == ["v0", "v1", "v2", "v3"]
            assert "of public.things: ERROR" in await told_of_a_miss(evil, 15)
            await db.sql("drop policy p on things; create policy p on things using (true)")
            await db.sql("insert into things values (9, 'last')")
            assert await soon(honest) == "last"
            while (await evil.recv(20))[3] == "system":
                pass
            assert db.missed_changes >= 1


async def test_the_error_of_a_policy_quotes_no_row_to_who_may_not_see_it(
    db: LocalRealtime, client: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    await make(
        db,
        "id int primary key, v text",
        "alter table things enable row level security; create policy p on things using "
        "(v::int = 1)",
    )
    await subscribe(client, {"table": "things"})
    await db.sql("insert into things values (1, 'for other eyes')")
    said = await told_of_a_miss(client)
    assert said == (
        "Unable to tell of 1 change of public.things: ERROR 22P02 (invalid_text_representation)"
    )
    assert "for other eyes" in caplog.text


async def test_a_lock_that_a_policy_takes_is_not_kept(db: LocalRealtime, client: Wire) -> None:
    await make(
        db,
        "id int primary key",
        "alter table things enable row level security; create policy p on things using "
        "(pg_advisory_lock(42) is not null)",
    )
    await subscribe(client, {"table": "things"})
    await db.sql("insert into things values (1)")
    assert await soon(client, "id") == 1
    assert await db.sql("select from pg_locks where locktype = 'advisory'") == []


async def test_a_change_that_fails_for_all_is_passed_by_and_told(
    db: LocalRealtime, client: Wire
) -> None:
    """The type cannot render this value, so the row cannot be sent to any channel."""
    await make(db, "id int primary key, v json")
    await subscribe(client, {"table": "things"})
    # JSON with a NUL is valid json, but not jsonb.
    await db.sql("""insert into things values (1, '"a"'), (2, '"\\u0000"'), (3, '"c"')""")
    assert "1 change of public.things: ERROR 22P05" in await told_of_a_miss(client)
    assert [await soon(client) for _ in range(2)] == ["a", "c"]
    assert db.missed_changes == 1


async def test_a_table_that_is_locked_holds_up_its_own_rows_only(
    db: LocalRealtime, client: Wire, prepared: EmbeddedPostgres
) -> None:
    owner = db.token(sub=OWNER, role="authenticated")
    await subscribe(client, {"table": "plain"})
    insert = f"insert into private_notes (owner, note) values ('{OWNER}', 'x')"
    async with (
        joined(db, {"table": "private_notes"}, token=owner) as locked,
        await psycopg.AsyncConnection.connect(prepared.url) as writer,
        await psycopg.AsyncConnection.connect(prepared.url) as other,
    ):
        await writer.execute(insert)
        # It waits for the lock, before the query that reads the new row.
        locking = asyncio.create_task(other.execute("lock table private_notes"))
        await until(lambda: waits_for_lock(db))
        await writer.commit()
        await locking
        await db.sql("insert into plain(v) values ('meanwhile')")
        assert await soon(client) == "meanwhile"
        assert "57014" in await told_of_a_miss(locked, 10)
        await other.rollback()
        await db.sql(insert)
        assert await soon(locked, "note") == "x"


async def test_a_table_that_goes_takes_only_its_own_changes_with_it(
    db: LocalRealtime, client: Wire
) -> None:
    await make(db, "id int primary key")
    await subscribe(client, {"table": "plain"})
    async with joined(db, {"table": "things"}) as gone:
        await db.sql("begin; insert into things values (1); drop table things; commit")
        await db.sql("insert into plain(v) values ('after')")
        assert await soon(client) == "after"
        assert "42P01" in await told_of_a_miss(gone)


async def test_a_row_of_fifty_megabytes(db: LocalRealtime, client: Wire) -> None:
    await subscribe(client, {"table": "plain"})
    async with joined(db, {"table": "plain", "filter": "v=like.%y"}):
        await db.sql("insert into plain(v) values (repeat('x', 50000000)), ('small')")
        data = await change_within(client, 30)
        assert (data["errors"], data["record"]) == (["Error 413: Payload Too Large"], {"id": 1})
        assert await soon(client) == "small"


async def change_within(client: Wire, timeout: float) -> Any:
    frame = await client.recv(timeout)
    assert frame[3] == "postgres_changes", frame
    return frame[4]["data"]


# -- private channels and tables over HTTP -------------------------------------------------


async def test_a_policy_on_messages_that_hangs_for_one_topic_hangs_for_no_other(
    db: LocalRealtime,
) -> None:
    await db.sql(
        "create policy hang on realtime.messages for select to authenticated using "
        "(case when realtime.topic() like 'evil%' then pg_sleep(60) is null else true end)"
    )
    try:
        async with contextlib.AsyncExitStack() as stack:
            token = db.token(role="authenticated")
            clients = [await stack.enter_async_context(wire(db, token)) for _ in range(4)]
            honest = clients.pop()
            for number, evil in enumerate(clients):
                topic = f"realtime:evil{number}"
                await evil.send("1", "1", topic, "phx_join", {"config": {"private": True}})
            start = time.monotonic()
            await honest.send("1", "1", "realtime:good", "phx_join", {"config": {"private": True}})
            assert (await honest.recv(3 * SOON))[4]["status"] == "ok"
            assert time.monotonic() - start < SOON
            assert (await clients[0].recv(3 * SOON))[4]["status"] == "error"
    finally:
        await db.sql("drop policy hang on realtime.messages")


async def running(db: LocalRealtime, words: str) -> int:
    rows = await db.sql(
        "select count(*)::int as n from pg_stat_activity where state = 'active' "
        "and pid <> pg_backend_pid() and query like %s",
        f"%{words}%",
    )
    return int(rows[0]["n"])


async def until_running(db: LocalRealtime, words: str, wanted: bool) -> None:
    async with asyncio.timeout(5):
        while bool(await running(db, words)) is not wanted:
            await asyncio.sleep(0.02)


async def test_a_request_without_end_is_given_up_and_the_others_are_answered(
    db: LocalRealtime,
) -> None:
    await db.sql("insert into plain(v) values (%s)", VICTIM)
    url = f"{db.url}/rest/v1/plain"
    async with aiohttp.ClientSession() as session:

        async def get(key: str, **params: str) -> tuple[int, Any]:
            headers = {"apikey": key}
            async with session.get(url, params=params, headers=headers) as response:
                return response.status, await response.json()

        evil = [
            asyncio.create_task(get(db.anon_key, v=f"match.{ENDLESS}|{n}{n}")) for n in range(6)
        ]
        await until_running(db, "json_agg", True)
        start = time.monotonic()
        status, rows = await get(db.service_key, select="id")
        assert (status, len(rows)) == (200, 1)
        assert time.monotonic() - start < LIMIT
        status, problem = await evil[0]
        assert (status, problem["code"]) == (500, "57014")
        await asyncio.gather(*evil)


async def test_what_a_client_asked_is_cancelled_when_it_goes(prepared: EmbeddedPostgres) -> None:
    async with LocalRealtime(db=prepared.url, statement_timeout=30) as db:
        with psycopg.connect(prepared.url, autocommit=True) as conn:
            conn.execute(TABLES.encode())
        await db.sql("insert into plain(v) values (%s)", VICTIM)
        url = f"{db.url}/rest/v1/plain"
        async with aiohttp.ClientSession() as session:
            params, headers = {"v": f"match.{ENDLESS}"}, {"apikey": db.anon_key}
            with contextlib.suppress(TimeoutError):
                async with session.get(
                    url, params=params, headers=headers, timeout=aiohttp.ClientTimeout(1)
                ):
                    pass
        await until_running(db, "json_agg", False)
        await db.sql(
            "create policy hang on realtime.messages for select to authenticated "
            "using (pg_sleep(60) is null)"
        )
        try:
            async with wire(db, db.token(role="authenticated")) as client:
                await client.send("1", "1", TOPIC, "phx_join", {"config": {"private": True}})
                await until_running(db, "select extension", True)
            await until_running(db, "select extension", False)
        finally:
            await db.sql("drop policy hang on realtime.messages")


async def test_too_many_columns_are_the_requests_mistake(db: LocalRealtime) -> None:
    async with aiohttp.ClientSession(headers={"apikey": db.anon_key}) as session:
        select = ",".join(["id"] * 1_700)
        async with session.get(f"{db.url}/rest/v1/plain?select={select}") as response:
            assert (response.status, (await response.json())["code"]) == (413, "54011")


# -- the end -------------------------------------------------------------------------------


async def test_the_end_waits_for_no_statement(prepared: EmbeddedPostgres) -> None:
    async with LocalRealtime(db=prepared.url, statement_timeout=60) as db:
        with psycopg.connect(prepared.url, autocommit=True) as conn:
            conn.execute(TABLES.encode())
            conn.execute(STUBBORN.encode())
        await db.sql(
            "create policy hang on realtime.messages for select to authenticated using (stubborn())"
        )
        own = asyncio.create_task(db.sql("select pg_sleep(60)"))
        async with wire(db, db.token(role="authenticated")) as client:
            await client.send("1", "1", TOPIC, "phx_join", {"config": {"private": True}})
            with psycopg.connect(prepared.url, autocommit=True) as conn:
                query = "select from pg_stat_activity where query like 'select extension%'"
                await until(lambda: conn.execute(query).rowcount)
                start = time.monotonic()
                await db.stop()
                assert time.monotonic() - start < 5
                conn.execute("drop policy hang on realtime.messages")
                left = (
                    "select from pg_stat_activity where application_name like 'supabase_rt%' "
                    "and state = 'active' and backend_type = 'client backend'"
                )
                await until(lambda: not conn.execute(left).rowcount)
        with pytest.raises((psycopg.Error, RuntimeError)):
            await own


# -- the follower by itself ----------------------------------------------------------------


async def test_a_change_that_can_never_be_told_is_passed_by_after_some_attempts() -> None:
    """A named slot sends the same rows again after each reopening."""
    told: list[Any] = []
    passed: list[Any] = []
    attempts = 0

    async def open_stream() -> Any:
        return Stream("1", "2", "3")

    async def tell(changes: Sequence[RowChange]) -> None:
        nonlocal attempts
        if any(change.new == {"id": "2"} for change in changes):
            attempts += 1
            raise RuntimeError("a mistake")
        told.extend(change.new for change in changes)

    def pass_by(changes: Sequence[RowChange], problem: str) -> None:
        passed.extend(change.new for change in changes)

    follower = Follower(open_stream, tell, lambda *_: None, pass_by)
    task = asyncio.create_task(follower.run())
    await until(lambda: {"id": "3"} in told)
    assert passed == [{"id": "2"}]
    assert attempts < 8
    task.cancel()
    await asyncio.wait([task])


async def test_a_message_that_cannot_be_read_is_passed_by() -> None:
    """A named slot would send it again after each reopening."""

    class Garbled(Stream):
        def __init__(self) -> None:
            super().__init__("1", "2")
            self.read = 0

        def ready(self) -> Any:
            self.read += 1
            if self.read == 4:
                raise PgOutputError("a value of an unknown kind")
            return super().ready()

    opened: list[Any] = []
    told: list[Any] = []

    async def open_stream() -> Any:
        opened.append(Garbled())
        return opened[-1]

    async def tell(changes: Sequence[RowChange]) -> None:
        told.extend(change.new for change in changes)

    follower = Follower(open_stream, tell, lambda *_: None)
    task = asyncio.create_task(follower.run())
    await until(lambda: len(told) == 2)
    assert (told, len(opened)) == ([{"id": "1"}, {"id": "2"}], 1)
    task.cancel()
    await asyncio.wait([task])


async def test_changes_wait_for_a_connection_that_cannot_be_had_for_a_moment() -> None:
    """The stream stays open: after a reopening, a temporary slot would have lost them."""
    opened: list[Any] = []
    told: list[Any] = []
    refusals = 2

    async def open_stream() -> Any:
        opened.append(Stream("1"))
        return opened[-1]

    async def tell(changes: Sequence[RowChange]) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise DatabaseProblem("sorry, too many clients already")
        told.extend(change.new for change in changes)

    follower = Follower(open_stream, tell, lambda *_: None)
    task = asyncio.create_task(follower.run())
    await until(lambda: told)
    assert (told, len(opened)) == ([{"id": "1"}], 1)
    task.cancel()
    await asyncio.wait([task])


async def test_nobody_is_told_anything_unasked(db: LocalRealtime, client: Wire) -> None:
    await subscribe(client, {"table": "plain"})
    assert await silent(client)
    assert db.missed_changes == 0

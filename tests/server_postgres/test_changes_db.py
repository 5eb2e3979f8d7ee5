"""Changes of a real table that no recording shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from supabase_rt import postgres_changes_filter
from supabase_rt.server import LocalRealtime
from tests.server.kit import Wire, wire

from .tables import OTHER, OWNER

TOPIC = "realtime:room"


async def subscribe(client: Wire, *bindings: dict[str, Any], token: str | None = None) -> Any:
    """Join with bindings of the schema public; returns the payload of the system message."""
    entries = [{"event": "*", "schema": "public", **binding} for binding in bindings]
    payload: dict[str, Any] = {"config": {"postgres_changes": entries}}
    if token is not None:
        payload["access_token"] = token
    reply = await client.ask("1", "1", TOPIC, "phx_join", payload)
    assert reply[4]["status"] == "ok", reply
    return (await client.recv())[4]


async def change(client: Wire) -> Any:
    frame = await client.recv()
    assert frame[3] == "postgres_changes", frame
    return frame[4]["data"]


async def silent(client: Wire) -> bool:
    try:
        await client.recv(0.15)
    except TimeoutError:
        return True
    return False


async def told_of_a_miss(client: Wire, timeout: float = 2.0) -> str:
    """Returns the error for missed changes, after which the channel is subscribed again."""
    (*_, event, said), (*_, later) = [await client.recv(timeout) for _ in range(2)]
    assert (event, said["status"], said["extension"]) == ("system", "error", "postgres_changes")
    assert (later["status"], later["message"]) == ("ok", "Subscribed to PostgreSQL")
    return str(said["message"])


@pytest.fixture
async def client(db: LocalRealtime) -> AsyncIterator[Wire]:
    async with wire(db) as found:
        yield found


async def make(db: LocalRealtime, columns: str, more: str = "") -> None:
    await db.sql(
        f"drop table if exists things; create table things ({columns}); "
        "grant select on things to anon, authenticated, service_role; "
        f"alter publication supabase_realtime add table things; {more}"
    )


# -- what is told --------------------------------------------------------------------------


async def test_changes_made_before_the_subscription_are_not_told(
    db: LocalRealtime, client: Wire
) -> None:
    await db.sql("insert into plain(v) select 'early' from generate_series(1, 200)")
    assert (await subscribe(client, {"table": "plain"}))["status"] == "ok"
    await db.sql("insert into plain(v) values ('late')")
    assert (await change(client))["record"]["v"] == "late"


async def test_a_change_that_was_rolled_back_is_not_told(db: LocalRealtime, client: Wire) -> None:
    await subscribe(client, {"table": "plain"})
    await db.sql("begin; insert into plain(v) values ('no'); rollback")
    await db.sql("insert into plain(v) values ('yes')")
    assert (await change(client))["record"]["v"] == "yes"


async def test_a_large_value_that_was_not_touched(db: LocalRealtime, client: Wire) -> None:
    await make(
        db,
        "id int primary key, n int, big text",
        "alter table things alter big set storage external",
    )
    await db.sql("insert into things values (1, 1, repeat('x', 5000))")
    await subscribe(client, {"table": "things"}, {"table": "things", "filter": "big=like.x%"})
    await db.sql("update things set n = 2")
    found = await change(client)
    assert found["record"] == {"id": 1, "n": 2}
    assert [column["name"] for column in found["columns"]] == ["id", "n", "big"]
    await db.sql("alter table things replica identity full; update things set n = 3")
    found = await change(client)
    assert found["record"] == {"id": 1, "n": 3, "big": "x" * 5000}
    assert found["old_record"]["n"] == 2


async def test_a_changed_key_is_told_with_the_old_one(db: LocalRealtime, client: Wire) -> None:
    await subscribe(client, {"table": "plain"})
    await db.sql("insert into plain values (1, 'a'); update plain set id = 2")
    await change(client)
    found = await change(client)
    assert (found["record"]["id"], found["old_record"]) == (2, {"id": 1})


async def test_types_that_come_with_the_database(db: LocalRealtime, client: Wire) -> None:
    await db.sql("drop type if exists mood cascade; create type mood as enum ('sad', 'ok')")
    await db.sql(
        "drop domain if exists small cascade; create domain small as int check (value < 9)"
    )
    await make(db, 'id int primary key, "a %s" mood, b small, c float8, d char(3), e mood[]')
    answer = await subscribe(client, {"table": "things", "filter": "a %s=eq.ok"})
    assert answer["status"] == "ok", answer
    await db.sql("insert into things values (1, 'ok', 3, 'NaN', 'x', '{sad}')")
    found = await change(client)
    assert found["record"] == {
        "id": 1, "a %s": "ok", "b": 3, "c": "NaN", "d": "x  ", "e": ["sad"]
    }  # fmt: skip
    assert [column["type"] for column in found["columns"]] == [
        "int4", "mood", "small", "float8", "bpchar", "_mood",
    ]  # fmt: skip


async def test_a_table_without_a_key(db: LocalRealtime, client: Wire) -> None:
    await make(db, "v text", "alter table things replica identity full")
    await subscribe(client, {"table": "things", "filter": "v=eq.never"})
    await db.sql("insert into things values ('a')")
    found = await change(client)
    assert found["errors"] == ["Error 400: Bad Request, no primary key"]
    assert (found["columns"], found["record"], found["commit_timestamp"]) == ([], {}, None)
    await db.sql("update things set v = 'b'")
    assert (await change(client))["old_record"] == {}
    await db.sql("delete from things")
    assert await silent(client)


async def test_a_table_altered_while_it_is_followed(db: LocalRealtime, client: Wire) -> None:
    await subscribe(client, {"table": "plain", "filter": "v=neq.x"})
    await db.sql("insert into plain values (1, 'a')")
    await change(client)
    await db.sql("alter table plain add extra int default 7; insert into plain values (2, 'b')")
    assert (await change(client))["record"] == {"id": 2, "v": "b", "extra": 7}
    await db.sql("alter table plain drop v; insert into plain values (3)")
    assert await silent(client)


# -- to whom -------------------------------------------------------------------------------


async def test_columns_that_a_role_may_not_read(db: LocalRealtime, client: Wire) -> None:
    await make(
        db,
        "id int primary key, open text, secret text",
        "revoke all on things from anon; grant select (id, open) on things to anon",
    )
    answer = await subscribe(client, {"table": "things", "filter": "secret=eq.s"})
    assert answer["message"].endswith("invalid column for filter secret")
    async with wire(db, db.service_key) as service:
        await subscribe(client, {"table": "things"})
        await subscribe(service, {"table": "things"})
        await db.sql("insert into things values (1, 'o', 's')")
        assert (await change(service))["record"]["secret"] == "s"
        found = await client.recv()
        while found[3] != "postgres_changes":
            found = await client.recv()
        assert found[4]["data"]["record"] == {"id": 1, "open": "o"}


async def test_a_role_that_may_not_read_the_key(db: LocalRealtime, client: Wire) -> None:
    await make(db, "id int primary key, v text", "revoke all on things from anon")
    await subscribe(client, {"table": "things"})
    await db.sql("insert into things values (1, 'x')")
    found = await change(client)
    assert found["errors"] == ["Error 401: Unauthorized"]
    assert found["record"] == {}


async def test_each_token_sees_its_own_rows(db: LocalRealtime) -> None:
    mine, theirs = db.token("authenticated", OWNER), db.token("authenticated", OTHER)
    note = "insert into private_notes(owner, note) values (%s, %s)"
    async with wire(db, mine) as a, wire(db, theirs) as b, wire(db, db.service_key) as c:
        for client in (a, b, c):
            await subscribe(client, {"table": "private_notes"})
        for number in range(3):
            await db.sql(note, OWNER, f"mine {number}")
            await db.sql(note, OTHER, f"theirs {number}")
        for client, owners in ((a, ["mine"]), (b, ["theirs"]), (c, ["mine", "theirs"])):
            wanted = [f"{owner} {number}" for number in range(3) for owner in owners]
            assert [(await change(client))["record"]["note"] for _ in wanted] == wanted
            assert await silent(client)
        await db.sql("update private_notes set owner = %s where note = 'mine 0'", OTHER)
        assert (await change(b))["record"]["note"] == "mine 0"
        assert await silent(a)


async def test_a_policy_that_fails_shows_nothing(db: LocalRealtime, client: Wire) -> None:
    await make(
        db,
        "id int primary key",
        "alter table things enable row level security; "
        "create policy bad on things using (1 / (id - id) = 1)",
    )
    await subscribe(client, {"table": "things"})
    await db.sql("insert into things values (1)")
    assert await told_of_a_miss(client) == (
        "Unable to tell of 1 change of public.things: ERROR 22012 (division_by_zero)"
    )
    assert await silent(client)
    await db.sql("drop policy bad on things; create policy good on things using (true)")
    await db.sql("insert into things values (2)")
    assert (await change(client))["record"] == {"id": 2}


# -- what cannot be subscribed to ----------------------------------------------------------


BAD_TEXT = "ERROR 22P02 (invalid_text_representation) invalid input syntax for type"
BAD_NUMBER = "ERROR 22003 (numeric_value_out_of_range) value"
RAISED = "ERROR P0001 (raise_exception)"
WORDS = "must be null, true, false, or unknown"
NO_REGEX = "invalid regular expression for match filter: invalid regular expression:"


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ("n=eq.x", f'{BAD_TEXT} integer: "x"'),
        ("n=in.(1,x)", f'{BAD_TEXT} integer: "x"'),
        ("meta=eq.{", f"{BAD_TEXT} json"),
        ("n=eq.99999999999", f'{BAD_NUMBER} "99999999999" is out of range for type integer'),
        ("n=like.1%", f"{RAISED} operator like requires a text-compatible column type, got int4"),
        ("body=match.(", f"{RAISED} {NO_REGEX} parentheses () not balanced"),
        ("n=is.true", f"{RAISED} is true filter requires a boolean column, got int4"),
        ("n=is.maybe", f"{RAISED} invalid value for is filter: {WORDS}"),
        (
            "n=in.(" + ",".join(map(str, range(101))) + ")",
            f"{RAISED} too many values for `in` filter. Maximum 100",
        ),
    ],
)
async def test_a_filter_that_is_refused(
    db: LocalRealtime, client: Wire, condition: str, problem: str
) -> None:
    answer = await subscribe(client, {"table": "messages", "filter": condition})
    assert answer["status"] == "error"
    assert answer["message"].endswith(f". Exception: {problem}")


async def test_an_unknown_role_cannot_subscribe(db: LocalRealtime) -> None:
    async with wire(db, db.token("nobody_here")) as client:
        answer = await subscribe(client, {"table": "plain"})
        assert answer["message"].endswith('role "nobody_here" does not exist')


async def test_one_bad_entry_spoils_all(db: LocalRealtime, client: Wire) -> None:
    answer = await subscribe(client, {"table": "plain"}, {"table": "broadcasted"})
    assert answer["status"] == "error"
    await db.sql("insert into plain(v) values ('x')")
    assert await silent(client)


async def test_a_name_is_a_pattern(db: LocalRealtime, client: Wire) -> None:
    assert (await subscribe(client, {"table": "pl_in"}))["status"] == "ok"
    await db.sql("insert into plain(v) values ('x')")
    assert (await change(client))["table"] == "plain"


async def test_a_channel_that_leaves_while_it_subscribes(db: LocalRealtime, client: Wire) -> None:
    entries = [{"event": "*", "schema": "public", "table": "plain"}]
    await client.send("1", "1", TOPIC, "phx_join", {"config": {"postgres_changes": entries}})
    await client.send("1", "2", TOPIC, "phx_leave", {})
    assert [(await client.recv())[3] for _ in range(3)] == ["phx_reply", "phx_reply", "phx_close"]
    await db.sql("insert into plain(v) values ('x')")
    assert await silent(client)


async def test_a_thousand_rows_reach_many_channels(db: LocalRealtime) -> None:
    async with wire(db) as a, wire(db) as b:
        for client in (a, b):
            await subscribe(client, {"table": "plain"}, {"table": "plain", "filter": "v=eq.7"})
        await db.sql("insert into plain(v) select g::text from generate_series(1, 1000) g")
        for client in (a, b):
            async with asyncio.timeout(10):
                found = [(await client.recv(5))[4] for _ in range(1000)]
            values = [each["data"]["record"]["v"] for each in found]
            assert values == [str(number) for number in range(1, 1001)]
            assert [len(each["ids"]) for each in found[5:8]] == [1, 2, 1]


async def test_a_filter_on_bytes_compares_with_the_digits_that_are_sent(
    db: LocalRealtime, client: Wire
) -> None:
    await make(db, "id int primary key, by bytea")
    written = postgres_changes_filter().eq("by", b"\xde\xad").build()
    assert written == "by=eq.dead"
    await subscribe(client, {"table": "things", "filter": written})
    await db.sql("insert into things values (1, 'dead'), (2, '\\xdead')")
    assert (await change(client))["record"] == {"id": 2, "by": "dead"}
    assert await silent(client)

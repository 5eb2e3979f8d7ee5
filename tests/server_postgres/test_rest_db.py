"""``GET /rest/v1/<table>`` over a real Postgres: the same answers, and row level security."""

from __future__ import annotations

from supabase_rt.server import LocalRealtime

from ..server.test_rest import READS, ROWS, check_odd_requests, fetch, raw_status
from .tables import OTHER, OWNER

THINGS = """
drop table if exists things;
create table things (
    id int8 primary key, room text, n int4, done bool, at timestamptz, "a%s{}""b" text
);
grant select on things to anon
"""


async def fill(db: LocalRealtime) -> None:
    await db.sql(THINGS)
    for row in ROWS:
        await db.sql(
            "insert into things (id, room, n, done, at) values (%s, %s, %s, %s, %s)",
            *row.values(),
        )


async def test_postgres_gives_the_same_answers_as_the_tables_of_the_process(
    db: LocalRealtime,
) -> None:
    await fill(db)
    found = {query: await fetch(db, f"things?{query}") for query, _ in READS}
    assert {query: [row["id"] for row in body] for query, (_, body, _) in found.items()} == dict(
        READS
    )
    _, body, headers = await fetch(db, "things?id=eq.2&select=number:n,id,at")
    assert body == [{"number": None, "id": 2, "at": "2026-01-01T00:00:00.5+00:00"}]
    assert headers["Content-Range"] == "0-0/*"


async def test_postgres_refuses_with_the_same_codes(db: LocalRealtime) -> None:
    await fill(db)
    for path, status, code in (
        ("nothing", 404, "PGRST205"),
        ("things?who=eq.1", 400, "42703"),
        ("things?id=eq.x", 400, "22P02"),
        ("things?room=match.(", 400, "2201B"),
        ("things?id=like.x", 404, "42883"),
        ("things?room=eq.%00", 400, "22021"),
    ):
        found, body, _ = await fetch(db, path)
        assert (found, body["code"]) == (status, code), path


async def test_odd_requests_are_the_callers_mistake(db: LocalRealtime) -> None:
    await fill(db)
    await check_odd_requests(db)
    assert await raw_status(db, "things", b"Accept-Profile: \xff") == 406
    # Too many columns is an error of the query; the database is not away.
    status, body, _ = await fetch(db, "things?select=" + ",".join(["id"] * 1700))
    assert (status, body["code"]) == (413, "54011")


async def test_claims_that_no_text_can_hold_are_the_callers_mistake(db: LocalRealtime) -> None:
    for odd in ("\ud800", "a\0"):
        for token in (db.token(sub=odd), db.token(role=odd)):
            assert (await fetch(db, "plain", token=token))[0] == 400


async def test_what_looks_like_sql_is_only_a_name_or_a_value(db: LocalRealtime) -> None:
    await fill(db)
    name = '"a%25s{}\\"b"'
    status, body, _ = await fetch(db, f"things?select={name}&order={name},id&id=eq.1")
    assert (status, body) == (200, [{'a%s{}"b': None}])
    for text in ("x'; drop table things; --", "$1", "%s", "%(id)s", "\\"):
        quoted = text.replace("%", "%25").replace(";", "%3B")
        assert (await fetch(db, f"things?room=eq.{quoted}"))[1] == []
    assert len((await fetch(db, "things"))[1]) == len(ROWS)


async def test_policies_and_grants_decide_what_is_read(db: LocalRealtime) -> None:
    await db.sql(
        "insert into private_notes (owner, note) values (%s, 'mine'), (%s, 'theirs')", OWNER, OTHER
    )
    path = "private_notes?select=note&order=note"
    notes = {"mine": db.token(sub=OWNER), "theirs": db.token(sub=OTHER)}
    for note, token in notes.items():
        assert (await fetch(db, path, token=token))[1] == [{"note": note}]
    assert (await fetch(db, path))[1] == []
    both = await fetch(db, path, token=db.service_key)
    assert both[1] == [{"note": "mine"}, {"note": "theirs"}]
    await db.sql("revoke select on private_notes from anon, authenticated")
    for caller, expected in ((db.anon_key, 401), (notes["mine"], 403)):
        status, body, _ = await fetch(db, path, token=caller)
        assert (status, body["code"]) == (expected, "42501")
    # A role that the database does not know.
    status, body, _ = await fetch(db, path, token=db.token(role="nobody"))
    assert (status, body["code"]) == (400, "22023")


async def test_an_answer_is_bounded_and_told_with_its_count(db: LocalRealtime) -> None:
    await db.sql("insert into plain(v) select repeat('x', 1048576) from generate_series(1, 3)")
    status, body, headers = await fetch(db, "plain?select=v&limit=2&order=id")
    assert (status, [len(row["v"]) for row in body]) == (200, [2**20] * 2)
    assert headers["Content-Range"] == "0-1/*"
    select = ",".join(f"a{number}:v" for number in range(4))
    status, body, _ = await fetch(db, f"plain?select={select}")
    assert (status, body["code"]) == (413, "54000")
    assert "limit" in body["hint"]

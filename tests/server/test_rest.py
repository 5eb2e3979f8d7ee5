"""``GET /rest/v1/<table>``: PostgREST's syntax, over the tables in the process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt.server import LocalRealtime
from supabase_rt.server._http.postgrest.errors import RestProblem
from supabase_rt.server._http.postgrest.query import parse_query
from supabase_rt.server._machine.memory_bounds import MOST_OUTGOING
from supabase_rt.server.tokens import TokenError

COLUMNS = {"id": "int8", "room": "text", "n": "int4", "done": "bool", "at": "timestamptz"}
ROWS: list[dict[str, Any]] = [
    {"id": 1, "room": "a", "n": 5, "done": True, "at": "2026-01-01T00:00:00+00:00"},
    {"id": 2, "room": "b", "n": None, "done": False, "at": "2026-01-01T00:00:00.5+00:00"},
    {"id": 3, "room": "a,b", "n": 7, "done": None, "at": "2026-01-02T00:00:00+00:00"},
    {"id": 10, "room": 'say "hi"', "n": 5, "done": True, "at": None},
]
READS: list[tuple[str, list[int]]] = [
    ("", [1, 2, 3, 10]),
    ("order=id.desc", [10, 3, 2, 1]),
    ("order=n,id.desc", [10, 1, 3, 2]),
    ("order=n.desc,id", [2, 3, 1, 10]),
    ("order=n.desc.nullslast,id", [3, 1, 10, 2]),
    ("order=n.nullsfirst,id", [2, 1, 10, 3]),
    ("order=id&limit=2", [1, 2]),
    ("order=id&limit=2&offset=1", [2, 3]),
    ("order=id&offset=3", [10]),
    ("id=eq.3", [3]),
    ("id=gt.1&id=lte.3&order=id", [2, 3]),
    ("n=neq.5&order=id", [3]),
    ("n=not.eq.5&order=id", [3]),
    ("n=is.null", [2]),
    ("n=is.not_null&order=id", [1, 3, 10]),
    ("n=not.is.null&order=id", [1, 3, 10]),
    ("done=is.true&order=id", [1, 10]),
    ("n=isdistinct.5&order=id", [2, 3]),
    ("id=in.(1,3,99)&order=id", [1, 3]),
    ('room=in.("a,b",b)&order=id', [2, 3]),
    ("room=eq.a,b", [3]),
    ('room=eq.say "hi"', [10]),
    ("room=like.a*&order=id", [1, 3]),
    ("room=like.a%25&order=id", [1, 3]),
    ("room=not.like.a*&order=id", [2, 10]),
    ("room=ilike.SAY*", [10]),
    ("room=match.^a.b$", [3]),
    ("at=gte.2026-01-01T00:00:00.5Z&order=at", [2, 3]),
    ("or=(id.eq.1,n.eq.7)&order=id", [1, 3]),
    ("or=(id.gt.2,and(id.eq.2,room.gt.a))&order=id", [2, 3, 10]),
    ("and=(id.gt.1,not.or(id.eq.3,id.eq.10))", [2]),
    ("not.or=(id.eq.3,n.eq.5)", []),
    ("not.and=(id.eq.3,n.eq.7)&order=id", [1, 2, 10]),
    ('or=(room.eq."a,b",room.eq."say \\"hi\\"")&order=id', [3, 10]),
    ("or=(room.in.(a,b),id.eq.10)&order=id", [1, 2, 10]),
]
"""Queries and the ids they return; a real Postgres is asked the same ones."""


async def fetch(
    server: LocalRealtime,
    path: str,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any, Mapping[str, str]]:
    """Returns the status, the body and the headers of a GET."""
    sent = {"apikey": server.anon_key, **(headers or {})}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{server.url}/rest/v1/{path}", headers=sent) as response,
    ):
        return response.status, await response.json(), response.headers


@pytest.fixture
async def filled(server: LocalRealtime) -> LocalRealtime:
    server.table("things", COLUMNS)
    for row in ROWS:
        server.insert("things", row)
    return server


async def test_queries_find_the_rows_that_postgrest_finds(filled: LocalRealtime) -> None:
    found = {query: await fetch(filled, f"things?{query}") for query, _ in READS}
    assert {query: [row["id"] for row in body] for query, (_, body, _) in found.items()} == dict(
        READS
    )


async def test_columns_are_chosen_and_renamed(filled: LocalRealtime) -> None:
    _, body, _ = await fetch(filled, "things?id=eq.1&select=number:n,id")
    assert body == [{"number": 5, "id": 1}]
    _, body, _ = await fetch(filled, "things?id=eq.2&select=*")
    assert body == [ROWS[1]]


async def test_a_range_is_limit_and_offset_and_is_told_back(filled: LocalRealtime) -> None:
    span = {"Range-Unit": "items", "Range": "1-2"}
    status, body, headers = await fetch(filled, "things?order=id", headers=span)
    assert (status, [row["id"] for row in body]) == (200, [2, 3])
    assert headers["Content-Range"] == "1-2/*"
    status, body, headers = await fetch(filled, "things?id=eq.99")
    assert (status, body, headers["Content-Range"]) == (200, [], "*/*")
    status, body, _ = await fetch(filled, "things", headers={"Range": "5-1"})
    assert (status, body["code"]) == (416, "PGRST103")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("nothing", 404, "PGRST205"),
        ("things?who=eq.1", 400, "42703"),
        ("things?select=who", 400, "42703"),
        ("things?order=who", 400, "42703"),
        ("things?or=(id.eq.1,who.eq.2)", 400, "42703"),
        ("things?id=eq.x", 400, "22P02"),
        ("things?room=match.(", 400, "2201B"),
        ("things?id=1", 400, "PGRST100"),
        ("things?id=fts.x", 400, "PGRST100"),
        ("things?id=in.1", 400, "PGRST100"),
        ("things?done=is.maybe", 400, "PGRST100"),
        ("things?or=(id)", 400, "PGRST100"),
        ("things?limit=-1", 400, "PGRST100"),
        ("things?order=id.up", 400, "PGRST100"),
        ("things?select=id::text", 400, "PGRST100"),
        ("things?select=other(id)", 400, "PGRST100"),
        ("things?or=(" + "and(" * 60 + "id.eq.1" + ")" * 61, 400, "PGRST100"),
    ],
)
async def test_what_cannot_be_read_is_refused_as_postgrest_does(
    filled: LocalRealtime, path: str, status: int, code: str
) -> None:
    found, body, _ = await fetch(filled, path)
    assert (found, body["code"]) == (status, code)
    assert set(body) == {"code", "details", "hint", "message"}


async def raw_status(server: LocalRealtime, path: str, header: bytes = b"X-None: 1") -> int:
    """Returns the status of a GET with a header that no client library would send."""
    port = int(server.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = server.anon_key.encode()
    head = b"Host: localhost\r\napikey: " + key + b"\r\nConnection: close\r\n" + header
    writer.write(b"GET /rest/v1/" + path.encode() + b" HTTP/1.1\r\n" + head + b"\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1])


ODD_BYTES = [b"\xff", b"\xed\xa0\x80", b"\xc3", b"\x80abc", b"\xe2\x80\xae"]
ODD_HEADERS = ["Accept-Profile", "Range", "Authorization", "Prefer", "Accept", "Host"]
ODD_VALUES = ["%ff", "%ED%A0%80", "%00", "%", '"', "\\", "{}", "9" * 400, "1e400", "nan", "%0A"]
ODD_PLACES = [
    "things?select={}",
    "things?select={}:id",
    "things?{}=eq.1",
    "things?id=eq.{}",
    "things?room=like.{}",
    "things?room=match.{}",
    "things?id=in.({})",
    "things?limit={}",
    "things?offset={}",
    "things?order={}",
    "things?or=(id.eq.{})",
    "things?and={}",
    "{}",
]


async def check_odd_requests(server: LocalRealtime) -> None:
    """No header and no parameter causes a status of 500."""
    for name in ODD_HEADERS:
        for odd in ODD_BYTES:
            found = await raw_status(server, "things", name.encode() + b": " + odd)
            assert found < 500, (name, odd)
    for place in ODD_PLACES:
        for value in ODD_VALUES:
            found = await raw_status(server, place.replace("{}", value))
            assert found < 500, (place, value)
    for path in (
        "things?select=" + ",".join(["id"] * 1700),
        "things?order=" + ",".join(["id"] * 1700),
        "things?room=like." + "%25e" * 1900,
        "things?room=match." + "(" * 1000 + ")" * 1000,
        "things?id=in.(" + ",".join(["1"] * 3900) + ")",
    ):
        assert await raw_status(server, path) < 500, path


async def test_odd_requests_are_the_callers_mistake(filled: LocalRealtime) -> None:
    await check_odd_requests(filled)
    assert await raw_status(filled, "things", b"Accept-Profile: \xff") == 406


async def test_the_schema_is_the_one_of_the_header(server: LocalRealtime) -> None:
    server.insert("things", {"id": 1}, schema="mine")
    _, body, headers = await fetch(server, "things", headers={"Accept-Profile": "mine"})
    assert body == [{"id": 1}]
    assert headers["Content-Profile"] == "mine"
    assert (await fetch(server, "things"))[0] == 404
    assert (await fetch(server, "users", headers={"Accept-Profile": "auth"}))[0] == 406


async def test_rows_are_seen_by_those_who_may(server: LocalRealtime) -> None:
    server.table(
        "notes",
        {"id": "int8", "owner": "text"},
        visible=lambda claims, row: claims.get("sub") == row["owner"],
    )
    server.insert("notes", {"id": 1, "owner": "anna"})
    server.insert("notes", {"id": 2, "owner": "bob"})
    for token, ids in (
        (None, []),
        (server.token(sub="anna"), [1]),
        (server.token(sub="bob"), [2]),
        (server.service_key, [1, 2]),
    ):
        _, body, _ = await fetch(server, "notes?order=id", token=token)
        assert [row["id"] for row in body] == ids


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"apikey": ""}, "NoApiKey"),
        ({"apikey": "nonsense"}, "PGRST301"),
        ({"Authorization": "Bearer nonsense"}, "PGRST301"),
    ],
)
async def test_who_is_not_known_reads_nothing(
    filled: LocalRealtime, headers: dict[str, str], code: str
) -> None:
    status, body, _ = await fetch(filled, "things", headers=headers)
    assert (status, body["code"]) == (401, code)


async def test_an_expired_token_is_told_as_such(filled: LocalRealtime) -> None:
    status, body, _ = await fetch(filled, "things", token=filled.token(expires_in=-5))
    assert (status, body["code"], body["message"]) == (401, "PGRST303", "JWT expired")


async def test_a_refused_token_is_forgotten_without_a_collection(filled: LocalRealtime) -> None:
    await fetch(filled, "things", token="e30.e30.e30")
    gc.collect()
    gc.disable()
    try:
        await fetch(filled, "things", token="e30.e30.e30")
        kept = [each for each in gc.get_objects() if isinstance(each, TokenError | RestProblem)]
    finally:
        gc.enable()
    assert kept == []


async def test_a_browser_may_ask_from_anywhere(filled: LocalRealtime) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.options(f"{filled.url}/rest/v1/things") as response,
    ):
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "*"


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=30)), max_size=4), st.text())
def test_any_query_is_read_or_refused(pairs: list[tuple[str, str]], span: str) -> None:
    with contextlib.suppress(RestProblem):
        parse_query(pairs, span)


# -- the size of answers -------------------------------------------------------------------

MB = 2**20


async def test_an_answer_is_bounded_however_often_a_column_is_asked_for(
    server: LocalRealtime,
) -> None:
    server.table("texts", {"id": "int4", "t": "text"})
    server.insert("texts", {"id": 1, "t": "x" * MB})
    status, body, _ = await fetch(server, "texts?select=a:t,b:t")
    assert (status, len(body[0]["b"])) == (200, MB)
    select = ",".join(f"a{number}:t" for number in range(9))
    status, body, _ = await fetch(server, f"texts?select={select}")
    assert (status, body["code"]) == (413, "54000")
    for number in range(2, 11):
        server.insert("texts", {"id": number, "t": "x" * MB})
    status, body, _ = await fetch(server, "texts")
    assert (status, body["code"]) == (413, "54000")
    status, body, headers = await fetch(server, "texts?limit=3&offset=2&order=id")
    assert (status, [row["id"] for row in body]) == (200, [3, 4, 5])
    assert headers["Content-Range"] == "2-4/*"
    assert headers["Content-Type"] == "application/json; charset=utf-8"


async def test_answers_that_nobody_reads_are_cut_when_there_are_too_many() -> None:
    async with LocalRealtime() as server:
        server.table("texts", {"id": "int4", "t": "text"})
        server.insert("texts", {"id": 1, "t": "x" * 7 * MB})
        loop = asyncio.get_running_loop()
        lazy = []
        for _ in range(20):
            found = socket.socket()
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            found.setblocking(False)
            await loop.sock_connect(found, ("127.0.0.1", server.port))
            head = f"GET /rest/v1/texts HTTP/1.1\r\nHost: localhost\r\napikey: {server.anon_key}"
            await loop.sock_sendall(found, f"{head}\r\n\r\n".encode())
            lazy.append(found)
            await asyncio.sleep(0.02)
        # Each of them is a reader until it is read, cut or given up.
        assert 1 <= len(server.backend.readers) <= MOST_OUTGOING // (7 * MB)
        assert 7 * MB < server.backend.outgoing.total <= MOST_OUTGOING
        status, body, _ = await fetch(server, "texts?select=id")
        assert (status, body) == (200, [{"id": 1}])
        for found in lazy:
            found.close()
        async with asyncio.timeout(5):
            while server.backend.outgoing.total or server.backend.readers:
                await asyncio.sleep(0.01)


async def test_a_large_answer_comes_whole_and_the_connection_goes_on(
    server: LocalRealtime,
) -> None:
    server.table("texts", {"id": "int4", "t": "text"})
    server.insert("texts", {"id": 1, "t": "ü" * MB})
    url, headers = f"{server.url}/rest/v1/texts", {"apikey": server.anon_key}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http:
        for _ in range(2):
            async with http.get(url, headers=headers) as response:
                assert (await response.json())[0]["t"] == "ü" * MB
            async with http.head(url, headers=headers) as response:
                assert (response.status, await response.read()) == (200, b"")
                assert response.headers["Content-Range"] == "0-0/*"
    assert server.backend.outgoing.total == 0

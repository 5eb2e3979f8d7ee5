"""The SQL of README.md and docs/*.md, run unchanged, in the order of each page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from supabase_rt import Refused, create_client
from supabase_rt.server import LocalRealtime, new_secret
from supabase_rt.server._postgres.embedded import EmbeddedPostgres
from supabase_rt.server._postgres.errors import DatabaseProblem
from supabase_rt.testing import ThreadedRealtime
from tests.server.kit import wire
from tests.support.snippets import PAGES, ROOT, blocks_of, json_of
from tests.support.waiting import until
from tests.tools.cli.kit import serving

from .tables import OTHER, OWNER
from .test_database import run

LOCAL_SERVER = ROOT / "docs" / "local-server.md"
RECIPE = "Without a superuser"
SECRET = new_secret()
TOLD = ["index.md", "local-server.md"]
INLINE = re.compile(r"`((?:alter|create|grant)\s[^`…]*)`")
TABLES = """
create schema shop;
create table messages (id int primary key);
create table todos (id int primary key, text text);
"""
"""The statements that the readers of these pages have run before."""


def sql_of(page: str) -> list[str]:
    """All statements except the recipe, which needs a PostgreSQL without roles."""
    blocks = blocks_of(ROOT / "docs" / page, "sql")
    return [block.code for block in blocks if block.heading != RECIPE]


def inline(page: Path) -> list[str]:
    """Returns complete statements within the text, without those with a placeholder."""
    return [one for one in INLINE.findall(page.read_text()) if "..." not in one]


def test_no_page_with_sql_is_overlooked() -> None:
    pages = {page.name for page in PAGES if blocks_of(page, "sql")}
    assert pages == {*TOLD, "private-channels.md", "troubleshooting.md"}


@pytest.mark.parametrize("page", TOLD)
async def test_a_table_is_told_after_the_sql_of_a_page(
    page: str, realtime_db: ThreadedRealtime
) -> None:
    for code in sql_of(page):
        realtime_db.sql(code)
    supabase = create_client(realtime_db.url, realtime_db.anon_key)
    async with supabase.realtime:
        room = supabase.channel("room")
        table = {"event": "INSERT", "schema": "public", "table": "messages"}
        rows = room.stream("postgres_changes", table)
        await room.subscribe().ready(10)
        realtime_db.sql("insert into messages default values")
        assert (await anext(rows)).new["id"] == 1


@pytest.mark.parametrize(
    ("user", "topic", "is_member"),
    [(OWNER, "room:5", True), (OWNER, "room:6", False), (OTHER, "room:5", False)],
)
async def test_members_are_let_in_after_the_policies_of_a_page(
    user: str, topic: str, is_member: bool, realtime_db: ThreadedRealtime
) -> None:
    for code in sql_of("private-channels.md"):
        realtime_db.sql(code)
    realtime_db.sql(f"insert into members values (5, '{OWNER}')")
    token = realtime_db.token("authenticated", sub=user)
    supabase = create_client(realtime_db.url, realtime_db.anon_key, access_token=lambda: token)
    async with supabase.realtime:
        config: Any = {"private": True, "broadcast": {"self": True, "ack": True}}
        room = supabase.channel(topic, {"config": config})
        heard = room.stream("broadcast", {"event": "*"})
        if not is_member:
            with pytest.raises(Refused):
                await room.subscribe()
            return
        await room.subscribe()
        assert await room.send({"type": "broadcast", "event": "hi", "payload": {"x": 1}}) == "ok"
        assert (await anext(heard)).payload == {"x": 1}


async def test_old_rows_are_whole_after_the_sql_of_a_page(
    realtime_db: ThreadedRealtime,
) -> None:
    realtime_db.sql(f"{TABLES}; alter publication supabase_realtime add table todos")
    for code in sql_of("troubleshooting.md"):
        realtime_db.sql(code)
    realtime_db.sql("insert into todos values (1, 'tea')")
    supabase = create_client(realtime_db.url, realtime_db.anon_key)
    async with supabase.realtime:
        room = supabase.channel("room")
        rows = room.stream(
            "postgres_changes", {"event": "DELETE", "schema": "public", "table": "todos"}
        )
        await room.subscribe().ready(10)
        realtime_db.sql("delete from todos")
        assert (await anext(rows)).old == {"id": 1, "text": "tea"}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if inline(page)], ids=lambda page: page.stem
)
def test_statements_within_the_text_of_a_page_run(
    page: Path, realtime_db: ThreadedRealtime
) -> None:
    realtime_db.sql(TABLES)
    for statement in inline(page):
        # Several pages repeat a statement.
        realtime_db.sql(f"begin; {statement}; rollback")


async def test_a_channel_is_told_of_a_missed_change_as_a_page_shows(
    untouched: EmbeddedPostgres,
) -> None:
    """A policy that takes longer than the timeout; the page shows the resulting message as JSON."""
    async with LocalRealtime(db=untouched.url, statement_timeout=0.5) as server:
        await server.sql(
            "create table notes (id int primary key); alter table notes enable row level security;"
            "create policy slow on notes using (pg_sleep(60) is null);"
            "grant select on notes to anon; alter publication supabase_realtime add table notes"
        )
        binding = {"event": "*", "schema": "public", "table": "notes"}
        async with wire(server) as client:
            await client.join(postgres_changes=[binding])
            assert (await client.recv(10))[4]["message"] == "Subscribed to PostgreSQL"
            await server.sql("insert into notes values (1)")
            told = [(await client.recv(10))[4] for _ in range(2)]
    assert told == [payload for _, payload in json_of(LOCAL_SERVER)]


# -- without a superuser -------------------------------------------------------------------


@pytest.fixture
def untouched() -> Iterator[EmbeddedPostgres]:
    """A new PostgreSQL without any roles; roles belong to the whole server."""
    with EmbeddedPostgres() as found:
        yield found


def recipe() -> list[str]:
    return [block.code for block in blocks_of(LOCAL_SERVER, "sql") if block.heading == RECIPE]


async def notes_of(url: str, key: str, stack: AsyncExitStack, owner: str) -> list[str]:
    """Returns the changes of the table notes that a signed-in user gets from now on."""

    async def token() -> str:
        return LocalRealtime(jwt_secret=SECRET).token("authenticated", sub=owner)

    supabase = create_client(url, key, access_token=token)
    await stack.enter_async_context(supabase.realtime)
    told: list[str] = []
    table = {"event": "*", "schema": "public", "table": "notes"}
    room = supabase.channel("room", {"config": {"private": True}})
    room.on("postgres_changes", table, lambda change: told.append(change.new["text"]))
    room.on("broadcast", {"event": "*"}, lambda found: told.append(str(found.event)))
    await room.subscribe()
    await room.ready(10)
    return told


async def test_an_ordinary_user_serves_after_what_the_page_says(
    untouched: EmbeddedPostgres,
) -> None:
    """Changes, row level security, private channels and stored messages, without a superuser."""
    prepare, table, _ = recipe()
    await run(untouched, prepare)
    url = untouched.url.replace("postgres@", "realtime_server@")
    started = serving(f"--db={url}", SUPABASE_JWT_SECRET=SECRET)
    async with started as server, AsyncExitStack() as stack:
        await run(untouched, table)
        await run(
            untouched,
            "create policy r on realtime.messages for select to authenticated using (true)",
        )
        where = server.shown["URL"], server.shown["anon key"]
        hers, his = [await notes_of(*where, stack, owner) for owner in (OWNER, OTHER)]
        for owner, text in ((OWNER, "hers"), (OTHER, "his")):
            await run(untouched, f"insert into notes (owner, text) values ('{owner}', '{text}')")
        await run(untouched, "select realtime.send('{}', 'said', 'room')")
        await until(lambda: {*hers, *his} == {"hers", "his", "said"} and len(hers + his) == 4)
        assert set(hers) == {"hers", "said"}
        stranger = await stack.enter_async_context(create_client(*where).realtime)
        with pytest.raises(Refused):
            await stranger.channel("room", {"config": {"private": True}}).subscribe()
    # The second start needs no rights, because the first has created all objects.
    async with LocalRealtime(db=url):
        pass


async def test_a_missing_right_is_one_line_that_names_the_remedy(
    untouched: EmbeddedPostgres,
) -> None:
    prepare, _, hand_over = recipe()
    await run(untouched, prepare)
    await run(untouched, "create database served_before")
    url = untouched.url_of("served_before")
    ours = url.replace("postgres@", "realtime_server@")
    async with LocalRealtime(db=url):
        pass
    with pytest.raises(DatabaseProblem, match=hand_over.strip(";\n")):
        await LocalRealtime(db=ours).start()
    await run(untouched, hand_over, "served_before")
    for role in ("anon", "authenticated", "service_role"):
        await run(untouched, f"revoke {role} from realtime_server")
    with pytest.raises(DatabaseProblem, match="may not act as anon, authenticated and"):
        await LocalRealtime(db=ours).start()
    await run(untouched, prepare.partition("'of your choice';")[2].partition(";")[0])
    async with LocalRealtime(db=ours):
        pass

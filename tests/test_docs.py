"""Every Python block of docs/*.md runs against the local server; a new page joins by existing.

Pieces run one after the other in one namespace, as somebody reads them; a program (it looks into
its environment) runs in a process of its own, and a test is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from supabase_rt import RealtimeClient, SupabaseClient, create_client
from supabase_rt.server import LocalRealtime

from .support.programs import run_program
from .support.snippets import PAGES, ROOT, Block, blocks_of, complaints, run_block, traffic
from .support.waiting import until

WITH_CODE = [page for page in PAGES if page.name != "README.md" and blocks_of(page)]
PROGRAMS = [(page, block) for page in WITH_CODE for block in blocks_of(page) if block.is_program]
TESTS = [(page, block) for page in PAGES for block in blocks_of(page) if block.tests]

PRINTED: dict[str, list[str]] = {
    "missed-events.md": [r"order \d+ live", r"streamed \d+", "todo INSERT"],
    "porting-from-js.md": [
        "<PostgresChange INSERT public.todos>",
        "row hello",
        r"order \d+",
        r"added \d+",
        r"removed \d+",
        r"saved \d+ {} 20\S+",
        r"matched \d+",
        r"columns \['id', 'list'\]",
        r"cursor \d+",
        r"cursor {.*'x': \d+}",
        "greeted",
        "ready",
        "result ok",
        "by HTTP ok",
        "removed ok",
        "acknowledged ok",
        "echo 1",
        "member of realtime:members",
        r"add {'id': \d+",
        r"change {'id': \d+.*} {'id': ",
        r"remove {'id': \d+",
        r"replayed True {.*'n': 1}",
        "here {",
        "joined anna ",
        "left anna ",
        "tracked ok",
        "at the desk 1",
        "count 1",
        r"open \d+",
        "watch SUBSCRIBED",
        "heartbeat ok",
        "system ok ",
    ],
    "porting-from-supabase-py.md": [
        r"inserted \d+",
        "INSERT",
        "DELETE",
        r"cursor \d+",
        "sent ok",
        r"here \['anna'\]",
        "joined anna 1",
        "tracked ok",
        "system ok ",
    ],
}
"""What the pieces of a page print, in any order: a handler that hears nothing proves nothing."""


def names(pairs: list[tuple[Path, Block]]) -> list[str]:
    return [f"{page.stem}: {block.heading}" for page, block in pairs]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
async def test_the_pieces_of_a_page(
    page: Path,
    server: LocalRealtime,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One after the other, without an error in the log, and their handlers are called."""
    pieces = [block for block in blocks_of(page) if not (block.is_program or block.tests)]
    supabase = create_client(server.url, server.anon_key)
    client = RealtimeClient(server.ws_url, params={"apikey": server.anon_key})
    namespace: dict[str, Any] = {
        "supabase": supabase,
        "other": create_client(server.url, server.anon_key),
        "client": client,
        "create_client": create_client,
        "pytest": pytest,
        "url": server.url,
        "key": server.anon_key,
        "token": server.token("authenticated", sub="anna"),
        "room_id": 5,
        "user_id": "anna",
    }
    errors: list[Any] = []
    for one in (supabase.realtime, client):
        one.on("error", lambda error: errors.append(error))
    told = ""

    def unprinted() -> list[str]:
        nonlocal told
        told += capsys.readouterr().out
        wanted = PRINTED.get(page.name, [])
        return [one for one in wanted if not re.search(f"^{one}", told, re.MULTILINE)]

    server.broadcast("log", "note", {"n": 1}, private=True)
    try:
        async with traffic(server):
            for block in pieces:
                await run_block(block, namespace)
                if "lobby" in namespace and "anna" not in str(namespace["lobby"].presence_state()):
                    await somebody_comes_and_goes(server, namespace["lobby"])
            with contextlib.suppress(AssertionError):
                await until(lambda: not unprinted())
            assert unprinted() == [], told
    finally:
        for one in namespace.values():
            if isinstance(one, SupabaseClient):
                await one.realtime.remove_all_channels()
            elif isinstance(one, RealtimeClient):
                await one.remove_all_channels()
    assert errors == []
    assert [one.message for one in caplog.records if one.levelno >= logging.ERROR] == []


async def somebody_comes_and_goes(server: LocalRealtime, lobby: Any) -> None:
    """Presence that the page's own channel does not make."""
    await lobby
    async with RealtimeClient(server.ws_url, params={"apikey": server.anon_key}) as client:
        options: Any = {"config": {"presence": {"key": "anna"}}}
        channel = await client.channel(lobby.sub_topic, options).subscribe()
        await channel.track({"mood": "curious"})
        await until(lambda: "anna" in lobby.presence_state())
    await until(lambda: "anna" not in lobby.presence_state())


@pytest.mark.parametrize(("page", "block"), PROGRAMS, ids=names(PROGRAMS))
async def test_the_programs_of_a_page(
    page: Path, block: Block, server: LocalRealtime, settings: None
) -> None:
    """They receive, and end at once or with Ctrl+C, without a word on stderr."""
    async with traffic(server):
        if block.is_endless:
            ended = await run_program(block.code, until="<Broadcast 'cursor'>", send=signal.SIGINT)
        else:
            ended = await run_program(block.code)
    assert (ended.code, complaints(ended.err)) == (0, [])
    assert "<Broadcast 'cursor'>" in ended.out


@pytest.mark.parametrize(("page", "block"), TESTS, ids=names(TESTS))
async def test_the_tests_of_a_page(page: Path, block: Block) -> None:
    namespace: dict[str, Any] = {}
    await run_block(block, namespace)
    for name in block.tests:
        async with asyncio.timeout(20):
            await namespace[name]()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_block_is_overlooked_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    assert len(blocks_of(page)) == len(re.findall("^```python$", text, re.MULTILINE))
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]+)?\)", text):
        found = (page.parent / target) if target else page
        assert found.exists(), target
        if anchor:
            assert anchor[1:] in anchors(found), anchor


def anchors(page: Path) -> set[str]:
    """What headings can be linked to as."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_expected_output_is_that_of_pages_that_exist() -> None:
    assert set(PRINTED) <= {page.name for page in WITH_CODE}
    assert ROOT / "README.md" in PAGES

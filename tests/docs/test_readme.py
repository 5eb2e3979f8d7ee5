"""Every Python block of the README runs, in order, against the local server."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import supabase_rt
from supabase_rt import RealtimeError, SupabaseClient, create_client
from supabase_rt._handlers.dispatcher import CLIENT_EVENTS
from supabase_rt.server import LocalRealtime

from ..support.programs import run_program
from ..support.snippets import ROOT, Block, blocks_of, complaints, run_block, traffic

PAGE = ROOT / "README.md"
TEXT = PAGE.read_text()
BLOCKS = blocks_of(PAGE)
BOT, AWAITED, TESTING = "A bot", "Inside a running loop", "Testing your bot"


def under(heading: str) -> Block:
    """Returns the one block under a heading."""
    (found,) = [block for block in BLOCKS if block.heading == heading]
    return found


def test_every_block_is_run() -> None:
    """Every block is in one of the sections that a test runs."""
    assert len(BLOCKS) == TEXT.count("```python")
    assert [block.heading for block in BLOCKS if block.is_program or block.tests] == [
        BOT,
        AWAITED,
        TESTING,
    ]


async def test_the_bot(server: LocalRealtime, settings: None) -> None:
    """The ten lines receive events without ``await``, and Ctrl+C ends them without output on
    stderr."""
    async with traffic(server):
        until = "<PostgresChange INSERT public.messages {"
        ended = await run_program(under(BOT).code, until=until, send=signal.SIGINT)
    lines = [line.strip() for line in ended.out.splitlines()]
    assert (ended.code, complaints(ended.err)) == (0, [])
    assert lines[0] == "SUBSCRIBED"
    assert lines[-1] == "CLOSED"
    assert any("'x': " in line for line in lines)


async def test_the_awaited_form(server: LocalRealtime, settings: None) -> None:
    ended = await run_program(under(AWAITED).code)
    assert (ended.code, complaints(ended.err)) == (0, [])
    assert ended.out == "{'x': 1}\n"


async def test_the_pieces(server: LocalRealtime, capsys: pytest.CaptureFixture[str]) -> None:
    """The blocks inside a loop run one after the other."""

    async def sign_in() -> str:
        return server.token("authenticated", sub="anna")

    namespace: dict[str, Any] = {
        "supabase": create_client(server.url, server.anon_key),
        "create_client": create_client,
        "url": server.url,
        "key": server.anon_key,
        "sign_in": sign_in,
    }
    try:
        async with traffic(server):
            for block in BLOCKS:
                if not (block.is_program or block.tests):
                    await run_block(block, namespace)
            await asyncio.sleep(0.1)
    finally:
        for client in [one for one in namespace.values() if isinstance(one, SupabaseClient)]:
            await client.realtime.remove_all_channels()
    assert namespace["status"] == "ok"
    assert namespace["message"].payload["x"] > 0
    printed = capsys.readouterr().out
    assert re.search(r"^INSERT \d+ 2026-01-01 00:00:00\+00:00$", printed, re.MULTILINE)
    assert "['anna']" in printed


def table_names(heading: str) -> Iterator[str]:
    """Returns the words in backquotes in the first column of the tables of a section."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    for row in re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE):
        yield from re.findall(r"`(\w+)`", row)


def test_the_table_of_errors_is_complete() -> None:
    errors = {
        name
        for name in supabase_rt.__all__
        if isinstance(getattr(supabase_rt, name), type)
        and issubclass(getattr(supabase_rt, name), RealtimeError)
    }
    assert set(table_names("Errors")) == errors - {"RealtimeError", "SubscribeError"}


def test_the_tables_of_statuses_and_events_are_complete() -> None:
    told = set(table_names("When the connection is lost"))
    assert told == set(supabase_rt.SubscribeStatus) | set(CLIENT_EVENTS)

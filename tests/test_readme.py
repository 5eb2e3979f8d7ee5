"""Every Python block of the README runs, in order, against the local server."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import itertools
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import supabase_rt
from supabase_rt import RealtimeError, SupabaseClient, create_client
from supabase_rt.dispatch import CLIENT_EVENTS
from supabase_rt.server import LocalRealtime

from .support.programs import run_program

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks() -> dict[str, list[str]]:
    """The Python blocks under each heading."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^## ", TEXT, flags=re.MULTILINE):
        heading, _, body = section.partition("\n")
        code = re.findall(r"^```python\n(.*?)^```", body, flags=re.MULTILINE | re.DOTALL)
        if code:
            found[heading] = code
    return found


BLOCKS = blocks()
BOT, AWAITED, TESTING = "A bot", "Inside a running loop", "Testing your bot"
PIECES = [heading for heading in BLOCKS if heading not in (BOT, AWAITED, TESTING)]


@contextlib.asynccontextmanager
async def traffic(server: LocalRealtime) -> AsyncIterator[None]:
    """Changes and broadcasts all the time, so that no block waits for long."""
    server.table("todos", {"id": "int8", "list": "text", "priority": "int4", "due": "timestamptz"})
    server.table("messages", {"id": "int8", "text": "text"})

    async def flow() -> None:
        for number in itertools.count(1):
            server.insert("messages", {"id": number, "text": "hello"})
            due = {"list": "home", "priority": 3, "due": "2026-01-01T00:00:00+00:00"}
            server.insert("todos", {"id": number, **due})
            for topic in ("room", "todos"):
                server.broadcast(topic, "cursor", {"x": number})
            await asyncio.sleep(0.02)

    flowing = asyncio.create_task(flow(), name="test:traffic")
    try:
        yield
    finally:
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)


@pytest.fixture
def settings(server: LocalRealtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program finds in its environment."""
    monkeypatch.setenv("SUPABASE_URL", server.url)
    monkeypatch.setenv("SUPABASE_KEY", server.anon_key)
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")


def complaints(err: str) -> list[str]:
    """Lines on stderr, but for asyncio's remark that the machine is slow."""
    return [line for line in err.splitlines() if not line.startswith("Executing <")]


async def run_block(code: str, namespace: dict[str, Any]) -> None:
    """Run a piece as if it stood inside a running loop."""
    compiled = compile(code, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, namespace)
    if inspect.iscoroutine(result):
        async with asyncio.timeout(20):
            await result


def test_every_block_is_run() -> None:
    """None stands where no test looks."""
    assert sum(len(found) for found in BLOCKS.values()) == TEXT.count("```python")
    assert {BOT, AWAITED, TESTING} < set(BLOCKS)


async def test_the_bot(server: LocalRealtime, settings: None) -> None:
    """The ten lines receive, un-awaited, and Ctrl+C ends them without a word on stderr."""
    async with traffic(server):
        until = "<PostgresChange INSERT public.messages>"
        ended = await run_program(BLOCKS[BOT][0], until=until, send=signal.SIGINT)
    lines = [line.strip() for line in ended.out.splitlines()]
    assert (ended.code, complaints(ended.err)) == (0, [])
    assert lines[0] == "SUBSCRIBED"
    assert lines[-1] == "CLOSED"
    assert any("'x': " in line for line in lines)


async def test_the_awaited_form(server: LocalRealtime, settings: None) -> None:
    ended = await run_program(BLOCKS[AWAITED][0])
    assert (ended.code, complaints(ended.err)) == (0, [])
    assert ended.out == "{'x': 1}\n"


async def test_the_pieces(server: LocalRealtime, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that go inside a loop, one after the other, as somebody reads them."""

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
            for heading in PIECES:
                for code in BLOCKS[heading]:
                    await run_block(code, namespace)
            await asyncio.sleep(0.1)
    finally:
        for client in [one for one in namespace.values() if isinstance(one, SupabaseClient)]:
            await client.realtime.remove_all_channels()
    assert namespace["status"] == "ok"
    assert namespace["message"].payload["x"] > 0
    printed = capsys.readouterr().out
    assert re.search(r"^INSERT \d+ 2026-01-01 00:00:00\+00:00$", printed, re.MULTILINE)
    assert "['anna']" in printed


async def test_the_test() -> None:
    """The test that users are shown passes."""
    namespace: dict[str, Any] = {}
    await run_block(BLOCKS[TESTING][0], namespace)
    async with asyncio.timeout(20):
        await namespace["test_bot_survives_a_cut"]()


def table_names(heading: str) -> Iterator[str]:
    """What stands in the first column of the tables of a section, in backquotes."""
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


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT):
        assert (ROOT / target).exists(), target

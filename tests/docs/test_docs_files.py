"""Tests for blocks of docs/*.md that are files of other programs, or lines of a log."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supabase_rt.server import LocalRealtime

from ..support.programs import TIMEOUT
from ..support.snippets import PAGES, ROOT, blocks_of

DEPLOYMENT = ROOT / "docs" / "deployment.md"
BOTS = {block.file: block.code for block in blocks_of(DEPLOYMENT) if block.file}
(UNIT,) = blocks_of(DEPLOYMENT, "ini")
(DOCKERFILE,) = blocks_of(DEPLOYMENT, "dockerfile")

TRIED = {
    "python": "tests/docs/test_docs.py, tests/docs/test_readme.py",
    "text": "tests/docs/test_docs.py",
    "sql": "tests/server_postgres/test_docs_db.py",
    "console": "tests/server_postgres/test_docs_console.py",
    "js": "tests/contract/differential/test_differential.py",
    "json": "tests/docs/test_docs_protocol.py, tests/server_postgres/test_docs_db.py",
    "ini": "here",
    "dockerfile": "here",
}
"""The test of the blocks of each language."""
PLAIN = {
    "command-line.md": "tests/server_postgres/test_docs_console.py",
    "typed-rows.md": "tests/server_postgres/test_docs_console.py",
    "troubleshooting.md": "here",
}
"""The test of the blocks without a language, by page."""

KNOWN = {
    "Unit": "Description Wants After",
    "Service": "User WorkingDirectory EnvironmentFile Environment ExecStart Restart RestartSec"
    " TimeoutStopSec",
    "Install": "WantedBy",
}
INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "CMD"}
VARIABLE = re.compile(
    r"\b(?:ERROR|WARNING) supabase_rt\.\w+|\brealtime:\w+|\bbot\.\w+|\b[A-Z]\w+Error\b|\bwss://\S+"
    r"|to be subscribed|\bmembers\b|\d[\d.]*|\.\.\.|[()`:;,]"
)
"""The variable parts between the fixed words of a message."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_block_is_overlooked(page: Path) -> None:
    for language in re.findall(r"^ *```(.*)\n(?:.*\n)*?^ *```$", page.read_text(), re.MULTILINE):
        if included := re.fullmatch(r' \{ \.python title="(\w+\.py)" \}', language):
            path = f"supabase_rt/examples/{included[1]}"
            assert f'--8<-- "{path}"' in page.read_text()
            assert (ROOT / path).exists()
        else:
            assert language in TRIED or (not language and page.name in PLAIN), language


# -- systemd and Docker --------------------------------------------------------------------


def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(UNIT.code)
    return found


def instructions() -> list[tuple[str, str]]:
    return [
        (word, rest)
        for word, _, rest in (line.partition(" ") for line in DOCKERFILE.code.splitlines())
    ]


def test_systemd_knows_what_the_unit_says(tmp_path: Path) -> None:
    assert {name: " ".join(unit()[name]) for name in unit().sections()} == KNOWN
    if (checker := shutil.which("systemd-analyze")) is None:
        return
    # The program of the unit does not exist here, so another one takes its place.
    program = unit()["Service"]["ExecStart"].split()[0]
    path = tmp_path / "bot.service"
    path.write_text(UNIT.code.replace(program, sys.executable))
    done = subprocess.run(
        [checker, "verify", path], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_image_is_made_of_what_the_page_has() -> None:
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM"
    assert names[-1] == "CMD"
    assert set(names) == INSTRUCTIONS
    wheel = "supabase_rt-*.whl"
    assert [rest for name, rest in instructions() if name == "RUN"] == [
        f"pip install --no-cache-dir ./{wheel}"
    ]
    copied = {
        source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]
    }
    assert copied == {wheel, *BOTS}


def commands() -> dict[str, tuple[list[str], dict[str, str]]]:
    """Returns the arguments and the environment with which systemd and Docker start the bot."""
    service, image = unit()["Service"], dict(instructions())
    return {
        "systemd": (service["ExecStart"].split(), dict([service["Environment"].split("=")])),
        "Docker": (json.loads(image["CMD"]), dict([image["ENV"].split("=")])),
    }


@pytest.mark.parametrize("by", ["systemd", "Docker"])
async def test_the_bot_starts_as_it_is_started_there_and_ends_with_sigterm(
    by: str, tmp_path: Path, server: LocalRealtime
) -> None:
    """It runs in a folder with only the program, with only the environment of the page."""
    (interpreter, program), environment = commands()[by]
    assert interpreter.endswith("python")
    (tmp_path / program).write_text(BOTS[program])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        program,
        cwd=tmp_path,
        env={
            **environment,
            "SUPABASE_URL": server.url,
            "SUPABASE_KEY": server.anon_key,
            # The tests run the package from its source.
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(TIMEOUT):
            assert (await process.stdout.readline()).split() == [b"SUBSCRIBED"]
            server.broadcast("room", "cursor", {"x": 1})
            assert b"<Broadcast 'cursor'" in await process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, out.split(), err) == (0, [b"CLOSED"], b"")


# -- what stands in a log ------------------------------------------------------------------


def test_the_messages_of_the_page_are_those_of_the_code() -> None:
    texts = [path.read_text() for path in sorted((ROOT / "supabase_rt").rglob("*.py"))]
    # A text may continue in the next line.
    source = " ".join(re.sub(r'"\s*\n\s*f?"', "", "\n".join(texts)).split())
    blocks = blocks_of(ROOT / "docs" / "troubleshooting.md", "")
    assert len(blocks) > 5
    for block in blocks:
        fixed = [part.strip() for part in VARIABLE.split(" ".join(block.code.split()))]
        assert [part for part in fixed if part not in source] == [], block.heading

"""The blocks of README.md and docs/*.md, and how each kind of Python block is run."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import itertools
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supabase_rt.server import LocalRealtime

__all__ = ["PAGES", "ROOT", "Block", "blocks_of", "complaints", "json_of", "run_block", "traffic"]

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])

_PROGRAM = re.compile(r"\bimport os\b")
_ENDLESS = re.compile(r"\.run\(\)")
_FILE = re.compile(r"# (\w+\.py)\n")


@dataclass(frozen=True)
class Block:
    """One block with its heading and its kind."""

    heading: str
    code: str

    @property
    def file(self) -> str | None:
        """The name of the block if it is a file of the reader's project, from its first line."""
        found = _FILE.match(self.code)
        return found[1] if found else None

    @property
    def is_program(self) -> bool:
        """True if it takes URL and key from its environment, so it runs by itself."""
        return bool(_PROGRAM.search(self.code))

    @property
    def is_piece(self) -> bool:
        """True if it continues the pieces before it, inside a running loop."""
        return not (self.file or self.is_program or self.tests)

    @property
    def is_endless(self) -> bool:
        """True for a program that runs until it is told to stop."""
        return self.is_program and bool(_ENDLESS.search(self.code))

    @property
    def tests(self) -> list[str]:
        """The tests that it defines without arguments, to be called directly."""
        if self.file:
            return []
        return re.findall(r"^async def (test_\w+)\(\)", self.code, re.MULTILINE)


def blocks_of(page: Path, wanted: str = "python") -> list[Block]:
    """Returns the blocks of a page in one language, in their order."""
    found: list[Block] = []
    heading, language, code = "", None, ""
    for line in page.read_text().splitlines(keepends=True):
        if language is not None:
            if line.startswith("```"):
                found += [Block(heading, code)] if language == wanted else []
                language = None
            code += line
        elif line.startswith("```"):
            language, code = line[3:].strip(), ""
        elif line.startswith("#"):
            heading = line.strip("# \n")
    return found


def json_of(page: Path) -> list[tuple[str, Any]]:
    """Yields the JSON values of a page with their headings; a block may have several."""
    found = []
    for block in blocks_of(page, "json"):
        rest = block.code.strip()
        while rest:
            value, end = json.JSONDecoder().raw_decode(rest)
            found.append((block.heading, value))
            rest = rest[end:].strip()
    return found


async def run_block(block: Block, namespace: dict[str, Any]) -> None:
    """Run a piece as if it were inside a running loop."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    # Compiled without the __future__ of this file, which turns the types of a dataclass into texts.
    code = compile(block.code, f"<{block.heading}>", "exec", flags=flags, dont_inherit=True)
    result = eval(code, namespace)
    if inspect.iscoroutine(result):
        async with asyncio.timeout(20):
            await result


def complaints(err: str) -> list[str]:
    """Returns the lines on stderr without asyncio's remarks about a slow machine."""
    return [line for line in err.splitlines() if not line.startswith("Executing <")]


@contextlib.asynccontextmanager
async def traffic(server: LocalRealtime) -> AsyncIterator[None]:
    """Sends changes and broadcasts all the time, so that no block waits for long."""
    server.table("todos", {"id": "int8", "list": "text", "priority": "int4", "due": "timestamptz"})
    server.table("messages", {"id": "int8", "room_id": "int8", "text": "text"})
    server.table("orders", {"id": "int8", "amount": "int4", "status": "text"})

    async def flow() -> None:
        for number in itertools.count(1):
            server.insert("messages", {"id": number, "room_id": 5, "text": "hello"})
            server.insert("orders", {"id": number, "amount": 500, "status": "open"})
            due = {"list": "home", "priority": 3, "due": "2026-01-01T00:00:00+00:00"}
            todo = {"id": number, **due}
            server.insert("todos", todo)
            server.update("todos", todo)
            server.delete("todos", todo)
            for topic in ("room", "todos"):
                server.broadcast(topic, "cursor", {"x": number})
            for event in ("INSERT", "UPDATE", "DELETE"):
                payload = {"record": todo, "old_record": todo, "operation": event}
                server.broadcast("topic:5", event, payload, private=True)
            await asyncio.sleep(0.1)

    flowing = asyncio.create_task(flow(), name="test:traffic")
    try:
        yield
    finally:
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)

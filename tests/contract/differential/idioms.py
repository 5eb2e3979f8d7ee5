"""The JavaScript of docs/porting-from-js.md, for idioms.mjs."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from supabase_rt.server import LocalRealtime
from tests.support.snippets import ROOT, blocks_of, traffic

__all__ = ["CALLED", "pieces", "play", "syntax_errors"]

PAGE = ROOT / "docs" / "porting-from-js.md"
RUNNER = Path(__file__).with_name("idioms.mjs")
PARSER = """
const AsyncFunction = (async () => {}).constructor
const failures = []
for (const { title, code } of JSON.parse(require('fs').readFileSync(0))) {
  try { new AsyncFunction(code) } catch (error) { failures.push(`${title}: ${error}`) }
}
console.log(JSON.stringify(failures))
"""
CALLED = {
    "1": ["log"],
    "2": ["show"],
    "3": ["heard"],
    "4": ["added", "removed"],
    "5": ["save"],
    "6": ["heard"],
    "7": ["move"],
    "8": ["log"],
    "10": ["ready"],
    "17": ["add", "change", "remove"],
    "18": ["log"],
    "19": ["log"],
    "23": ["log"],
}
"""The names that an idiom calls, by its number."""


def pieces() -> list[dict[str, str]]:
    """The blocks as bodies of functions: a piece of an expression is returned."""
    found = []
    for block in blocks_of(PAGE, "js"):
        code = block.code.strip()
        if code.startswith("filter:"):
            code = f"{{ {code} }}"
        if code.startswith(("{", "(")):
            body = f"return ({code})"
        else:
            call = re.search(r"^function (\w+)\(\)", code, re.MULTILINE)
            body = f"{{ {code}\n{f'{call[1]}()' if call else ''} }}"
        found.append({"title": block.heading, "code": body})
    return found


def syntax_errors() -> list[str]:
    """Node's complaints about pieces that are not JavaScript; this needs no package."""
    given = json.dumps(pieces())
    done = subprocess.run(
        ["node", "-e", PARSER], input=given, capture_output=True, text=True, check=True
    )
    found: list[str] = json.loads(done.stdout)
    return found


async def play(folder: Path) -> dict[str, Any]:
    """Run all pieces at the same time, until all names in ``CALLED`` were called."""
    # Together they receive more than the clients of one project may.
    async with LocalRealtime(max_events_per_second=None) as server:
        return await _play(server, folder)


async def _play(server: LocalRealtime, folder: Path) -> dict[str, Any]:
    titles = {piece["title"].partition(".")[0]: piece["title"] for piece in pieces()}
    about = {
        "url": server.url,
        "key": server.anon_key,
        "token": server.token("authenticated", sub="anna"),
        "pieces": pieces(),
        "wanted": [f"{titles[number]}: {name}" for number, all_ in CALLED.items() for name in all_],
    }
    path = folder / "idioms.json"
    path.write_text(json.dumps(about))
    server.broadcast("log", "note", {"n": 1}, private=True)
    async with traffic(server):
        process = await asyncio.create_subprocess_exec(
            "node", str(RUNNER), str(path), stdout=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(40):
                out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    found: dict[str, Any] = json.loads(out)
    return {**found, "missing": [each for each in about["wanted"] if each not in found["called"]]}

"""Runs runner.mjs with Node, after installing the packages that package-lock.json pins."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from .scenario import SCALE, STAGGER, Scenario
from .waking import PATIENCE

__all__ = ["SKIPPED", "Missing", "install", "play_all"]

HERE = Path(__file__).parent
OLDEST_NODE = 20
SKIPPED = "THE DIFFERENTIAL TEST AGAINST supabase-js WAS SKIPPED"
NPM = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


class Missing(Exception):
    """Node or the packages are not available here; the text names the missing one."""


def install(folder: Path = HERE) -> None:
    """Make ``node_modules`` in a folder; does nothing if it is newer than the lock file."""
    installed, lock = folder / "node_modules" / ".package-lock.json", folder / "package-lock.json"
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise Missing(f"needs Node {OLDEST_NODE} or newer with npm, and found none")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < OLDEST_NODE:
        raise Missing(f"needs Node {OLDEST_NODE} or newer, and found {version.strip()}")
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    try:
        done = subprocess.run(NPM, cwd=folder, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        raise Missing("npm ci did not end within 30 s: no registry?") from None
    if done.returncode:
        raise Missing(f"npm ci failed: {done.stderr.strip()[-300:]}")
    # npm keeps the times of its cache, so this sets the time of the installation.
    installed.touch()


async def play_all(scenarios: list[Scenario], base: str, folder: Path) -> dict[str, Any]:
    """Returns the record of the official client in each scenario, by id."""
    about = {
        "base": base,
        "scale": SCALE,
        "patience": PATIENCE,
        "stagger": STAGGER * 1000,
        "scenarios": [scenario.for_javascript() for scenario in scenarios],
    }
    path = folder / "scenarios.json"
    path.write_text(json.dumps(about))
    process = await asyncio.create_subprocess_exec(
        "node",
        str(HERE / "runner.mjs"),
        str(path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 40)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"runner.mjs failed: {err.decode()[-2000:]}")
    found: dict[str, Any] = json.loads(out)
    return found

"""Plays all scenarios on both sides: ``python -m tests.contract.differential.run [id ...]`` shows
it."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from .compare import unexplained
from .javascript_side import install, play_all
from .python_side import play
from .scenario import STAGGER, Scenario
from .scenarios import SCENARIOS
from .scripted import serve

__all__ = ["play_both"]

Records = dict[str, Any]


async def play_both(scenarios: list[Scenario], folder: Path) -> tuple[Records, Records]:
    """The records of the official client and of ours, by scenario."""
    async with serve() as stages:
        base = f"ws://127.0.0.1:{stages.port}"
        js = await play_all(scenarios, base, folder)
        ours = await asyncio.gather(
            *(
                play(scenario, base, stages.of(f"py/{scenario.id}"), at * STAGGER)
                for at, scenario in enumerate(scenarios)
            )
        )
    return js, {scenario.id: record for scenario, record in zip(scenarios, ours, strict=True)}


def main() -> None:
    chosen = [one for one in SCENARIOS if not sys.argv[1:] or one.id in sys.argv[1:]]
    install()
    with tempfile.TemporaryDirectory() as folder:
        js, ours = asyncio.run(play_both(chosen, Path(folder)), debug=False)
    for scenario in chosen:
        found = unexplained(scenario, js[scenario.id], ours[scenario.id])
        sys.stdout.write(f"{scenario.id}: {'same' if not found else ''}\n")
        for line in found:
            sys.stdout.write(f"  {line}\n")
        if len(chosen) == 1:
            sys.stdout.write(json.dumps([js[scenario.id], ours[scenario.id]], indent=1))


if __name__ == "__main__":
    main()

"""The cost of an idle client: memory, import time, idle CPU, and 1,000 clients together."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from .children import Broken, Child, Flood, start_client
from .peers import BARE, HERE, OURS, PYTHON, Client, environment
from .receiving import Runner, in_turn, started
from .rows import Row
from .work import Work

__all__ = ["measure_crowd", "measure_idle", "measure_imports", "measure_memory"]

MANY = 2_000
"""Channels of the memory measurement."""
CROWD = 1_000
IDLE_SECONDS = 3.0

TIMED = """
import time
started = time.process_time()
import {}
print(time.process_time() - started)
"""


async def measure_memory(clients: list[Client], flood: Flood) -> list[Row]:
    """Measures the resident memory of 2,000 joined channels with one handler each, less that of
    one."""
    row = Row("memory", f"memory per channel ({MANY:,} joined)", "KB")
    for client in clients:
        if not client.rejoins:
            continue
        try:
            sizes = [await _resident(client, channels, flood) for channels in (1, MANY)]
        except Broken as exc:
            row.broken[client.name] = str(exc)
        else:
            row.add(client.name, (sizes[1] - sizes[0]) / (MANY - 1) / 1024)
    return [row]


async def _resident(client: Client, channels: int, flood: Flood) -> float:
    work = Work("memory", "memory", channels=channels)
    child = await start_client(client, client.name, work, flood)
    try:
        return float((await child.ask("memory"))["rss"])
    finally:
        await child.end()


async def measure_idle(clients: list[Client], flood: Flood) -> list[Row]:
    """Measures the CPU of an idle client with one joined channel."""
    row = Row("idle", "CPU of an idle client", "% of a core")
    work = Work("idle", "idle")
    runners = [Runner(client.name, client, work) for client in clients if client.rejoins]
    async with started(runners, flood, [row]) as children:
        await asyncio.sleep(1)

        async def watch(runner: Runner, child: Child) -> None:
            found = await child.ask("idle", seconds=IDLE_SECONDS)
            row.add(runner.label, found["cpu"] / IDLE_SECONDS * 100)

        async with asyncio.TaskGroup() as group:
            for runner, child in children.items():
                group.create_task(watch(runner, child))
    return [row]


def measure_imports(rounds: int) -> list[Row]:
    """Measures the CPU time of the import statement in a fresh interpreter."""
    row = Row("import", "import, CPU", "ms")
    modules = {
        "aiohttp": (sys.executable, "aiohttp"),
        OURS: (sys.executable, "supabase_rt"),
        "PyPI realtime": (str(PYTHON), "realtime"),
    }
    # The first round writes the bytecode.
    for number in range(rounds + 1):
        for label, (python, module) in modules.items():
            done = subprocess.run(
                [python, "-c", TIMED.format(module)],
                cwd=HERE.parent,
                env=environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                row.broken[label] = done.stderr.strip().splitlines()[-1]
            elif number:
                row.add(label, float(done.stdout) * 1e3)
    return [row]


async def measure_crowd(clients: list[Client], flood: Flood, rounds: int) -> list[Row]:
    """Measures 1,000 clients in one process on one session."""
    rows = [
        Row("crowd-join", f"{CROWD:,} clients: to all SUBSCRIBED", "ms"),
        Row("crowd-memory", f"{CROWD:,} clients: memory per client", "KB"),
        Row("crowd-idle", f"{CROWD:,} clients: CPU while idle", "% of a core"),
    ]
    receiving = [Row("crowd", f"{CROWD:,} clients: broadcast, text, read")]
    work = Work("crowd", "crowd", read="x", count=100)
    crowd = [
        Client(one.name, (*one.command[:2], "benchmarks.clients.crowd"), one.needs)
        for one in clients
        if one.name in (BARE, OURS)
    ]
    runners = [Runner(client.name, client, work) for client in crowd]

    async def act(runner: Runner, child: Child) -> list[float]:
        await child.ask("round", count=work.count * CROWD)
        await flood.ask("flood", who=runner.label, work=work.spec(), count=work.count)
        return [(await child.hear())["cpu"] / (work.count * CROWD) * 1e6]

    for runner in runners:
        async with started([runner], flood, [*rows, *receiving]) as children:
            for child in children.values():
                opened = await child.ask("open", count=CROWD)
                idle = await child.ask("idle", seconds=IDLE_SECONDS)
                rows[0].add(runner.label, opened["seconds"] * 1e3)
                rows[1].add(runner.label, opened["rss"] / CROWD / 1024)
                rows[2].add(runner.label, idle["cpu"] / IDLE_SECONDS * 100)
            await in_turn(children, rounds, receiving, act)
    return rows + receiving

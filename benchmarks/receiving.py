"""Clients that receive. Each is a process, all live at once, and they take turns in every round."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable

from .children import Broken, Child, Flood, start_client
from .peers import OURS, Client
from .rows import Row
from .work import SYNC_TWIN, Work

__all__ = ["SYNC", "Runner", "in_turn", "measure_flat", "measure_receiving", "started"]

SYNC = f"{OURS}, plain handler"


@dataclasses.dataclass(frozen=True)
class Runner:
    """A client with its work, for one column of the table."""

    label: str
    client: Client
    work: Work


@contextlib.asynccontextmanager
async def started(
    runners: list[Runner], flood: Flood, rows: list[Row]
) -> AsyncIterator[dict[Runner, Child]]:
    """Starts and joins the processes of all runners; every row names those that fail."""
    children: dict[Runner, Child] = {}

    async def start(runner: Runner) -> None:
        try:
            children[runner] = await start_client(runner.client, runner.label, runner.work, flood)
        except Broken as exc:
            for row in rows:
                row.broken[runner.label] = str(exc)

    try:
        await asyncio.gather(*map(start, runners))
        # The order in which they became ready does not matter.
        children = {runner: children[runner] for runner in runners if runner in children}
        yield children
    finally:
        await asyncio.gather(*(child.end() for child in children.values()))


async def in_turn(
    children: dict[Runner, Child],
    rounds: int,
    rows: list[Row],
    act: Callable[[Runner, Child], Awaitable[list[float]]],
    *,
    warm_up: bool = True,
) -> None:
    """Calls ``act`` for every runner, round after round, and puts its numbers into ``rows``.

    The first round warms up caches and the just-in-time compiler of Node, and does not count.
    """
    for number in range(rounds + warm_up):
        for runner, child in children.items():
            if runner.label in rows[0].broken:
                continue
            try:
                found = await act(runner, child)
            except Broken as exc:
                for row in rows:
                    row.broken[runner.label] = str(exc)
                continue
            if number >= warm_up:
                for row, value in zip(rows, found, strict=True):
                    row.add(runner.label, value)


async def measure_receiving(
    work: Work, clients: list[Client], flood: Flood, rounds: int, share: float
) -> list[Row]:
    """Measures CPU and wall time per message of every client that can do the work."""
    rows = [Row(work.name, work.title), Row(f"wall:{work.name}", f"{work.title} (wall)")]
    runners = [Runner(client.name, client, work) for client in clients if client.takes(work)]
    if work.asynchronous:
        runners += [Runner(SYNC, client, SYNC_TWIN) for client in clients if client.name == OURS]

    async def act(runner: Runner, child: Child) -> list[float]:
        return await receive(runner, child, flood, share)

    async with started(runners, flood, rows) as children:
        await in_turn(children, rounds, rows, act)
    return rows


async def measure_flat(
    name: str,
    title: str,
    works: dict[str, Work],
    clients: list[Client],
    flood: Flood,
    rounds: int,
) -> list[Row]:
    """Measures one client with works that should cost the same for each call of a handler."""
    rows = []
    for client in clients:
        suffix = "" if client.name == OURS else f"-{client.name}"
        row = Row(name + suffix, f"{client.name}: broadcast, text, read, {title}")
        runners = [Runner(label, client, work) for label, work in works.items()]

        async def act(runner: Runner, child: Child) -> list[float]:
            cpu, _ = await receive(runner, child, flood, 1.0)
            return [cpu / runner.work.handlers]

        async with started(runners, flood, [row]) as children:
            await in_turn(children, rounds, [row], act)
        rows.append(row)
    return rows


async def receive(runner: Runner, child: Child, flood: Flood, share: float) -> list[float]:
    """Runs one round of one client; returns CPU and wall microseconds per message."""
    work = runner.work
    count = work.messages(share * runner.client.share)
    await child.ask("round", count=count * work.handlers)
    begun = await flood.ask("flood", who=runner.label, work=work.spec(), count=count)
    found = await child.hear()
    return [found["cpu"] / count * 1e6, (found["ended"] - begun["started"]) / count * 1e6]

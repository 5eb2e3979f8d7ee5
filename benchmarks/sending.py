"""Clients that send, and clients that lose their connection."""

from __future__ import annotations

import asyncio
import statistics

from .children import PACED, Child, Flood
from .peers import OURS, Client
from .receiving import Runner, in_turn, started
from .rows import Row
from .work import Work

__all__ = ["ACKED", "SENDING", "measure_acked", "measure_rejoin", "measure_sending"]

SENDING = Work("send", "sending without ack", count=50_000)
ACKED = Work("acked", "acked send", ack=True, count=1_000)
WARM_UP = 2_000
"""Number of warm-up broadcasts, which do not count."""
SETTLE = 2.5
"""Seconds between the joins and the cut."""


async def measure_sending(
    clients: list[Client], flood: Flood, rounds: int, share: float
) -> list[Row]:
    """Measures the CPU per broadcast, until the server has received all.

    Each round needs a fresh process. realtime-js keeps unanswered pushes for ten seconds, and
    ending them would cost time in a later round.
    """
    row = Row("send", "sending 50,000 broadcasts without ack, CPU")
    runners = [Runner(client.name, client, SENDING) for client in clients if client.sends]

    async def send(runner: Runner, child: Child, count: int) -> float:
        await flood.ask("count", who=runner.label, work=SENDING.spec(), count=count)
        return float((await child.ask("send", count=count))["cpu"])

    async def act(runner: Runner, child: Child) -> list[float]:
        count = SENDING.messages(share * runner.client.sending_share)
        await send(runner, child, WARM_UP)
        return [await send(runner, child, count) / count * 1e6]

    for _ in range(rounds):
        async with started(runners, flood, [row]) as children:
            await in_turn(children, 1, [row], act, warm_up=False)
    return [row]


async def measure_acked(
    clients: list[Client], flood: Flood, rounds: int, share: float
) -> list[Row]:
    """Measures the time from a call to its reply, one call after the other."""
    rows = [
        Row("acked-p50", "acked send, p50 of the wall time"),
        Row("acked-p99", "acked send, p99 of the wall time"),
        Row("acked", "acked send, CPU"),
    ]
    runners = [Runner(one.name, one, ACKED) for one in clients if one.acks]

    async def act(runner: Runner, child: Child) -> list[float]:
        count = max(200, round(ACKED.count * share))
        found = await child.ask("acked", count=count)
        parts = statistics.quantiles(found["latencies"], n=100)
        return [parts[49] * 1e6, parts[98] * 1e6, found["cpu"] / count * 1e6]

    async with started(runners, flood, rows) as children:
        await in_turn(children, rounds, rows, act)
    return rows


async def measure_rejoin(
    channels: int, clients: list[Client], flood: Flood, rounds: int, *, paced: bool
) -> list[Row]:
    """Measures the time from a cut to the last SUBSCRIBED, with each client's defaults.

    Our client joins without its pace of 50 joins a second, because the flood server has no limit;
    ``paced`` adds a row with it. Each cut needs a fresh process, because a client waits after a
    second loss in a row.
    """
    name = f"rejoin-{channels}"
    work = Work(name, name, channels=channels)
    rows = [
        Row(name, f"{channels} channels: from a cut to all SUBSCRIBED", "ms"),
        Row(f"{name}-cpu", f"{channels} channels: CPU of that", "ms"),
    ]
    runners = [Runner(one.name, one, work) for one in clients if one.rejoins]
    slow = [Runner(one.name + PACED, one, work) for one in clients if one.name == OURS]

    async def act(runner: Runner, child: Child) -> list[float]:
        await child.ask("rejoin", count=channels)
        begun = await flood.ask("cut", who=runner.label)
        found = await child.hear()
        return [(found["ended"] - begun["started"]) * 1e3, found["cpu"] * 1e3]

    for number in range(rounds):
        present = runners + slow if paced and not number else runners
        async with started(present, flood, rows) as children:
            # The first joins have used up the burst of the pace.
            await asyncio.sleep(SETTLE)
            await in_turn(children, 1, rows, act, warm_up=False)
    return rows

"""Clients that receive: one process each, all alive, one after the other in every round."""

from __future__ import annotations

import dataclasses
import statistics

from .children import Broken, Child, Flood, start_client
from .peers import Client
from .work import Work

__all__ = ["Row", "measure_receiving"]


@dataclasses.dataclass
class Row:
    """Seconds per message of each client in each round."""

    name: str
    title: str
    cpu: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    wall: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    broken: dict[str, str] = dataclasses.field(default_factory=dict)

    def cost(self, client: str) -> float | None:
        """Median CPU seconds per message."""
        found = self.cpu.get(client)
        return statistics.median(found) if found else None

    def pace(self, client: str) -> float | None:
        """Median messages per second of wall time."""
        found = self.wall.get(client)
        return 1 / statistics.median(found) if found else None

    def ratio(self, client: str, base: str) -> float | None:
        """How many times the cost of ``base``: the median over the rounds."""
        ours, theirs = self.cpu.get(client), self.cpu.get(base)
        if not ours or not theirs:
            return None
        return statistics.median(one / other for one, other in zip(ours, theirs, strict=False))

    def line(self) -> str:
        """For the impatient, while it runs."""
        costs = [f"{name} {statistics.median(found) * 1e6:.2f}" for name, found in self.cpu.items()]
        broken = [f"{name} BROKEN ({why})" for name, why in self.broken.items()]
        return f"{self.title:34s} CPU µs: {', '.join(costs + broken)}"


async def measure_receiving(
    work: Work, clients: list[Client], flood: Flood, rounds: int, share: float
) -> Row:
    """Let every client that can do it receive the work, ``rounds`` times in turn."""
    row = Row(work.name, work.title)
    children: dict[Client, Child] = {}
    try:
        for client in clients:
            if client.takes(work):
                try:
                    children[client] = await start_client(client, work, flood)
                except Broken as exc:
                    row.broken[client.name] = str(exc)
        # The first round warms up caches and the just-in-time compiler of Node.
        for number in range(rounds + 1):
            for client, child in children.items():
                if client.name in row.broken:
                    continue
                try:
                    found = await receive(child, client, work, flood, share)
                except Broken as exc:
                    row.broken[client.name] = str(exc)
                    continue
                if number:
                    row.cpu.setdefault(client.name, []).append(found[0])
                    row.wall.setdefault(client.name, []).append(found[1])
    finally:
        for child in children.values():
            await child.end()
    return row


async def receive(
    child: Child, client: Client, work: Work, flood: Flood, share: float
) -> tuple[float, float]:
    """One round of one client: CPU and wall seconds per message."""
    count = work.messages(share * client.share)
    await child.ask("round", count=count)
    started = (await flood.ask("flood", who=client.name, work=work.spec(), count=count))["started"]
    found = await child.hear()
    return found["cpu"] / count, (found["ended"] - started) / count

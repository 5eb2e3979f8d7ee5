"""The same faults for this client and the peers, through one proxy: ``make faults``.

    python -m benchmarks.faults [--rounds 3] [--write docs/reliability.md]

A server publishes ten numbered events a second; each client prints those that its handler got.
The result is the longest silence after the fault: from one handled event to the next. All
runs of a round go on at the same time, each with a server, a proxy and a process of its own; the
rounds differ in the moment of the fault, because heartbeats have a phase.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable

from supabase_rt.server import LocalRealtime
from tests.robustness.faults.proxy import DOWN, FaultProxy
from tests.robustness.faults.wsframes import TEXT
from tests.support.waiting import until

from .peers import HERE, OURS, PYTHON, environment, install

__all__ = ["main"]

HEARTBEAT = 15
PACE = 0.1
OUTAGE = 30.0
LIMIT = 120.0
"""Seconds after the end of the fault after which the run gives up."""
CALM = 35.0
"""Seconds of events after which a client has recovered; a failing heartbeat would show earlier."""
PHASES = (2.0, 7.0, 12.0)
"""Seconds from the first events to the fault, one for each round."""


@dataclasses.dataclass
class Stage:
    """The server, the proxy and the client of one run."""

    server: LocalRealtime
    proxy: FaultProxy


async def reset(stage: Stage) -> None:
    stage.proxy.reset()


async def half_open(stage: Stage) -> None:
    stage.proxy.stall(new=False)


async def invalid_frame(stage: Stage) -> None:
    stage.proxy.inject(DOWN, TEXT, b"this is no JSON")


async def raising_handler(stage: Stage) -> None:
    stage.server.broadcast("room", "tick", {"poison": True})


async def outage(stage: Stage) -> None:
    await stage.proxy.vanish()
    await asyncio.sleep(OUTAGE)
    await stage.proxy.heal()


async def unasked_close(stage: Stage) -> None:
    stage.server.faults.phx_close("room")


FAULTS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "TCP reset": reset,
    "half-open link": half_open,
    "one invalid text frame": invalid_frame,
    "one raising handler": raising_handler,
    "30 s without a server": outage,
    "an unasked `phx_close`": unasked_close,
}

CLIENTS: dict[str, tuple[str, ...]] = {
    OURS: (sys.executable, "-m", "benchmarks.clients.faults_ours"),
    "realtime-js": ("node", str(HERE / "clients" / "js" / "faults.mjs")),
    "PyPI realtime": (str(PYTHON), "-m", "benchmarks.clients.faults_realtime"),
}


@dataclasses.dataclass
class Run:
    """The result of one client under one fault. Moments are seconds since the fault."""

    client: str
    fault: str
    silence: float = 0.0
    noticed: float | None = None
    """Moment at which its status callback first reported the loss."""
    is_back: bool = False
    lost: int = 0
    """Events published after the fault and before the recovery that were never handled."""
    uncaught: int = 0
    """Exceptions that reached the top of the process and would have ended it."""
    exit_code: int | None = None


class Watch:
    """The lines that a client prints, with their times."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.numbers: list[tuple[float, int]] = []
        self.statuses: list[tuple[float, str]] = []
        self.uncaught = 0

    async def read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if line.startswith(b"{"):
                self.take(json.loads(line), time.monotonic())

    def take(self, found: dict[str, object], now: float) -> None:
        if "status" in found:
            self.statuses.append((now, str(found["status"])))
        elif "uncaught" in found:
            self.uncaught += 1
        elif isinstance(number := found.get("n"), int):
            self.numbers.append((now, number))


async def play(client: str, fault: str, phase: float) -> Run:
    """Runs one fault for one client."""
    async with LocalRealtime() as server, FaultProxy(server.port) as proxy:
        spec = {
            "url": f"ws://127.0.0.1:{proxy.port}/realtime/v1",
            "key": server.anon_key,
            "heartbeat": HEARTBEAT,
        }
        process = await asyncio.create_subprocess_exec(
            *CLIENTS[client],
            json.dumps(spec),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=HERE.parent,
            env=environment(),
        )
        watch = Watch(process)
        published: list[float] = []
        loop = asyncio.get_running_loop()
        helpers = [
            loop.create_task(watch.read()),
            loop.create_task(publish(server, published)),
        ]
        try:
            return await judge(client, fault, phase, Stage(server, proxy), watch, published)
        finally:
            for helper in helpers:
                helper.cancel()
            if process.returncode is None:
                process.kill()
            await process.wait()


async def publish(server: LocalRealtime, published: list[float]) -> None:
    """Publishes numbered events; event n was published at ``published[n]``."""
    while True:
        published.append(time.monotonic())
        server.broadcast("room", "tick", {"n": len(published) - 1})
        await asyncio.sleep(PACE)


async def judge(
    client: str, fault: str, phase: float, stage: Stage, watch: Watch, published: list[float]
) -> Run:
    """Causes the fault and waits until the client has recovered, or the time is over."""
    await until(lambda: watch.numbers, timeout=60)
    await asyncio.sleep(phase)
    began = time.monotonic()
    await FAULTS[fault](stage)
    ended = time.monotonic()
    found = Run(client, fault)
    while time.monotonic() < ended + LIMIT:
        await asyncio.sleep(PACE)
        heard = [at for at, number in watch.numbers if published[number] > ended]
        if heard and heard[-1] - heard[0] >= CALM:
            found.is_back = True
            break
    silence(found, watch, published, began)
    return found


def silence(found: Run, watch: Watch, published: list[float], began: float) -> None:
    """Fills in the result from the client's output."""
    before = [at for at, _ in watch.numbers if at < began]
    after = [at for at, _ in watch.numbers if at >= began]
    moments = [before[-1] if before else began, *after]
    if not found.is_back:
        moments.append(time.monotonic())
    found.silence = max(two - one for one, two in itertools.pairwise(moments))
    losses = [at for at, status in watch.statuses if at >= began and status != "SUBSCRIBED"]
    found.noticed = losses[0] - began if losses else None
    got = {number for _, number in watch.numbers}
    last = max(got)
    found.lost = sum(
        number not in got for number, at in enumerate(published) if at > began and number < last
    )
    found.uncaught = watch.uncaught
    found.exit_code = watch.process.returncode


# -- the table ---------------------------------------------------------------------------


def spread(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{high:.1f} s" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f} s"


def cell(runs: list[Run]) -> str:
    """Renders all rounds of one client under one fault."""
    ended = [run.exit_code for run in runs if run.exit_code is not None]
    if ended:
        return f"the process ends (exit code {ended[0]})"
    noticed = [run.noticed for run in runs if run.noticed is not None]
    words = [f"told after {spread(noticed)}" if noticed else "told nothing"]
    if any(run.uncaught for run in runs):
        words.append("an exception that ends a process that does not catch it")
    gone = sum(not run.is_back for run in runs)
    if gone:
        often = "never back" if gone == len(runs) else f"{gone} of {len(runs)} times never back"
        return ", ".join([f"{often} (waited {LIMIT:.0f} s)", *words])
    lost = max(run.lost for run in runs)
    words.append(f"{lost} events lost" if lost else "nothing lost")
    return ", ".join([f"{spread([run.silence for run in runs])} silent", *words])


def table(runs: list[Run], clients: list[str]) -> str:
    """Returns a Markdown table with a row for each fault."""
    lines = [f"| Fault | {' | '.join(clients)} |", "|" + "---|" * (len(clients) + 1)]
    for fault in FAULTS:
        cells = [
            cell([run for run in runs if (run.client, run.fault) == (client, fault)])
            for client in clients
        ]
        lines.append(f"| {fault[0].upper()}{fault[1:]} | {' | '.join(cells)} |")
    return "\n".join(lines)


async def play_all(clients: list[str], phases: tuple[float, ...]) -> list[Run]:
    """Runs all rounds at once, because they mostly wait."""
    return list(
        await asyncio.gather(
            *(
                play(client, fault, phase)
                for phase in phases
                for client in clients
                for fault in FAULTS
            )
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults")
    parser.add_argument("--rounds", type=int, default=len(PHASES), choices=range(1, 4))
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    peers = install()
    needs = {"realtime-js": "@supabase/realtime-js", "PyPI realtime": "realtime"}
    clients = [name for name in CLIENTS if needs.get(name, OURS) in peers.versions]
    for name, reason in peers.missing.items():
        print(f"without {name}: {reason}")
    runs = asyncio.run(play_all(clients, PHASES[: chosen.rounds]))
    known = (*needs.values(), OURS, "node")
    versions = {name: version for name, version in peers.versions.items() if name in known}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(table(runs, clients))


if __name__ == "__main__":
    main()

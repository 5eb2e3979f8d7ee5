"""``make bench``: measures every client with the same work, and writes tables and a plot.

``--quick`` leaves out the longest measurements. ``--only NAME`` selects one (repeatable, a prefix
is enough). ``--docs`` writes the run into docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable

from .children import Flood, start_flood
from .footprint import measure_crowd, measure_idle, measure_imports, measure_memory
from .peers import BARE, HERE, OURS, Peers, install
from .receiving import measure_flat, measure_receiving
from .report import machine, save
from .rows import Row, Run
from .sending import measure_acked, measure_rejoin, measure_sending
from .work import CHANNELS_FLAT, HANDLERS_FLAT, RECEIVING, Work

ROUNDS, QUICK_ROUNDS = 7, 2
FEW_ROUNDS, QUICK_FEW_ROUNDS = 2, 1
"""Number of rounds for measurements that take long and vary little."""
IMPORT_ROUNDS = SEND_ROUNDS = 4
QUICK_SHARE = 0.15
NOT_QUICK = ("crowd", "flat-channels", "memory")

PERFORMANCE = HERE.parent / "docs" / "performance.md"

Step = Callable[[], Awaitable[list[Row]]]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds of fewer messages")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this work")
    parser.add_argument("--docs", action="store_true", help="write docs/performance.md too")
    return parser.parse_args()


def plan(peers: Peers, flood: Flood, *, quick: bool) -> dict[str, tuple[str, Step]]:
    """Returns all measurements: the name with its section and its function."""
    clients = peers.clients()
    rounds, few = (QUICK_ROUNDS, QUICK_FEW_ROUNDS) if quick else (ROUNDS, FEW_ROUNDS)
    sends = min(rounds, SEND_ROUNDS)
    share = QUICK_SHARE if quick else 1.0

    def receiving(work: Work) -> Step:
        return lambda: measure_receiving(work, clients, flood, rounds, share)

    def flat(what: str, works: dict[str, Work], *names: str) -> Step:
        title = f"by number of {what}"
        chosen = [one for one in clients if one.name in names]
        return lambda: measure_flat(f"flat-{what}", title, works, chosen, flood, rounds)

    def rejoin(channels: int) -> Awaitable[list[Row]]:
        return measure_rejoin(channels, clients, flood, few, paced=not quick)

    async def imports() -> list[Row]:
        return await asyncio.to_thread(measure_imports, min(rounds, IMPORT_ROUNDS))

    found = {work.name: ("Receiving: CPU per message", receiving(work)) for work in RECEIVING}
    return found | {
        "send": ("Sending", lambda: measure_sending(clients, flood, sends, share)),
        "acked": ("Sending", lambda: measure_acked(clients, flood, few, share)),
        "rejoin-100": ("Recovery", lambda: rejoin(100)),
        "rejoin-500": ("Recovery", lambda: rejoin(500)),
        "flat-channels": ("Channels: CPU per message", flat("channels", CHANNELS_FLAT, OURS, BARE)),
        "flat-handlers": ("Handlers: CPU per call", flat("handlers", HANDLERS_FLAT, OURS)),
        "memory": ("Footprint", lambda: measure_memory(clients, flood)),
        "idle": ("Footprint", lambda: measure_idle(clients, flood)),
        "import": ("Footprint", imports),
        "crowd": ("Crowd", lambda: measure_crowd(clients, flood, few)),
    }


def wanted(name: str, arguments: argparse.Namespace) -> bool:
    """Returns True if the name was selected, or if ``--quick`` does not leave it out."""
    if arguments.only:
        return any(name.startswith(one) for one in arguments.only)
    return not (arguments.quick and name in NOT_QUICK)


async def measure(arguments: argparse.Namespace) -> Run:
    peers = install()
    for name, reason in peers.missing.items():
        print(f"missing: {name}: {reason}")
    begun = time.monotonic()
    rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
    run = Run(machine(), peers.versions, peers.missing, time.strftime("%Y-%m-%d %H:%M"), rounds)
    async with start_flood() as flood:
        for name, (section, step) in plan(peers, flood, quick=arguments.quick).items():
            if not wanted(name, arguments):
                continue
            since = time.monotonic()
            for row in await step():
                wall = row.name.startswith("wall:")
                run.add("Receiving: wall time per message" if wall else section, [row])
            run.took[name] = time.monotonic() - since
    run.seconds = time.monotonic() - begun
    return run


def main() -> None:
    arguments = parse()
    run = asyncio.run(measure(arguments))
    save(run, HERE / "results", PERFORMANCE if arguments.docs else None)


if __name__ == "__main__":
    main()

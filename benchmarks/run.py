"""``make bench``: every client on the same work in turn; a table, its ratios and a plot.

``--quick`` for a look, ``--only NAME`` (may be repeated, a prefix is enough) for one work,
``--docs`` to write the run into docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from .children import start_flood
from .peers import HERE, install
from .receiving import measure_receiving
from .report import Run, machine, save
from .work import RECEIVING

ROUNDS = 9
QUICK_ROUNDS = 3
QUICK_SHARE = 0.25


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds of fewer messages")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this work")
    parser.add_argument("--docs", action="store_true", help="write docs/performance.md too")
    parser.add_argument("--list", action="store_true", help="show the names for --only")
    return parser.parse_args()


async def measure(arguments: argparse.Namespace) -> Run:
    peers = install()
    for name, reason in peers.missing.items():
        print(f"missing: {name}: {reason}")
    started = time.monotonic()
    run = Run(machine(), peers.versions, peers.missing)
    rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
    share = QUICK_SHARE if arguments.quick else 1.0

    def wanted(name: str) -> bool:
        return not arguments.only or any(name.startswith(one) for one in arguments.only)

    async with start_flood() as flood:
        for work in RECEIVING:
            if wanted(work.name):
                row = await measure_receiving(work, peers.clients(), flood, rounds, share)
                run.receiving.append(row)
                print(row.line(), flush=True)
    run.seconds = time.monotonic() - started
    return run


def main() -> None:
    arguments = parse()
    if arguments.list:
        print("\n".join(work.name for work in RECEIVING))
        return
    run = asyncio.run(measure(arguments))
    save(run, HERE / "results")


if __name__ == "__main__":
    main()

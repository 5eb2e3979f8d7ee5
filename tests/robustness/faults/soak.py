"""``make soak``: a thousand random fault schedules, a day, and minutes of real load.

    python -m tests.robustness.faults.soak [--schedules 1000] [--first 0] [--hours 24]
    [--minutes 10]
        [--rate 2000]

The schedules run in virtual time, one after the other. A failure prints its seed and schedule;
``--first SEED --schedules 1 --hours 0 --minutes 0`` plays it again. The day is virtual, too; the
load runs in real time.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import time

from .hours import live_through
from .laboratory import Report, play
from .load import Load, run_load
from .test_cancelling import WORKS, sweep
from .virtual import run_virtual

__all__ = ["main"]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def play_many(first: int, count: int) -> int:
    """Play the schedules of this many seeds; returns the number of failures."""
    reports: list[Report] = []
    failed: list[int] = []
    started = time.monotonic()
    for seed in range(first, first + count):
        try:
            reports.append(run_virtual(play(seed), debug=False))
        except AssertionError as exc:
            failed.append(seed)
            say(f"FAILED {exc}")
        if (seed + 1 - first) % 100 == 0:
            say(f"{seed + 1 - first} schedules, {len(failed)} failed")
    taken = time.monotonic() - started
    if reports:
        say(summary(reports, taken))
    if failed:
        say(f"failed seeds: {failed}")
    return len(failed)


def cancel_everything() -> int:
    """Cancel every public awaitable at every turn of the loop; returns the number of failures."""
    count = failed = 0
    for work in WORKS:
        try:
            count += run_virtual(sweep(work), debug=False)
        except AssertionError as exc:
            failed += 1
            say(f"FAILED {work.__name__}, cancelled: {exc}")
    say(f"{count} cancellations of {len(WORKS)} awaitables, {failed} of them failed")
    return failed


def summary(reports: list[Report], taken: float) -> str:
    """Returns the figures of all successful runs."""
    waited = sorted(report.recovery for report in reports)
    last = max(range(len(reports)), key=lambda at: reports[at].recovery)
    return (
        f"{len(reports)} schedules right, in {taken:.0f} s: "
        f"{sum(report.hours for report in reports):.0f} hours of virtual time, "
        f"{sum(report.events for report in reports)} events, "
        f"{sum(report.links for report in reports)} links, "
        f"{sum(report.losses for report in reports)} losses told, "
        f"{sum(report.decode_errors for report in reports)} unreadable frames\n"
        f"from the end of the faults until all is joined: median {statistics.median(waited):.2f} s,"
        f" 95 % within {waited[int(len(waited) * 0.95)]:.2f} s,"
        f" all within {waited[-1]:.2f} s (seed {reports[last].seed})"
    )


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.faults.soak")
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=int, default=2000, help="events a second")
    chosen = parser.parse_args()
    # The client logs a hundred justified complaints in every schedule.
    logging.disable(logging.CRITICAL)
    failed = play_many(chosen.first, chosen.schedules) if chosen.schedules else 0
    if chosen.schedules > 1:
        failed += cancel_everything()
    if chosen.hours:
        say(run_virtual(live_through(chosen.hours), debug=False))
    if chosen.minutes:
        found = asyncio.run(run_load(Load(chosen.rate, chosen.minutes * 60), say))
        failed += bool(found)
        for problem in found:
            say(f"FAILED {problem}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

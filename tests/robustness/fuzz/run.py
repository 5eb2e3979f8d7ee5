"""``make fuzz``: every target under atheris, each in a process of its own.

``python -m tests.robustness.fuzz.run [--executions N] [--seed S] [TARGET ...]``. Findings are
written to ``.fuzz/`` as files that can be given to ``TARGETS`` again. Inputs that reach new code
are kept in ``.fuzz/corpus`` for the next run.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .seeds import seeds
from .targets import TARGETS

__all__ = ["main"]

HERE = Path(__file__).parent
OUT = Path(".fuzz")
MACHINES = ("presences", "session", "server")
FEWER = 10
"""The input of a machine is many frames, so it gets a tenth of the executions."""
SECONDS = 10
"""The limit for one input; a target may use a gigabyte of memory."""
LONGEST = 768


def _start(target: str, folder: Path) -> None:
    for number, data in enumerate(seeds(target)):
        (folder / f"seed{number}").write_bytes(data)


def fuzz(target: str, executions: int, seed: int) -> tuple[int, float, str]:
    """Run one target; returns the executions, their rate, and the failure."""
    grown = OUT / "corpus" / target
    grown.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as started:
        _start(target, Path(started))
        kept = HERE / "corpus" / target
        kept.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        run = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "tests.robustness.fuzz.one",
                    target,
                    str(grown),
                    str(kept),
                    started,
                ),
                *(f"-runs={executions}", f"-seed={seed}", f"-max_len={LONGEST}"),
                *(f"-timeout={SECONDS}", "-rss_limit_mb=1024", "-print_final_stats=1"),
                *(f"-dict={HERE / 'words.dict'}", f"-artifact_prefix={OUT}/{target}-"),
            ],
            capture_output=True,
            check=False,
        )
        seconds = time.monotonic() - began
    said = run.stderr.decode(errors="replace") + run.stdout.decode(errors="replace")
    match = re.search(r"number_of_executed_units: (\d+)", said)
    done = int(match[1]) if match else 0
    return done, done / seconds, "" if run.returncode == 0 else said[-3000:]


def main() -> None:
    """Fuzz the named targets, or all of them, and print the result."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--executions", type=int, default=700_000, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("targets", nargs="*", default=[], metavar="TARGET", help=", ".join(TARGETS))
    asked = parser.parse_args()
    unknown = set(asked.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    OUT.mkdir(exist_ok=True)
    total, broken = 0, []
    for target in asked.targets or TARGETS:
        runs = asked.executions // (FEWER if target in MACHINES else 1)
        done, speed, problem = fuzz(target, runs, asked.seed)
        total += done
        print(f"{target:18} {done:10,} executions  {speed:8,.0f}/s", flush=True)
        if problem:
            broken.append(target)
            print(problem, flush=True)
    print(f"{total:,} executions, seed {asked.seed}; broken: {', '.join(broken) or 'none'}")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()

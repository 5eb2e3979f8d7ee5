"""The run as Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from pathlib import Path

from .peers import OURS
from .receiving import Row

__all__ = ["Run", "machine", "save"]


@dataclasses.dataclass
class Run:
    """All that one run found."""

    machine: str
    versions: dict[str, str]
    missing: dict[str, str]
    seconds: float = 0.0
    receiving: list[Row] = dataclasses.field(default_factory=list)
    at: str = dataclasses.field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M"))


def machine() -> str:
    """Processor, system, Python."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return (
        f"{name}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def table(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is the head."""
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])


def micros(value: float | None) -> str:
    return "–" if value is None else f"{value * 1e6:.2f}"


def times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}×"


def receiving_table(run: Run) -> str:
    """CPU per message of everybody."""
    names = list(dict.fromkeys(name for row in run.receiving for name in row.cpu))
    rows = [["CPU µs per message", *names]]
    rows += [[row.title, *(micros(row.cost(name)) for name in names)] for row in run.receiving]
    return table(rows)


def ratio_table(run: Run) -> str:
    """Ours beside everybody else."""
    names = list(dict.fromkeys(name for row in run.receiving for name in row.cpu if name != OURS))
    rows = [["ours : theirs", *names]]
    rows += [
        [row.title, *(times(row.ratio(OURS, name)) for name in names)] for row in run.receiving
    ]
    return table(rows)


def markdown(run: Run) -> str:
    """The whole report."""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    parts = [
        f"Run of {run.at} in {run.seconds:.0f} s on {run.machine}.\n\nVersions: {versions}.",
        *(f"**Missing:** {name}: {reason}" for name, reason in run.missing.items()),
    ]
    if run.receiving:
        parts += [receiving_table(run), ratio_table(run)]
    return "\n\n".join(parts) + "\n"


def save(run: Run, folder: Path) -> None:
    """Print the report and keep it."""
    folder.mkdir(exist_ok=True)
    text = markdown(run)
    print("\n" + text)
    (folder / "latest.md").write_text(text)
    (folder / "latest.json").write_text(json.dumps(dataclasses.asdict(run), indent=1) + "\n")

"""The run as Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
from pathlib import Path

from .peers import OURS
from .plot import draw
from .rows import Row, Run, number
from .targets import TARGETS

__all__ = ["machine", "markdown", "save"]

WITH_RATIOS = ("Receiving: CPU per message", "Sending")
"""Sections where the ratios get a table of their own."""
MARKS = ("<!-- run -->", "<!-- end of run -->")


def machine() -> str:
    """Returns the processor, the system and the version of Python."""
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
    """Returns a Markdown table; the first row is the head."""
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])


def columns(rows: list[Row]) -> list[str]:
    """Returns the clients of the rows, in the order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.values))


def times(value: float | None) -> str:
    """Returns a ratio as text."""
    return "–" if value is None else f"{value:.2f}×"


def section(title: str, rows: list[Row]) -> str:
    """Returns the table of medians and, for some sections, the table of ratios."""
    names = columns(rows)
    medians = [["median", "unit", *names]]
    medians += [
        [row.title, row.unit, *(number(row.median(name)) for name in names)] for row in rows
    ]
    parts = [f"### {title}", table(medians)]
    if title in WITH_RATIOS:
        others = [name for name in names if name != OURS]
        ratios = [[f"{OURS} : other", *others]]
        ratios += [[row.title, *(times(row.ratio(OURS, name)) for name in others)] for row in rows]
        parts.append(table(ratios))
    parts += [
        f"**Broken:** {name} at {row.title}: `{why}`"
        for row in rows
        for name, why in row.broken.items()
    ]
    return "\n\n".join(parts)


def target_table(run: Run) -> str:
    """Returns the table of targets with the measured values."""
    lines = [cells for target in TARGETS if (cells := target.cells(run)) is not None]
    met = sum(cells[-1] == "met" for cells in lines)
    head = ["target", "at most (or at least)", "measured", ""]
    return f"### Targets: {met} of {len(lines)} met\n\n" + table([head, *lines])


def markdown(run: Run) -> str:
    """Returns the whole report."""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    parts = [
        f"Run of {run.at}, {run.rounds} rounds, {run.seconds:.0f} s, on {run.machine}.",
        f"Versions: {versions}.",
        *(f"**Missing:** {name}: {reason}" for name, reason in run.missing.items()),
        target_table(run),
        *(section(title, rows) for title, rows in run.sections.items()),
    ]
    return "\n\n".join(parts) + "\n"


def save(run: Run, folder: Path, page: Path | None) -> None:
    """Prints and saves the report; ``page`` is the documentation that shows the last run."""
    folder.mkdir(exist_ok=True)
    text, plot = markdown(run), draw(run)
    print("\n" + text)
    (folder / "latest.md").write_text(text)
    (folder / "latest.json").write_text(json.dumps(dataclasses.asdict(run), indent=1) + "\n")
    (folder / "latest.svg").write_text(plot)
    print(f"saved: {folder}/latest.md, latest.json, latest.svg")
    if page is not None:
        page.with_suffix(".svg").write_text(plot)
        before, after = MARKS
        pattern = re.compile(f"{before}.*{after}", re.DOTALL)
        page.write_text(
            pattern.sub(lambda _: f"{before}\n{text}{after}", page.read_text(), count=1)
        )
        print(f"saved: {page} and its plot")

"""Writes docs/conformance.md: ``make conformance``, or ``python -m
tests.contract.conformance.table``."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from .capabilities import CAPABILITIES, declared
from .marked import marked
from .rows import Row, numbers, rows

__all__ = ["PATH", "render", "status"]

PATH = Path(__file__).parents[3] / "docs" / "conformance.md"

HEAD = """\
# Conformance

<!-- Written by `make conformance` from the markers of the tests. Do not edit. -->

This page lists what the official SDKs can do, and what the test suites of supabase-js and
phoenix.js assert. Beside each row is the test that shows it here. If the suite passes, the table is
true: a skipped test of this table fails the suite. Where this client differs on purpose, the row
gives the reason; [differences.md](differences.md) has the whole list. `tests/contract/differential`
is another proof: it plays the same scenarios with both clients against one server.

`same`: as in supabase-js. `differs`: the test shows what happens here. `none`: there is nothing
to port.
"""


def status(row: Row, tests: list[str]) -> str:
    """Returns the entry of a row in the table; a row with neither test nor reason is a hole."""
    if row.reason:
        return "differs" if tests else "none"
    return "same" if tests else "MISSING"


def render() -> str:
    """The whole page."""
    found = marked()
    return "\n".join([HEAD, *_capabilities(found), *_summary(found), *_behaviours(found)])


def _capabilities(found: dict[str, list[str]]) -> list[str]:
    good = [id for id in CAPABILITIES if _implemented(id) and found.get(id)]
    lines = [
        f"## Capabilities: {len(good)}/{len(CAPABILITIES)}\n",
        "Declared in [sdk-compliance.yaml](sdk-compliance.yaml), by the ids of the matrix.\n",
        "| id | symbols | tests |",
        "|---|---|---|",
    ]
    for id in CAPABILITIES:
        symbols = ", ".join(f"`{symbol}`" for symbol in declared()[id]["symbols"])
        lines.append(f"| {id} | {symbols} | {_tests(found.get(id, []))} |")
    return [*lines, ""]


def _implemented(id: str) -> bool:
    return bool(declared().get(id, {}).get("status") == "implemented")


def _summary(found: dict[str, list[str]]) -> list[str]:
    """Counts the single ids by status."""
    counts = dict.fromkeys(("same", "differs", "none", "MISSING"), 0)
    for row in rows():
        counts[status(row, found.get(row.id, []))] += len(numbers(row.id))
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return [f"## Behaviours: {sum(counts.values())}\n", f"{told}.\n"]


def _behaviours(found: dict[str, list[str]]) -> list[str]:
    lines = []
    for heading, group in groupby(rows(), key=lambda row: row.heading):
        lines += [f"### {heading}\n", "| id | behaviour | status | test |", "|---|---|---|---|"]
        for row in group:
            tests = found.get(row.id, [])
            text = f"{row.behaviour}. *Here: {row.reason}*" if row.reason else row.behaviour
            lines.append(
                f"| {row.id} | {_escaped(text)} | {status(row, tests)} | {_tests(tests)} |"
            )
        lines.append("")
    return lines


def _tests(tests: list[str]) -> str:
    return "<br>".join(f"`{test.removeprefix('tests/')}`" for test in tests)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")

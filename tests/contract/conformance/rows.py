"""The rows of the checklist, read from ``rows/*.txt``.

A row is one behaviour that the test suites of supabase-js and phoenix.js assert, in our words:

    id or ids | P, A or N | behaviour | why Python differs

P: ported unchanged; A: adapted, because the assertion used an idiom of JavaScript; N: makes no
sense outside of JavaScript. Heading lines begin with ``#``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["SECTIONS", "Row", "numbers", "rows"]

HERE = Path(__file__).parent / "rows"
SECTIONS = ("realtime_js", "supabase_js", "phoenix", "additions")


@dataclass(frozen=True)
class Row:
    """One line. ``id`` may be a range such as ``FB3-FB13``, which one marker then names."""

    id: str
    mark: str
    behaviour: str
    reason: str
    heading: str


@cache
def rows() -> tuple[Row, ...]:
    """All rows, in their order."""
    found = []
    for section in SECTIONS:
        heading = ""
        for line in (HERE / f"{section}.txt").read_text(encoding="utf-8").splitlines():
            if line.startswith("# "):
                heading = line.removeprefix("# ")
                continue
            id, mark, behaviour, *reason = line.split(" | ")
            found.append(Row(id, mark, behaviour, " | ".join(reason), heading))
    return tuple(found)


def numbers(id: str) -> list[tuple[str, int]]:
    """The single ids behind one: ``FB3-FB13`` are eleven."""
    prefix, first, last = re.fullmatch(r"([A-Z]+)(\d+)(?:-\1(\d+))?", id).groups()  # type: ignore[union-attr]
    return [(prefix, number) for number in range(int(first), int(last or first) + 1)]

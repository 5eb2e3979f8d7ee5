"""The measurements: rows of numbers, with one list of rounds for each client."""

from __future__ import annotations

import dataclasses
import math
import statistics

__all__ = ["Row", "Run"]


@dataclasses.dataclass
class Row:
    """One measured quantity, in ``unit``, of each client in each round."""

    name: str
    title: str
    unit: str = "µs"
    values: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    broken: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, client: str, value: float) -> None:
        """Adds the number of one round."""
        self.values.setdefault(client, []).append(value)

    def median(self, client: str) -> float | None:
        """Returns the median over the rounds."""
        found = self.values.get(client)
        return statistics.median(found) if found else None

    def ratio(self, client: str, base: str) -> float | None:
        """Returns the median of the ratios to ``base`` in each round.

        Measurements of the same round are a moment apart. So a machine that is busy for a while
        does not distort the ratio.
        """
        ours, theirs = self.values.get(client), self.values.get(base)
        if not ours or not theirs:
            return None
        return statistics.median(one / other for one, other in zip(ours, theirs, strict=False))

    def line(self) -> str:
        """Returns a short line to print while the run goes on."""
        found = [f"{name} {number(self.median(name))}" for name in self.values]
        broken = [f"{name} BROKEN ({why})" for name, why in self.broken.items()]
        return f"{self.title}, {self.unit}: {', '.join(found + broken)}"


@dataclasses.dataclass
class Run:
    """The results of one run; ``sections`` maps a heading to its rows, ``took`` is in seconds."""

    machine: str
    versions: dict[str, str]
    missing: dict[str, str]
    at: str
    rounds: int
    seconds: float = 0.0
    took: dict[str, float] = dataclasses.field(default_factory=dict)
    sections: dict[str, list[Row]] = dataclasses.field(default_factory=dict)

    def add(self, section: str, rows: list[Row]) -> None:
        """Adds rows and prints them."""
        self.sections.setdefault(section, []).extend(rows)
        for row in rows:
            print(row.line(), flush=True)

    def row(self, name: str) -> Row | None:
        """Returns the row of that name, if it was measured."""
        for rows in self.sections.values():
            for row in rows:
                if row.name == name:
                    return row
        return None


def number(value: float | None) -> str:
    """Returns a number with at most three significant digits."""
    if value is None:
        return "–"
    if value == 0 or not math.isfinite(value):
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 2)}f}"

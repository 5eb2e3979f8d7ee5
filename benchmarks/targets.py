"""The performance targets, and the distance of a run from them."""

from __future__ import annotations

import dataclasses

from .peers import BARE, OURS
from .receiving import SYNC
from .rows import Row, Run

__all__ = ["TARGETS", "Target"]

NODE, PYPI = "realtime-js", "PyPI realtime"


@dataclasses.dataclass(frozen=True)
class Target:
    """Our value may be ``limit`` times ``base``; without a base, ``limit`` units.

    With ``base`` ``"first"`` the highest column of the row is compared with the first one.
    """

    row: str
    base: str | None
    limit: float

    def measured(self, run: Run) -> float | None:
        """Returns the number to compare with the limit."""
        row = run.row(self.row)
        if row is None:
            return None
        if self.base is None:
            return row.median(OURS)
        return _growth(row) if self.base == "first" else row.ratio(OURS, self.base)

    def cells(self, run: Run) -> list[str] | None:
        """Returns a line of the table, or nothing if it was not measured."""
        row, found = run.row(self.row), self.measured(run)
        if row is None or found is None:
            return None
        unit = "×" if self.base is not None else f" {row.unit}"
        verdict = (
            "met" if found <= self.limit else f"missed by {100 * (found / self.limit - 1):.0f} %"
        )
        against = {None: "", "first": "dearest : first"}.get(self.base, f"of {self.base}")
        limit, shown = f"{self.limit:.3g}{unit}", f"{found:.2f}{unit}"
        if self.base in (NODE, PYPI) and self.limit < 1:
            limit, shown = f"{1 / self.limit:.3g}× faster", f"{1 / found:.2f}× faster"
        return [f"{row.title} {against}".strip(), limit, shown, verdict]


def _growth(row: Row) -> float | None:
    """Compares within each round, like all ratios."""
    first = next(iter(row.values), None)
    ratios = [row.ratio(name, first) for name in row.values] if first is not None else []
    return max((ratio for ratio in ratios if ratio is not None), default=None)


UNREAD, READ = ("binary", "text", "channels"), ("binary-read", "text-read", "channels-read")
AMONG_PYPI = ("text", "text-read", "postgres", "postgres-read", "postgres-type")

TARGETS = (
    *(Target(row, BARE, 1.4) for row in UNREAD),
    *(Target(row, BARE, 2.0) for row in READ),
    Target("binary", NODE, 0.5),
    Target("binary-read", NODE, 0.5),
    Target("text", NODE, 1.0),
    Target("postgres", BARE, 1.2),
    Target("postgres-read", BARE, 1.8),
    Target("postgres-read", NODE, 0.5),
    Target("presence", NODE, 1 / 1.5),
    Target("presence", PYPI, 1 / 8),
    *(Target(row, PYPI, 1 / 12) for row in (*AMONG_PYPI, "channels", "channels-read")),
    Target("async", SYNC, 3.0),
    Target("send", BARE, 2.0),
    Target("send", NODE, 1.0),
    Target("acked-p50", BARE, 1.4),
    Target("memory", None, 8.0),
    Target("import", "aiohttp", 1.5),
    Target("idle", None, 0.1),
    Target("flat-channels", "first", 1.25),
    Target("flat-handlers", "first", 1.25),
)

"""Writes the table of README.md: ``python -m tests.contract.differential.table``."""

from __future__ import annotations

from pathlib import Path

from .scenarios import SCENARIOS
from .statements import ADDITIONS, QUIRKS, VERIFIED

__all__ = ["README", "with_table"]

README = Path(__file__).with_name("README.md")
MARK = "<!-- the rest is written by python -m tests.contract.differential.table -->\n"


def with_table(text: str) -> str:
    """Returns ``text`` with a new table after the mark."""
    return text.partition(MARK)[0] + MARK + _tables()


def _tables() -> str:
    verified = _rows(VERIFIED)
    quirks, additions = _rows(QUIRKS), _rows(ADDITIONS)
    differing = sum(bool(one.differs or one.rules) for one in SCENARIOS)
    return (
        f"\n{len(SCENARIOS)} scenarios, {differing} of them with expected differences.\n"
        f"\n## Verified statements\n\n{verified}\n## Quirks of supabase-js\n\n{quirks}"
        f"\n## Additions and options\n\n{additions}"
    )


def _rows(statements: dict[str, str]) -> str:
    lines = ["| id | statement | scenarios |", "|---|---|---|"]
    for id, text in statements.items():
        found = ", ".join(f"`{one.id}`" for one in SCENARIOS if id in one.covers)
        lines.append(f"| {id} | {text} | {found} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))

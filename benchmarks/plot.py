"""Draws the receiving rows as a bar chart in SVG, without a plotting package."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

from .peers import BARE, OURS
from .rows import Row, Run, number

__all__ = ["draw"]

COLOURS = {
    BARE: "#9aa5b1",
    "bare-envelope": "#cbd2d9",
    OURS: "#2f9e6e",
    "realtime-js": "#e0a030",
    "phoenix": "#d9622b",
    "PyPI realtime": "#4b6cb7",
}
SECTION = "Receiving: CPU per message"
LEFT, WIDTH, BAR, GAP, TOP = 270, 640, 11, 14, 64
LOWEST, HIGHEST = 1.0, 1000.0
"""The ends of the axis, in microseconds: it is logarithmic."""


def _x(value: float) -> float:
    share = math.log(max(value, LOWEST) / LOWEST) / math.log(HIGHEST / LOWEST)
    return LEFT + WIDTH * min(share, 1.0)


def _text(x: float, y: float, words: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{escape(words)}</text>'


def _bars(row: Row, y: float) -> list[str]:
    names = [name for name in COLOURS if row.median(name) is not None]
    middle = y + len(names) * BAR / 2 + 4
    parts = [_text(LEFT - 10, middle, row.title.replace("`", ""), 'text-anchor="end"')]
    for index, name in enumerate(names):
        value = row.median(name) or LOWEST
        at, end = y + index * BAR, _x(value)
        parts.append(
            f'<rect x="{LEFT}" y="{at:.1f}" width="{end - LEFT:.1f}" height="{BAR - 2}" '
            f'fill="{COLOURS[name]}"><title>{escape(name)}: {number(value)} µs</title></rect>'
        )
        weight = ' font-weight="bold"' if name == OURS else ""
        parts.append(_text(end + 4, at + BAR - 3, number(value), f'font-size="9"{weight}'))
    return parts


def draw(run: Run) -> str:
    """Draws one group of bars for each work, with one bar for each client."""
    rows = run.sections.get(SECTION, [])
    parts: list[str] = []
    y = float(TOP)
    for row in rows:
        parts += _bars(row, y)
        y += sum(row.median(name) is not None for name in COLOURS) * BAR + GAP
    for tick in (1, 3, 10, 30, 100, 300, 1000):
        x = _x(tick)
        parts.insert(
            0,
            f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{y:.1f}" stroke="#8884" />'
            + _text(x, TOP - 12, str(tick), 'text-anchor="middle" fill="#777"'),
        )
    for index, (name, colour) in enumerate(COLOURS.items()):
        x = 20 + index * 150
        parts.append(f'<rect x="{x}" y="{y:.1f}" width="12" height="12" fill="{colour}" />')
        parts.append(_text(x + 18, y + 10, name))
    width, height = LEFT + WIDTH + 60, y + 30
    title = _text(20, 22, "CPU time per message in µs, less is better", 'font-size="16"')
    note = _text(20, 38, f"logarithmic axis; {run.machine}", 'fill="#777"')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" '
        f'viewBox="0 0 {width} {height:.0f}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="#fff" />\n{title}\n{note}\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )

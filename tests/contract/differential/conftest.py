"""A skipped comparison is reported in a visible place."""

from __future__ import annotations

import pytest

from .javascript_side import SKIPPED

__all__ = ["pytest_terminal_summary"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Two lines in red below the tests; with ``-ra`` alone the line would be one of many."""
    reasons = [
        report.longrepr[2]
        for report in terminalreporter.getreports("skipped")
        if isinstance(report.longrepr, tuple) and SKIPPED in report.longrepr[2]
    ]
    if reasons:
        terminalreporter.write_sep("!", f"{len(reasons)} scenarios did not run", red=True)
        terminalreporter.write_line(reasons[0].removeprefix("Skipped: "), red=True, bold=True)

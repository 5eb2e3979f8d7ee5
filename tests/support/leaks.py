"""A pytest plugin: no test of the whole suite makes the package say a secret.

Every log record and all captured output is searched for tokens, keys, the secrets that sign them
and those that open the status page. The test that said one fails (and so does one that warns,
whatever it says). Tokens of all servers and clients are alike (three parts, two of them JSON), and
the secrets begin alike, so none needs to be known before.
``@pytest.mark.tells_secrets("why")`` exempts a test in which somebody else says it.
"""

from __future__ import annotations

import logging
import re

import pytest

from .watch import Watch

__all__ = ["LeakWatch", "found_secret", "pytest_configure"]

PLAIN = ("plainkey1f9q", "plaintoken7k2z", "letmein5x8w")
"""Those that no pattern knows: what tests/project/test_secrets.py uses."""
PATTERN = re.compile(
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{20,}|"
    r"\bsb_(?:secret|publishable)_[A-Za-z0-9_-]{8,}|"
    r"\bsrt_(?:jwt|page)_[A-Za-z0-9_-]{20,}|" + "|".join(map(re.escape, PLAIN))
)


def found_secret(text: str) -> str | None:
    """What stands before the first secret in ``text``; None where there is none."""
    match = PATTERN.search(text)
    return None if match is None else text[max(0, match.start() - 120) : match.start()]


class LeakWatch(Watch):
    """Listens to everything; holds what the present test has told."""

    def __init__(self) -> None:
        super().__init__("a secret was told", "tells_secrets")
        self._look = logging.Formatter("%(name)s: %(message)s")

    def see(self, where: str, text: str) -> None:
        before = found_secret(text)
        if before is not None:
            self.told.append(f"{where}: ...{before}")

    def emit(self, record: logging.LogRecord) -> None:
        # The record's own arguments too: a handler of the user's may write them as they are.
        self.see("log", f"{self._look.format(record)} {record.args!r}")

    def look(self, report: pytest.TestReport) -> None:
        for where, text in report.sections:
            self.see(where, text)


def pytest_configure(config: pytest.Config) -> None:
    LeakWatch().register(config, "leaks")

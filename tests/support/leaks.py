"""A pytest plugin: no test of the whole suite makes the package print a secret.

Every log record and all captured output is searched for tokens, keys, signing secrets and the
secrets that open the status page. A test that prints a secret fails; so does a test that causes any
warning. Tokens of all servers and clients have the same form (three parts, two of them JSON), and
all secrets have known prefixes. So none needs to be known before.
``@pytest.mark.tells_secrets("why")`` exempts a test in which other code prints a secret.
"""

from __future__ import annotations

import logging
import re

import pytest

from .watch import Watch

__all__ = ["LeakWatch", "found_secret", "pytest_configure"]

PLAIN = ("plainkey1f9q", "plaintoken7k2z", "letmein5x8w")
"""Secrets without a known form, which tests/project/test_secrets.py uses."""
PATTERN = re.compile(
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{20,}|"
    r"\bsb_(?:secret|publishable)_[A-Za-z0-9_-]{8,}|"
    r"\bsrt_(?:jwt|page)_[A-Za-z0-9_-]{20,}|" + "|".join(map(re.escape, PLAIN))
)


def found_secret(text: str) -> str | None:
    """Returns the text before the first secret in ``text``; None if there is no secret."""
    match = PATTERN.search(text)
    return None if match is None else text[max(0, match.start() - 120) : match.start()]


class LeakWatch(Watch):
    """Listens to all loggers; holds the findings of the present test."""

    def __init__(self) -> None:
        super().__init__("a secret was told", "tells_secrets")
        self._look = logging.Formatter("%(name)s: %(message)s")

    def see(self, where: str, text: str) -> None:
        before = found_secret(text)
        if before is not None:
            self.told.append(f"{where}: ...{before}")

    def emit(self, record: logging.LogRecord) -> None:
        # The record's own arguments are searched too, because a handler of the user's may write
        # them unchanged.
        self.see("log", f"{self._look.format(record)} {record.args!r}")

    def look(self, report: pytest.TestReport) -> None:
        for where, text in report.sections:
            self.see(where, text)


def pytest_configure(config: pytest.Config) -> None:
    LeakWatch().register(config, "leaks")

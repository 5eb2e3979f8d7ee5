"""A pytest plugin: a test fails if asyncio reports an unhandled error during it.

asyncio only logs "Task exception was never retrieved", "Task was destroyed but it is pending" and
"Unhandled exception in event loop". Some come only at garbage collection, so the named test may be
a later one. The text in the report shows the owner of the error.
``@pytest.mark.loop_errors("why")`` exempts a test that provokes one.
"""

from __future__ import annotations

import logging

import pytest

from .watch import Watch

__all__ = ["LoopErrors", "pytest_configure"]


class LoopErrors(Watch):
    """Holds the reports of asyncio during the present test."""

    def __init__(self) -> None:
        super().__init__("asyncio reported an error", "loop_errors", logging.ERROR)
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))


def pytest_configure(config: pytest.Config) -> None:
    LoopErrors().register(config, "loop_errors", "asyncio")

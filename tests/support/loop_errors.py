"""A pytest plugin: a test fails in which asyncio reports an error that nobody took.

"Task exception was never retrieved", "Task was destroyed but it is pending" and "Unhandled
exception in event loop" are only logged, some of them when the garbage is collected, so that the
test named may be a later one; what stands in the report tells whose error it is.
``@pytest.mark.loop_errors("why")`` exempts a test that provokes one.
"""

from __future__ import annotations

import logging

import pytest

from .watch import Watch

__all__ = ["LoopErrors", "pytest_configure"]


class LoopErrors(Watch):
    """Holds what asyncio has reported during the present test."""

    def __init__(self) -> None:
        super().__init__("asyncio reported an error", "loop_errors", logging.ERROR)
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))


def pytest_configure(config: pytest.Config) -> None:
    LoopErrors().register(config, "loop_errors", "asyncio")

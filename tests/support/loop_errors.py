"""A pytest plugin: a test fails in which asyncio reports an error that nobody took.

"Task exception was never retrieved", "Task was destroyed but it is pending" and "Unhandled
exception in event loop" are only logged, some of them when the garbage is collected, so that the
test named may be a later one; what stands in the report tells whose error it is.
``@pytest.mark.loop_errors("why")`` exempts a test that provokes one.
"""

from __future__ import annotations

import logging
from collections.abc import Generator

import pytest

__all__ = ["LoopErrors", "pytest_configure"]


class LoopErrors(logging.Handler):
    """Holds what asyncio has reported during the present test."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.reported: list[str] = []
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.reported.append(self.format(record))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when != "teardown":
            return report
        reported, self.reported = self.reported, []
        if reported and item.get_closest_marker("loop_errors") is None:
            report.outcome = "failed"
            report.longrepr = "\n".join(["asyncio reported an error", *reported])
        return report


def pytest_configure(config: pytest.Config) -> None:
    errors = LoopErrors()
    config.pluginmanager.register(errors, "loop_errors")
    logging.getLogger("asyncio").addHandler(errors)
    config.add_cleanup(lambda: logging.getLogger("asyncio").removeHandler(errors))

"""The common part of pytest plugins that fail a test because of its log records."""

from __future__ import annotations

import logging
from collections.abc import Generator

import pytest

__all__ = ["Watch"]


class Watch(logging.Handler):
    """Listens to a logger; entries in ``told`` fail the present test.

    The report has ``complaint`` before the entries. Tests with ``marker`` are exempt.
    """

    def __init__(self, complaint: str, marker: str, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.told: list[str] = []
        self._complaint = complaint
        self._marker = marker

    def look(self, report: pytest.TestReport) -> None:
        """Collect further findings at the end of a test."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when != "teardown":
            return report
        self.look(report)
        told, self.told = self.told, []
        if told and item.get_closest_marker(self._marker) is None:
            report.outcome = "failed"
            report.longrepr = "\n".join([self._complaint, *told])
        return report

    def register(self, config: pytest.Config, name: str, logger: str | None = None) -> None:
        """Begin to watch, until the run is over."""
        config.pluginmanager.register(self, name)
        logging.getLogger(logger).addHandler(self)
        config.add_cleanup(lambda: logging.getLogger(logger).removeHandler(self))

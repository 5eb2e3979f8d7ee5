"""A pytest plugin: who claims a behaviour has to show it."""

from __future__ import annotations

from collections.abc import Generator

import pytest

__all__ = ["pytest_runtest_makereport"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test marked with ids that is skipped fails: docs/conformance.md says that it holds."""
    report = yield
    if report.skipped and item.get_closest_marker("conformance") is not None:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} is marked with ids and was skipped"
    return report

"""A pytest plugin: a test that claims a behaviour has to run."""

from __future__ import annotations

from collections.abc import Generator

import pytest

__all__ = ["pytest_runtest_makereport"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test that is marked with ids fails, because docs/conformance.md claims these
    ids.
    """
    report = yield
    if report.skipped and item.get_closest_marker("conformance") is not None:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} is marked with ids and was skipped"
    return report

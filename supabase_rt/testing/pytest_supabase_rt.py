"""The pytest plugin of supabase_rt: fixtures with a Realtime server for your tests.

``realtime_server`` is a new server without a database for each test. ``realtime_db`` has a
PostgreSQL: one for the whole run, with a database for each test. Both are
``supabase_rt.testing.ThreadedRealtime``. Override ``realtime_settings`` and ``realtime_schema``
in your ``conftest.py`` for limits, policies and tables.

The plugin is installed as a separate module, because pytest imports it in every run. So the
package is loaded only when a test uses a fixture, and coverage sees all of its import.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from supabase_rt.testing import TestPostgres, ThreadedRealtime


def _testing() -> Any:
    try:
        return importlib.import_module("supabase_rt.testing")
    except ImportError as exc:
        problem = str(exc)
    pytest.fail(problem, pytrace=False)


@pytest.fixture
def realtime_settings() -> dict[str, Any]:
    """Returns keywords for ``LocalRealtime``, such as ``policy`` or a limit."""
    return {}


@pytest.fixture
def realtime_schema() -> str:
    """Returns the SQL that ``realtime_db`` runs first: tables, policies, ``alter publication``."""
    return ""


@pytest.fixture
def realtime_server(realtime_settings: dict[str, Any]) -> Iterator[ThreadedRealtime]:
    """Yields a Realtime server for one test."""
    with _testing().ThreadedRealtime(**realtime_settings) as server:
        yield server


@pytest.fixture(scope="session")
def realtime_postgres() -> Iterator[TestPostgres]:
    """Yields the PostgreSQL of ``realtime_db``."""
    testing = _testing()
    try:
        postgres = testing.TestPostgres()
        postgres.start()
    except RuntimeError as exc:
        problem = str(exc)
    else:
        try:
            yield postgres
        finally:
            postgres.stop()
        return
    pytest.fail(problem, pytrace=False)


@pytest.fixture
def realtime_db(
    realtime_postgres: TestPostgres, realtime_settings: dict[str, Any], realtime_schema: str
) -> Iterator[ThreadedRealtime]:
    """Yields a Realtime server with an empty database, for one test."""
    with (
        realtime_postgres.database() as url,
        _testing().ThreadedRealtime(db=url, **realtime_settings) as server,
    ):
        if realtime_schema.strip():
            server.sql(realtime_schema)
        yield server

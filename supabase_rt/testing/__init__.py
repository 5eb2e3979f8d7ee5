"""Helpers for tests of programs that use supabase_rt; needs ``supabase-rt[server]``.

pytest finds the fixtures ``realtime_server`` and ``realtime_db`` without an import.
"""

from .clock import FakeClock
from .conversation import Player, Recorder, play, record
from .postgres import TestPostgres
from .threaded import Rows, ThreadedRealtime

__all__ = [
    "FakeClock",
    "Player",
    "Recorder",
    "Rows",
    "TestPostgres",
    "ThreadedRealtime",
    "play",
    "record",
]

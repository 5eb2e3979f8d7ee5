"""For tests of programs that use supabase_rt; needs ``supabase-rt[server]``.

With pytest the fixtures ``realtime_server`` and ``realtime_db`` are there without an import.
"""

from .postgres import TestPostgres
from .threaded import Rows, ThreadedRealtime

__all__ = ["Rows", "TestPostgres", "ThreadedRealtime"]

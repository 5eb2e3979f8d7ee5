"""The checks of ``supabase-rt doctor``, along the way from a program to its events."""

from .check_database import check_database
from .check_network import check_network
from .check_realtime import check_realtime
from .report import Report, Result

__all__ = ["Report", "Result", "check_database", "check_network", "check_realtime"]

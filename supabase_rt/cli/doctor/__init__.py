"""What stands between a program and its events, asked one thing after the other."""

from .database import check_database
from .network import check_network
from .realtime import check_realtime
from .result import Report, Result

__all__ = ["Report", "Result", "check_database", "check_network", "check_realtime"]

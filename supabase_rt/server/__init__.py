"""A local server that speaks the Supabase Realtime protocol; needs ``supabase-rt[server]``."""

from .activity import Happening
from .auth import Rights, new_secret
from .backend import Received
from .faults import Faults
from .local import LocalRealtime, Reached
from .postgres.embedded import EmbeddedPostgres
from .postgres.problems import DatabaseProblem
from .settings import REALISTIC, Settings

__all__ = [
    "REALISTIC",
    "DatabaseProblem",
    "EmbeddedPostgres",
    "Faults",
    "Happening",
    "LocalRealtime",
    "Reached",
    "Received",
    "Rights",
    "Settings",
    "new_secret",
]

"""A local server that speaks the Supabase Realtime protocol; needs ``supabase-rt[server]``."""

from ._machine.server_state import Received
from ._postgres.embedded import EmbeddedPostgres
from ._postgres.errors import DatabaseProblem
from .activity import Happening
from .faults import Faults
from .local import LocalRealtime, Reached
from .settings import REALISTIC, Settings
from .tokens import Rights, new_secret

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

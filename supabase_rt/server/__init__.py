"""A local server that speaks the Supabase Realtime protocol; needs ``supabase-rt[server]``."""

from .auth import Rights
from .backend import Received
from .faults import Faults
from .local import LocalRealtime
from .settings import Settings

__all__ = ["Faults", "LocalRealtime", "Received", "Rights", "Settings"]

"""The command ``supabase-rt``, also ``python -m supabase_rt``.

Each file in ``commands`` is one command and is found by being there. ``--help`` imports nothing
that a command needs only when it runs.
"""

from .program import main

__all__ = ["main"]

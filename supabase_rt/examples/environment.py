"""Finds the project of an example bot, and offers ``printable`` for texts of others."""

from __future__ import annotations

import os
import sys

from supabase_rt._printable import printable

__all__ = ["printable", "project"]


def project() -> tuple[str, str]:
    """Returns URL and key from the environment; ends the program if one is missing."""
    url, key = os.environ.get("SUPABASE_URL"), os.environ.get("SUPABASE_KEY")
    if not url or not key:
        sys.exit("set SUPABASE_URL and SUPABASE_KEY; 'supabase-rt serve' prints a pair of them")
    return url, key

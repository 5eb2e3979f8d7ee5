"""Finds the project of an example bot, and has what makes words of others fit to be printed."""

from __future__ import annotations

import os
import sys

from supabase_rt._printable import printable

__all__ = ["printable", "project"]


def project() -> tuple[str, str]:
    """URL and key from the environment; ends the program where they are missing."""
    url, key = os.environ.get("SUPABASE_URL"), os.environ.get("SUPABASE_KEY")
    if not url or not key:
        sys.exit("set SUPABASE_URL and SUPABASE_KEY; 'supabase-rt serve' prints a pair of them")
    return url, key

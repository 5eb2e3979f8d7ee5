"""A chain is written down, and begins with a loop. A program that ends without one is told so.

In JavaScript the loop is there already, so who comes from there leaves ``run()`` out and sees
nothing at all. Kept are two facts about the process and no object: no client lives longer for it.
"""

from __future__ import annotations

import atexit
import sys
from typing import Final

from .._printable import get_logger
from .log_fields import facts

__all__ = ["loop_ran", "wanted_without_loop"]

log: Final = get_logger("supabase_rt")


class _Process:
    is_watched: bool = False
    has_run: bool = False


def wanted_without_loop() -> None:
    """Somebody subscribed or connected where no loop runs, which may still come."""
    if not (_Process.is_watched or _Process.has_run):
        _Process.is_watched = True
        # Later than logging's own, and so called before it.
        atexit.register(_at_exit)


def loop_ran() -> None:
    """A client is at work in a loop."""
    _Process.has_run = True


def _at_exit() -> None:
    # A program that ended with a traceback has told what kept it from its loop.
    if not _Process.has_run and not hasattr(sys, "last_type"):
        log.warning(
            "nothing was connected: a channel was subscribed or connect() called, but no event "
            "loop ran before the program ended; end it with supabase.realtime.run()",
            extra=facts(),
        )

"""Differences that many scenarios meet, each with its reason.

A rule makes the two sides equal if they differ for this reason alone. It returns True if it changed
something. All of them are listed in docs/differences.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["RULES"]

Flat = dict[str, Any]
RULES: dict[str, Callable[[Flat, Flat], bool]] = {}


def _rule(name: str) -> Callable[[Callable[[Flat, Flat], bool]], Callable[[Flat, Flat], bool]]:
    def keep(function: Callable[[Flat, Flat], bool]) -> Callable[[Flat, Flat], bool]:
        RULES[name] = function
        return function

    return keep


def _rewrite(flat: Flat, pattern: str, by: str) -> bool:
    """Change every status that fits ``pattern``; returns True if one was changed."""
    changed = False
    for path, statuses in flat.items():
        if path.startswith("statuses."):
            flat[path] = [re.sub(pattern, by, status) for status in statuses]
            changed = changed or flat[path] != statuses
    return changed


@_rule("close-code")
def _close_code(js: Flat, ours: Flat) -> bool:
    """supabase-js closes without a code, we say 1000 (api.md: ``disconnect(code=1000)``)."""
    if js["closes"] == ours["closes"]:
        return False
    js["closes"] = [1000 if code == 0 else code for code in js["closes"]]
    return True


@_rule("mismatch-state")
def _mismatch_state(js: Flat, _: Flat) -> bool:
    """The state is ``errored`` when our CLOSED before the mismatch is reported."""
    return _rewrite(js, "^CLOSED closed$", "CLOSED errored")


@_rule("connect-failure-text")
def _connect_failure_text(_: Flat, ours: Flat) -> bool:
    """A browser does not tell scripts why a connection failed; our client knows the reason and
    reports it.
    """
    pattern = "^(CHANNEL_ERROR errored: ).* refused the connection: HTTP 503$"
    return _rewrite(ours, pattern, r"\1channel error: transport failure")

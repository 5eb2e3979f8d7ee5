"""Schemas that clients may neither read, write nor subscribe to."""

from __future__ import annotations

from typing import Final

__all__ = ["HIDDEN", "is_hidden"]

HIDDEN: Final = ("auth", "realtime", "information_schema")
"""The schemas of a project that are hidden, in addition to those of Postgres."""


def is_hidden(schema: str) -> bool:
    """Returns True if a schema is refused by its name, even if a role has rights in it."""
    return schema in HIDDEN or schema.startswith("pg_")

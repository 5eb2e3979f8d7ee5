"""Schemas that are nobody's to read, to write to or to be told of."""

from __future__ import annotations

from typing import Final

__all__ = ["HIDDEN", "is_hidden"]

HIDDEN: Final = ("auth", "realtime", "information_schema")
"""Those that a project does not offer, beside the ones of Postgres itself."""


def is_hidden(schema: str) -> bool:
    """Whether a schema is refused by its name, whatever rights a role has in it."""
    return schema in HIDDEN or schema.startswith("pg_")

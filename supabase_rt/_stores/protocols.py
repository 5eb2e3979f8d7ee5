"""The contract of a store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

__all__ = ["BackfillStore"]


class BackfillStore(Protocol):
    """Keeps small notes (key and text) for each name.

    Each call is awaited before the next event is handled.
    """

    async def load(self, name: str, /) -> Mapping[str, str]:
        """Returns all notes of a name; none for a name that is unknown."""
        ...

    async def save(self, name: str, put: Mapping[str, str], remove: Collection[str], /) -> None:
        """Puts and removes notes in one step; they must be safe when this returns."""
        ...

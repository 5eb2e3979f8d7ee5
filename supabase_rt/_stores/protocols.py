"""The contract of a store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

__all__ = ["BackfillStore"]


class BackfillStore(Protocol):
    """Keeps small notes, text by text, for each name. Awaited before the next event."""

    async def load(self, name: str, /) -> Mapping[str, str]:
        """All notes of a name; none for a name never seen."""
        ...

    async def save(self, name: str, put: Mapping[str, str], remove: Collection[str], /) -> None:
        """Put and remove notes, all of it or nothing, to last when this returns."""
        ...

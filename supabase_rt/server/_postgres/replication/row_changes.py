"""Row changes of the WAL as the real server has them: by column name, values as texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .pgoutput import Delete, Insert, Relation, Unchanged, Update, Values

__all__ = ["Image", "RowChange", "row_change"]

Image = Mapping[str, str | None]
"""The known values of a row; a column that is not in the WAL is missing."""

PER_COLUMN = 40
"""What the JSON of the real server's WAL reader adds to a name, a type and a value."""


@dataclasses.dataclass(frozen=True)
class RowChange:
    """One committed row change; ``new`` is None for a DELETE and ``old`` for an INSERT."""

    relation: Relation
    type: str
    new: Image | None
    old: Image | None
    commit_lsn: int
    commit_timestamp: str
    transaction: int = 0
    """Its number, as far as the log gives it; 0 where it is not known."""

    @property
    def filter_row(self) -> Image:
        """The row that filters look at."""
        return (self.old if self.new is None else self.new) or {}

    def size(self) -> int:
        """About how many bytes the change has as JSON."""
        images = [image for image in (self.new, self.old) if image is not None]
        return sum(
            len(name) + PER_COLUMN + (_bytes(value) if value is not None else 4)
            for image in images
            for name, value in image.items()
        )


def row_change(
    relation: Relation,
    message: Insert | Update | Delete,
    commit_lsn: int,
    commit_timestamp: str,
    transaction: int = 0,
) -> RowChange:
    """A change by name, with the old row as far as the replica identity gives it."""
    new: Image | None = None
    old: Image | None = None
    if isinstance(message, Insert | Update):
        new = _image(relation, message.new)
    if isinstance(message, Update | Delete) and message.old is not None:
        old = _image(relation, message.old, key_only=not message.old_is_full)
    if isinstance(message, Update):
        if old is None:
            # The identity did not change, so it is not in the WAL a second time.
            old = _image(relation, message.new, key_only=True)
        elif message.old_is_full:
            new = _with_unchanged(relation, message, old)
    kind = type(message).__name__.upper()
    return RowChange(relation, kind, new, old, commit_lsn, commit_timestamp, transaction)


def _image(relation: Relation, values: Values, *, key_only: bool = False) -> Image:
    return {
        column.name: value
        for column, value in zip(relation.columns, values, strict=True)
        if not isinstance(value, Unchanged) and (column.is_key or not key_only)
    }


def _with_unchanged(relation: Relation, message: Update, old: Image) -> Image:
    """A large value that was not touched is in the old row, where that is complete."""
    return {
        column.name: old.get(column.name) if isinstance(value, Unchanged) else value
        for column, value in zip(relation.columns, message.new, strict=True)
    }


def _bytes(text: str) -> int:
    # A copy of a large text is made only where it has to be.
    return len(text) if text.isascii() else len(text.encode())

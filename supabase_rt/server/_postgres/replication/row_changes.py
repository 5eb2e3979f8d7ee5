"""Row changes of the WAL, in the real server's form: values as texts by column name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .pgoutput import Delete, Insert, Relation, Unchanged, Update, Values

__all__ = ["Image", "RowChange", "row_change"]

Image = Mapping[str, str | None]
"""The known values of a row; a column that is not in the WAL is missing."""

PER_COLUMN = 40
"""Bytes that the real server's WAL reader adds to a name, a type and a value in its JSON."""


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
    """The lower 32 bits of the transaction id; 0 if it is not known."""

    @property
    def filter_row(self) -> Image:
        """The row that filters are tried on."""
        return (self.old if self.new is None else self.new) or {}

    def size(self) -> int:
        """Returns about how many bytes the change has as JSON."""
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
    """Build a change, with the old row as far as the replica identity gives it."""
    new: Image | None = None
    old: Image | None = None
    if isinstance(message, Insert | Update):
        new = _image(relation, message.new)
    if isinstance(message, Update | Delete) and message.old is not None:
        old = _image(relation, message.old, key_only=not message.old_is_full)
    if isinstance(message, Update):
        if old is None:
            # The identity did not change, so the WAL has it in the new row only.
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
    """Take large values that did not change from the old row, if that is complete."""
    return {
        column.name: old.get(column.name) if isinstance(value, Unchanged) else value
        for column, value in zip(relation.columns, message.new, strict=True)
    }


def _bytes(text: str) -> int:
    # Encoding would copy a large text, so ASCII is counted without it.
    return len(text) if text.isascii() else len(text.encode())

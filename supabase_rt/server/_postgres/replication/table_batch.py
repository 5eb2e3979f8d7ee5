"""The changes of one table in a batch, and the frames built from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from ..._tables.filter_matching import Condition
from ..queries.catalog import Shape
from ..queries.change_rendering import Evaluated, Rendered, encode
from ..queries.filter_sql import explain
from ..queries.visibility import Delivery, Subscription
from .row_changes import Image, RowChange

__all__ = ["ChangeFrame", "Miss", "Part", "image_for"]

LONGEST_KEPT = 65_536
"""Characters; in a change that is sent cut down, longer texts are not passed to the database."""


class ChangeFrame(NamedTuple):
    """The data of one change for one channel; ``number`` is its place in the batch."""

    number: int
    subscription: Subscription
    kind: str
    ids: Sequence[int]
    data: msgspec.Raw


@dataclasses.dataclass
class Part:
    """The changes of one table in a batch.

    ``numbers`` are their places in the batch, ``rows`` the new and the old row of each change. A
    change with neither row cannot be sent.
    """

    shape: Shape
    changes: Sequence[RowChange]
    numbers: Sequence[int]
    rows: Sequence[tuple[Evaluated | None, Evaluated | None]]
    max_bytes: int
    _encoded: dict[tuple[int, str, tuple[str, ...] | None], msgspec.Raw] = dataclasses.field(
        default_factory=dict, repr=False
    )

    @property
    def name(self) -> str:
        """Schema and table."""
        return f"{self.shape.schema}.{self.shape.name}"

    def size(self) -> int:
        """Returns about how many bytes it holds."""
        return sum(change.size() for change in self.changes)

    def filter_rows(self) -> list[Evaluated | None]:
        """Returns the rows that filters are tried on."""
        return [
            new if change.new is not None else old
            for change, (new, old) in zip(self.changes, self.rows, strict=True)
        ]

    def frames(self, found: Iterable[Delivery]) -> list[ChangeFrame]:
        """Returns the frames of these deliveries."""
        frames = []
        for each in found:
            change, role = self.changes[each.nth], each.subscription.role
            for select, ids in each.groups.items():
                key = (each.nth, role, select)
                if key not in self._encoded:
                    self._encoded[key] = encode(
                        self.shape,
                        change,
                        _values(self.rows[each.nth]),
                        role,
                        select,
                        max_bytes=self.max_bytes,
                    )
                number, data = self.numbers[each.nth], self._encoded[key]
                frames.append(ChangeFrame(number, each.subscription, change.type, ids, data))
        return frames


def _values(
    row: tuple[Evaluated | None, Evaluated | None],
) -> tuple[Rendered | None, Rendered | None]:
    new, old = row
    return new.values if new else None, old.values if old else None


def image_for(
    shape: Shape,
    change: RowChange,
    image: Image | None,
    conditions: Iterable[Condition],
    max_bytes: int,
) -> Image | None:
    """Returns the values that the database has to render, without those that would be cut."""
    if image is None or change.size() <= max_bytes:
        return image
    # The JSON of a json value may be shorter than its text.
    kept = {condition.column for condition in conditions}
    kept |= {field.name for field in shape.fields if field.type == "json"}
    return {
        name: value
        for name, value in image.items()
        if value is None or len(value) <= LONGEST_KEPT or name in kept
    }


class Miss(NamedTuple):
    """Changes of one table that cannot be sent to a channel, and the reason."""

    subscription: Subscription
    changes: int
    table: str
    problem: Exception | str

    def public_text(self) -> str:
        """Returns the text for the channel, without the error's text, which may quote the row."""
        return self._text(with_text=False)

    def log_text(self) -> str:
        """Returns the text for the log."""
        return self._text(with_text=True)

    def _text(self, *, with_text: bool) -> str:
        text = self.problem
        if isinstance(text, Exception):
            text = explain(text, with_text=with_text)
        words = "1 change" if self.changes == 1 else f"{self.changes} changes"
        return f"Unable to tell of {words} of {self.table}: {text}"

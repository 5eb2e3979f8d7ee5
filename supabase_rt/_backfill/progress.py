"""The rows of a table that one handler has handled, and the place from which to read again.

A change feed loses what happens while nobody listens. The table does not lose them: rows behind the
last handled one can be read. A row becomes visible when its transaction commits, and commits need
not follow the order of the rows. So some rows that were handled are read once more, and the known
ones are dropped. ``rows`` and ``seconds`` say how many; the one that reaches further counts:

* ``rows``: finds a row that is committed while at most so many rows behind it are visible.
* ``seconds``: finds a row that is committed at most so long after the first row behind it.

Handled rows are remembered down to the oldest one needed; no row below it is read again. It is the
lower one of two rows:

* the handled row with ``rows`` others behind it;
* the last row that was handled ``seconds`` before ``heard_until``.

Nothing that was committed before ``heard_until`` was missed. Rows are ordered by the cursor, then
by the primary key.

This module only decides. Its caller handles the rows one after the other and calls ``handled``
after each. A row for which that did not happen is returned again by the next reading.
"""

from __future__ import annotations

import bisect
import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from .._wire.json_codec import dumps, loads
from ..errors import DecodeError

__all__ = ["Progress", "RowPosition", "SortKey", "StoreUpdate", "Window"]

SortKey = tuple[Any, ...]
"""A place in the order of a table, to compare; the empty one is before every row."""

DELIVERY: Final = 10.0
"""Seconds that a change may take from its commit to the client."""
HEARD: Final = "heard"
FLOOR: Final = "floor"
"""The keys of ``heard_until`` and of the floor in a store; every other key is a position."""


class RowPosition(NamedTuple):
    """The place of a row: to compare, and as the server wrote its values (cursor, then key)."""

    sort_key: SortKey
    values: tuple[Any, ...]

    @property
    def key(self) -> str:
        """The key under which a store keeps it."""
        return dumps(list(self.values)).decode()


class Window(NamedTuple):
    """The rows to read next: ``limit`` rows behind these values.

    With ``newest`` the last rows of the table, the very last one first.
    """

    after: tuple[Any, ...] | None
    limit: int
    newest: bool = False


class StoreUpdate(NamedTuple):
    """The notes that a store should keep and forget, in one step."""

    put: dict[str, str]
    remove: list[str]


def _comparable(value: Any) -> tuple[int, Any]:
    """Returns a value of a column as something that compares with values of its kind."""
    if isinstance(value, bool | int | float):
        return (0, value)
    return (1, str(value))


def _comparable_cursor(value: Any) -> tuple[int, Any]:
    """Returns the same for a cursor: points in time compare however they are written."""
    if isinstance(value, str):
        try:
            found = dt.datetime.fromisoformat(value)
        except ValueError:
            return (1, value)
        return (0, (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp())
    return _comparable(value)


def _time_from(note: str) -> float:
    found = float(note)
    if not math.isfinite(found):
        raise ValueError(f"a stored time that is not finite: {note}")
    return found


class Progress:
    """The rows that one handler has handled. Time is an argument: seconds since 1970."""

    def __init__(
        self,
        cursor: str,
        key: Sequence[str],
        *,
        rows: int,
        seconds: float,
        page: int = 500,
        prune_every: int = 256,
    ) -> None:
        self.started: bool = False
        """True if the place to begin is known."""
        self.heard_until: float = -math.inf
        """Nothing that was committed before this moment was missed."""
        self.columns: tuple[str, ...] = (cursor, *(name for name in key if name != cursor))
        """The columns that give a row its position."""
        self._key = tuple(key)
        self._rows = rows
        self._seconds = seconds
        self._page = page
        self._prune_every = prune_every
        self._floor = RowPosition((), ())
        """Rows below it were there before the start, and are not read."""
        self._handled_at: dict[SortKey, float] = {}
        self._positions: dict[SortKey, RowPosition] = {}
        self._order: list[SortKey] = []
        self._read: set[SortKey] = set()
        self._latest: dict[SortKey, SortKey] = {}
        """The latest version of each row that was read, by primary key."""
        self._read_up_to: RowPosition | None = None
        """The place that the reading in progress has reached; None if there is none."""
        self._newest_at_start: SortKey = ()
        """The last handled row when this reading began."""
        self._since_pruned = 0
        self._stored_heard_until = -math.inf

    def __len__(self) -> int:
        return len(self._order)

    @property
    def by_key(self) -> bool:
        """True if the cursor is part of the key, so a row never changes its position."""
        return self.columns[0] in self._key

    def position_of(self, row: Mapping[str, Any]) -> RowPosition | None:
        """Returns the position of a row; None if a column is missing or null."""
        values = tuple(row.get(name) for name in self.columns)
        if any(value is None for value in values):
            return None
        sort_key = (_comparable_cursor(values[0]), *map(_comparable, values[1:]))
        return RowPosition(sort_key, values)

    def _row_of(self, position: RowPosition) -> SortKey:
        """Returns the key of a row, which is the same for every version of it."""
        return position.sort_key if self.by_key else position.sort_key[1:]

    # -- where to begin ------------------------------------------------------------------

    def start_window(self) -> Window:
        """Returns what to read first of all: the newest rows, which count as handled."""
        return Window(None, self._rows + 1, newest=True)

    def set_start(self, rows: Iterable[Mapping[str, Any]], now: float) -> StoreUpdate:
        """Takes the rows of ``start_window`` for handled; every row behind them is new."""
        found = [one for one in map(self.position_of, rows) if one is not None]
        put = {}
        for position in found:
            self._add(position, now)
            put[position.key] = repr(now)
        if len(found) > self._rows:
            put.update(self._set_floor(min(found)))
        self.started = True
        self.heard_until = max(self.heard_until, now)
        put[HEARD] = repr(self.heard_until)
        return StoreUpdate(put, [])

    def _set_floor(self, position: RowPosition) -> dict[str, str]:
        self._floor = position
        return {FLOOR: position.key}

    def restore(self, notes: Mapping[str, str]) -> None:
        """Takes over the notes of an earlier run.

        Raises ``ValueError`` or ``TypeError`` for notes that were not written by ``handled`` and
        ``set_start`` for these columns. Nothing is taken over then.
        """
        if HEARD not in notes:
            return
        own = {key: at for key, at in notes.items() if key not in (HEARD, FLOOR)}
        found = [(self._position_from(key), _time_from(at)) for key, at in own.items()]
        floor = self._position_from(notes[FLOOR]) if FLOOR in notes else self._floor
        heard_until = _time_from(notes[HEARD])
        for position, at in found:
            self._add(position, at)
            self._add_read(position)
        self._floor, self.heard_until = floor, heard_until
        self.started = True

    def _position_from(self, key: str) -> RowPosition:
        try:
            values = loads(key.encode())
        except DecodeError as exc:
            raise ValueError("a stored position that is not JSON") from exc
        if not isinstance(values, list):
            raise ValueError(f"a stored position that is not a list: {key}")
        position = self.position_of(dict(zip(self.columns, values, strict=True)))
        if position is None:
            raise ValueError(f"a stored position without a value: {key}")
        return position

    # -- live ----------------------------------------------------------------------------

    def is_known(self, position: RowPosition) -> bool:
        """Returns True if a reading has brought this version of a row, or a later one."""
        if position.sort_key in self._read:
            return True
        return self._latest.get(self._row_of(position), ()) >= position.sort_key

    def is_behind(self, sort_key: SortKey) -> bool:
        """Returns True if the reading in progress has passed this place."""
        return self._read_up_to is not None and sort_key <= self._read_up_to.sort_key

    def handled(self, position: RowPosition, at: float, *, read: bool = False) -> StoreUpdate:
        """Records that a row was handled. ``at`` is when it came, ``read`` if by a reading."""
        self._add(position, at)
        if read:
            self._add_read(position)
        if self._read_up_to is None:
            self.heard_until = max(self.heard_until, at)
        put = {position.key: repr(at)}
        # The stored value lags a little: a restart then reads more, but most events save a write.
        if self.heard_until >= self._stored_heard_until + 1.0:
            self._stored_heard_until = self.heard_until
            put[HEARD] = repr(self.heard_until)
        return StoreUpdate(put, self._prune())

    def _add_read(self, position: RowPosition) -> None:
        self._read.add(position.sort_key)
        row = self._row_of(position)
        self._latest[row] = max(self._latest.get(row, ()), position.sort_key)

    def _add(self, position: RowPosition, at: float) -> None:
        sort_key = position.sort_key
        if sort_key not in self._handled_at:
            bisect.insort(self._order, sort_key)
            self._positions[sort_key] = position
        self._handled_at[sort_key] = at

    # -- reading ------------------------------------------------------------------------

    def begin(self) -> None:
        """Begins to read at the oldest row that is needed."""
        oldest = self._oldest_needed()
        is_floor = oldest <= self._floor.sort_key
        self._read_up_to = self._floor if is_floor else self._positions[oldest]
        self._newest_at_start = self._order[-1] if self._order else ()

    def window(self) -> Window:
        """Returns what to read next."""
        assert self._read_up_to is not None
        return Window(self._read_up_to.values or None, self._page)

    def is_handled(self, position: RowPosition) -> bool:
        """Returns True if this row was handled before, live or by a reading."""
        return position.sort_key in self._handled_at

    def advance(self, position: RowPosition) -> None:
        """All rows up to this one are handled, or have failed."""
        self._read_up_to = position

    def page_done(self, read_at: float, *, is_last: bool = False) -> None:
        """All rows of a page are dealt with; the page was read at that moment or later."""
        assert self._read_up_to is not None
        if is_last or self._read_up_to.sort_key >= self._newest_at_start:
            # Every row that was visible then and lies before this place has been handled.
            self.heard_until = max(self.heard_until, read_at)

    def end(self) -> None:
        """The reading is complete or given up; the next one begins at the oldest row needed."""
        self._read_up_to = None

    # -- what need not be remembered -----------------------------------------------------

    def _oldest_needed(self) -> SortKey:
        order = self._order
        by_rows = order[-self._rows - 1] if len(order) > self._rows else ()
        return min(by_rows, self._last_before(self.heard_until - self._seconds - DELIVERY))

    def _last_before(self, moment: float) -> SortKey:
        """Returns the last row in the order that was handled before ``moment``."""
        return next((one for one in reversed(self._order) if self._handled_at[one] < moment), ())

    def _prune(self) -> list[str]:
        """Forgets rows below the oldest needed; returns the keys that a store may forget."""
        self._since_pruned += 1
        if self._since_pruned < self._prune_every:
            return []
        self._since_pruned = 0
        # This is safe during a reading, which handles only rows ahead of itself. ``heard_until``
        # does not move before the reading has passed all handled rows, so no needed row is
        # forgotten.
        count = bisect.bisect_left(self._order, self._oldest_needed())
        gone = [self._positions.pop(sort_key) for sort_key in self._order[:count]]
        del self._order[:count]
        for position in gone:
            del self._handled_at[position.sort_key]
            self._read.discard(position.sort_key)
            if self._latest.get(self._row_of(position)) == position.sort_key:
                del self._latest[self._row_of(position)]
        return [position.key for position in gone]

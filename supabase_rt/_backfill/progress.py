"""What a registration has handled of a table, and from where to read it again.

A change feed loses what happens while nobody listens. The table does not: rows beyond the last
one that was handled can be read. Rows become visible when their transaction commits, which need
not be in the order of their numbers, so a little of what was handled is read once more and what
is known is dropped. How much is ``rows`` and ``seconds``, whichever reaches further back:

* ``rows``: a row that is committed when at most so many rows beyond it were visible is found;
* ``seconds``: so is a row that is committed at most so long after the first row beyond it.

For that, every handled row is remembered down to a line, ``low``, below which nothing has to be
read. The line is the lower one of: the handled row with ``rows`` others beyond it, and the
furthest one that was handled ``seconds`` before ``heard_until``, the moment up to which nothing
was missed. Rows are ordered by (cursor, primary key).

The ledger decides only. Who owns one handles the rows that it returns, one after the other, and
tells it ``handled`` after each; a row that was never ``handled`` is returned again next time.
"""

from __future__ import annotations

import bisect
import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from .._wire.json_codec import dumps, loads

__all__ = ["Ledger", "Mark", "Notes", "Position", "Window"]

Position = tuple[Any, ...]
"""A place in the order of a table, to compare; the empty one is before every row."""

DELIVERY: Final = 10.0
"""Seconds that a change may need from its commit to us."""
HEARD: Final = "heard"
FLOOR: Final = "floor"
"""Notes that say up to when nothing was missed, and below what nothing was looked at; all others
are positions."""


class Mark(NamedTuple):
    """Where a row stands: to compare, and as the server wrote it (cursor, then key)."""

    position: Position
    values: tuple[Any, ...]

    @property
    def note(self) -> str:
        """The name under which a store keeps it."""
        return dumps(list(self.values)).decode()


class Window(NamedTuple):
    """What to read next: ``limit`` rows after these values, or the newest, last one first."""

    after: tuple[Any, ...] | None
    limit: int
    newest: bool = False


class Notes(NamedTuple):
    """What a store should keep and forget, together."""

    put: dict[str, str]
    remove: list[str]


def _place(value: Any) -> tuple[int, Any]:
    """A value of a cursor or a key as something that compares with its like."""
    if isinstance(value, bool | int | float):
        return (0, value)
    return (1, str(value))


def _moment(value: Any) -> tuple[int, Any]:
    """The same for a cursor: moments compare as such, however they are written."""
    if isinstance(value, str):
        try:
            found = dt.datetime.fromisoformat(value)
        except ValueError:
            return (1, value)
        return (0, (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp())
    return _place(value)


class Ledger:
    """The memory of one registration. Time is an argument: seconds since 1970."""

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
        """Whether it is known where to begin."""
        self.heard_until: float = -math.inf
        """Nothing that was committed before this moment was missed."""
        self.columns: tuple[str, ...] = (cursor, *(name for name in key if name != cursor))
        """The columns that give a row its place."""
        self._key = tuple(key)
        self._rows = rows
        self._seconds = seconds
        self._page = page
        self._prune_every = prune_every
        self._floor = Mark((), ())
        """Below it are rows that were there before the beginning."""
        self._at: dict[Position, float] = {}
        self._marks: dict[Position, Mark] = {}
        self._order: list[Position] = []
        self._read: set[Position] = set()
        self._latest: dict[Position, Position] = {}
        """The furthest version of each row that was read, by primary key."""
        self._frontier: Mark | None = None
        """How far the reading under way has come."""
        self._furthest: Position = ()
        self._since_pruned = 0
        self._noted_heard = -math.inf

    def __len__(self) -> int:
        return len(self._order)

    @property
    def by_key(self) -> bool:
        """Whether the cursor is part of the key, so that a row keeps its place for ever."""
        return self.columns[0] in self._key

    def mark(self, row: Mapping[str, Any]) -> Mark | None:
        """Where a row stands; None where it lacks a column or the cursor is null."""
        values = tuple(row.get(name) for name in self.columns)
        if any(value is None for value in values):
            return None
        return Mark((_moment(values[0]), *map(_place, values[1:])), values)

    def _row(self, mark: Mark) -> Position:
        """Which row it is, whatever its version."""
        return mark.position if self.by_key else mark.position[1:]

    # -- where to begin ------------------------------------------------------------------

    def base_window(self) -> Window:
        """What to read at the very beginning: the newest rows, which are taken for handled."""
        return Window(None, self._rows + 1, newest=True)

    def base(self, rows: Iterable[Mapping[str, Any]], now: float) -> Notes:
        """What is there already is nothing new; everything that follows is."""
        marks = [mark for mark in map(self.mark, rows) if mark is not None]
        put = {}
        for mark in marks:
            self._add(mark, now)
            put[mark.note] = repr(now)
        if len(marks) > self._rows:
            put.update(self._set_floor(min(marks)))
        self.started = True
        self.heard_until = max(self.heard_until, now)
        put[HEARD] = repr(self.heard_until)
        return Notes(put, [])

    def _set_floor(self, mark: Mark) -> dict[str, str]:
        self._floor = mark
        return {FLOOR: mark.note}

    def restore(self, notes: Mapping[str, str]) -> None:
        """Take over what a store kept of an earlier life. Raises ``ValueError`` for nonsense."""
        if HEARD not in notes:
            return
        own = {note: at for note, at in notes.items() if note not in (HEARD, FLOOR)}
        marks = [(self._noted(note), float(at)) for note, at in own.items()]
        floor = self._noted(notes[FLOOR]) if FLOOR in notes else self._floor
        self.heard_until = float(notes[HEARD])
        # All is read by now: of nonsense nothing is taken over.
        for mark, at in marks:
            self._add(mark, at)
            self._note_read(mark)
        self._floor = floor
        self.started = True

    def _noted(self, note: str) -> Mark:
        values = loads(note.encode())
        mark = self.mark(dict(zip(self.columns, values, strict=True)))
        if mark is None:
            raise ValueError(f"a stored position without a value: {note}")
        return mark

    # -- live ----------------------------------------------------------------------------

    def is_known(self, mark: Mark) -> bool:
        """Whether a change that came live was read already, itself or a later version of it."""
        if mark.position in self._read:
            return True
        return self._latest.get(self._row(mark), ()) >= mark.position

    def is_behind(self, position: Position) -> bool:
        """Whether the reading under way has passed this place and will not come back to it."""
        return self._frontier is not None and position <= self._frontier.position

    def handled(self, mark: Mark, at: float, *, read: bool = False) -> Notes:
        """A row was handled. ``at`` is when it came; ``read`` if by reading, not live."""
        self._add(mark, at)
        if read:
            self._note_read(mark)
        if self._frontier is None:
            self.heard_until = max(self.heard_until, at)
        put = {mark.note: repr(at)}
        # Kept a little behind: that costs some reading after a restart, and spares a write.
        if self.heard_until >= self._noted_heard + 1.0:
            self._noted_heard = self.heard_until
            put[HEARD] = repr(self.heard_until)
        return Notes(put, self._prune())

    def _note_read(self, mark: Mark) -> None:
        self._read.add(mark.position)
        row = self._row(mark)
        self._latest[row] = max(self._latest.get(row, ()), mark.position)

    def _add(self, mark: Mark, at: float) -> None:
        position = mark.position
        if position not in self._at:
            bisect.insort(self._order, position)
            self._marks[position] = mark
        self._at[position] = at

    # -- reading ------------------------------------------------------------------------

    def begin(self) -> None:
        """Start to read from the line on."""
        low = self._low()
        self._frontier = self._floor if low <= self._floor.position else self._marks[low]
        self._furthest = self._order[-1] if self._order else ()

    def window(self) -> Window:
        """What to read next."""
        assert self._frontier is not None
        return Window(self._frontier.values or None, self._page)

    def is_handled(self, mark: Mark) -> bool:
        """Whether a row that was read had been handled before, live or by reading."""
        return mark.position in self._at

    def advance(self, mark: Mark) -> None:
        """All up to this row is handled, or has failed."""
        self._frontier = mark

    def turn(self, read_at: float, *, is_last: bool = False) -> None:
        """All rows of a page are dealt with, which was read at that moment or later."""
        assert self._frontier is not None
        if is_last or self._frontier.position >= self._furthest:
            # Whatever was visible then and lies behind has been handled.
            self.heard_until = max(self.heard_until, read_at)

    def end(self) -> None:
        """The reading is complete, or is given up: the next one begins at the line again."""
        self._frontier = None

    # -- what need not be remembered -----------------------------------------------------

    def _low(self) -> Position:
        order = self._order
        by_rows = order[-self._rows - 1] if len(order) > self._rows else ()
        return min(by_rows, self._low_by_time(self.heard_until - self._seconds - DELIVERY))

    def _low_by_time(self, moment: float) -> Position:
        return next((one for one in reversed(self._order) if self._at[one] < moment), ())

    def _prune(self) -> list[str]:
        """Forget what is below the line; the names that a store may forget too."""
        self._since_pruned += 1
        if self._since_pruned < self._prune_every:
            return []
        self._since_pruned = 0
        # While reading too: the line cannot overtake the reading, which handles nothing beyond
        # itself, and leaves ``heard_until`` alone until it has passed all that was handled.
        count = bisect.bisect_left(self._order, self._low())
        gone = [self._marks.pop(position) for position in self._order[:count]]
        del self._order[:count]
        for mark in gone:
            del self._at[mark.position]
            self._read.discard(mark.position)
            if self._latest.get(self._row(mark)) == mark.position:
                del self._latest[self._row(mark)]
        return [mark.note for mark in gone]

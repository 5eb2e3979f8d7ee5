"""What a registration with a backfill does next: handle, read, or wait.

``Backfiller`` owns the queue of one registration. The shell asks it for the next ``Step``, does
it, and reports; changes that come live go through ``take``. So everything is handled one at a
time and in one order:

1. what came live before changes flowed anew,
2. the rows that were missed, read page by page in the order of the cursor,
3. what came live meanwhile, without what was read already.

A change that comes live for a place that the reading has passed is handled at once: nobody else
would see it if the process ended now. When the queue is full, new rows are dropped and read later.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .._protocol.channel_options import MAXBYTES
from .progress import Ledger, Mark, Notes, Position, Window

__all__ = ["Backfiller", "Fetch", "Handle", "Step"]

NO_NOTES = Notes({}, [])


@dataclass(slots=True, eq=False)
class Handle:
    """Give this to the handler: a change that came live, or a ``row`` that was read."""

    payload: Any
    mark: Mark | None
    at: float
    row: Mapping[str, Any] | None = None
    size: int = 0
    """Bytes of the frame that it came in."""
    is_over: bool = field(default=False, init=False)
    """Handled out of turn, or not to be handled any more."""


class Fetch(NamedTuple):
    """Read this: ``asked`` before, ``fetched`` after."""

    window: Window


Step = Handle | Fetch | None
"""None: there is nothing to do until something comes."""


class Backfiller:
    """The queue of one registration and the reading between. Never calls out."""

    def __init__(self, ledger: Ledger, maxsize: int, maxbytes: int = MAXBYTES) -> None:
        self.ledger = ledger
        self._maxsize = maxsize
        self._maxbytes = maxbytes
        self._queue: deque[Handle] = deque()
        self._waiting = 0
        """How many of the queue are still to be handled."""
        self._bytes = 0
        """How large the frames of these were."""
        self._ahead: list[tuple[Position, int, Handle]] = []
        """A heap of those that the reading under way may pass, by their place."""
        self._count = 0
        self._is_up = self._is_over = False
        self._losses = 0
        self._before: int | None = None
        """How many of the queue go before a reading that is wanted; None if none is."""
        self._is_behind = False
        """Whether rows were dropped that no reading under way will bring."""
        self._is_reading = False
        self._is_broken = False
        self._again = False
        self._rows: deque[tuple[Mark, Mapping[str, Any]]] = deque()
        """What is left of the page that was read."""
        self._page_end: Position = ()
        self._asked: tuple[int, float] | None = None
        """A fetch under way: how many losses there had been, and when it began."""
        self._dropped: Position | None = None
        """The first place of which a row was dropped during the fetch."""
        self._began = self._read_at = 0.0
        self._has_page = False

    def __len__(self) -> int:
        return self._waiting

    @property
    def waiting_bytes(self) -> int:
        """How large the frames were of those that are still to be handled."""
        return self._bytes

    @property
    def is_reading(self) -> bool:
        """Whether rows are being read that were missed."""
        return self._is_reading

    @property
    def is_idle(self) -> bool:
        """Whether nothing is read, nothing is to be read, and nothing waits."""
        return not (self._waiting or self._is_reading or self._before is not None)

    # -- what happens --------------------------------------------------------------------

    def take(self, payload: Any, mark: Mark | None, at: float, size: int = 0) -> bool:
        """A change came live; ``mark`` where reading could bring it too. False if dropped."""
        is_full = self._is_full(size)
        if mark is None:
            if is_full:
                return False
        elif self._is_reading:
            if is_full and self._will_be_read(mark.position):
                return False
            if self._is_full(size, 2):
                # Behind the reading, so that only its overlap may bring it. A queue without end
                # would be worse.
                self._again = True
                return False
        elif self._is_behind or is_full:
            # What follows a dropped row is read with it, so that the order stays.
            self._is_behind = True
            self._want()
            return False
        item = Handle(payload, mark, at, size=size)
        self._queue.append(item)
        self._waiting += 1
        self._bytes += size
        if self._is_reading and mark is not None:
            self._may_pass(mark, item)
        return True

    def _is_full(self, size: int, times: int = 1) -> bool:
        """Whether an event of this size has no place, or not where so many times as many have."""
        if self._waiting >= times * self._maxsize:
            return True
        return self._waiting > 0 and self._bytes + size > times * self._maxbytes

    def _will_be_read(self, position: Position) -> bool:
        """Whether the reading under way comes to this place later, so that it may be dropped."""
        if self._asked is not None:
            if self.ledger.is_behind(position):
                return False
            # The page may have been read before the row was there: see fetched.
            self._dropped = position if self._dropped is None else min(self._dropped, position)
            return True
        return position > self._page_end

    def _may_pass(self, mark: Mark, item: Handle) -> None:
        self._count += 1
        heapq.heappush(self._ahead, (mark.position, self._count, item))

    def feed_up(self) -> None:
        """Changes flow, from now on."""
        self._is_up = True
        self._want()

    def feed_lost(self) -> None:
        """Changes may be missed, from now on; what is being read ends with its page."""
        self._is_up = False
        self._losses += 1
        self._is_broken = self._is_reading

    def feed_over(self) -> None:
        """Changes were lost for good: what waits is handled without what would be read before."""
        self.feed_lost()
        self._is_over = True
        self._before = None

    def _want(self) -> None:
        if self._is_reading:
            self._again = True
        elif self._before is None:
            self._before = len(self._queue)

    # -- what to do ----------------------------------------------------------------------

    def next(self) -> Step:
        """The next step. Asked again without a report, it is the same one."""
        return self._next_read() if self._is_reading else self._next_live()

    def _next_live(self) -> Step:
        while self._before != 0 and self._queue:
            item = self._queue[0]
            if not self._is_duplicate(item):
                return item
            self._over(item)
        if self._before != 0 or not self._is_up:
            return None
        if not self.ledger.started:
            return Fetch(self.ledger.base_window())
        self._begin()
        return self._next_read()

    def _is_duplicate(self, item: Handle) -> bool:
        return item.mark is not None and self.ledger.is_known(item.mark)

    def _begin(self) -> None:
        self._before = None
        self._is_reading = True
        self._is_broken = self._is_behind = self._again = self._has_page = False
        self._page_end = ()
        self.ledger.begin()
        for item in self._queue:
            if item.mark is not None:
                self._may_pass(item.mark, item)

    def _next_read(self) -> Step:
        while True:
            passed = self._passed()
            if passed is not None:
                return passed
            if not self._rows:
                break
            mark, row = self._rows[0]
            if not self.ledger.is_handled(mark):
                return Handle(None, mark, self._read_at, row)
            self._past(mark)
        if self._has_page:
            self._has_page = False
            self.ledger.turn(self._began)
        if self._is_broken:
            self._stop(again=not self._is_over)
            return self._next_live()
        return Fetch(self.ledger.window())

    def _passed(self) -> Handle | None:
        """What waits in the queue though the reading has passed its place."""
        while self._ahead:
            position, _, item = self._ahead[0]
            if not item.is_over:
                if not self.ledger.is_behind(position):
                    return None
                if not self._is_duplicate(item):
                    return item
                self._over(item)
            heapq.heappop(self._ahead)
        return None

    def _past(self, mark: Mark) -> None:
        self._rows.popleft()
        self.ledger.advance(mark)

    def _stop(self, *, again: bool) -> None:
        self._is_reading = False
        self._ahead.clear()
        self._rows.clear()
        self.ledger.end()
        # Before what waits: that may be further on than the rows which are still to be read.
        self._before = 0 if again else None

    # -- what was done -------------------------------------------------------------------

    def handled(self, item: Handle) -> Notes:
        """The handler took it; what a store should keep of that."""
        notes = NO_NOTES
        if item.mark is not None:
            notes = self.ledger.handled(item.mark, item.at, read=item.row is not None)
        self._over(item)
        return notes

    def failed(self, item: Handle) -> None:
        """The handler raised: it is not handled, and the next reading brings it again."""
        self._over(item)

    def _over(self, item: Handle) -> None:
        if item.row is not None:
            assert item.mark is not None
            self._past(item.mark)
            return
        item.is_over = True
        self._waiting -= 1
        self._bytes -= item.size
        while self._queue and self._queue[0].is_over:
            self._queue.popleft()
            if self._before:
                self._before -= 1

    def asked(self, now: float) -> None:
        """A fetch begins."""
        self._asked = (self._losses, now)
        self._dropped = None

    def fetched(self, rows: Sequence[Mapping[str, Any]], now: float) -> Notes:
        """The rows of the fetch that was ``asked`` for."""
        assert self._asked is not None
        (losses, began), self._asked = self._asked, None
        if not self._is_reading:
            notes = self.ledger.base(rows, began)
            self._before = len(self._queue) if self._is_behind else None
            return notes
        if losses != self._losses:
            # Read after changes were lost: the ledger would believe too much.
            return NO_NOTES
        start = self.ledger.window().after
        marked = [(self.ledger.mark(row), row) for row in rows]
        page = [(mark, row) for mark, row in marked if mark is not None and mark.values != start]
        end = page[-1][0].position if page else None
        if self._dropped is not None and (end is None or end >= self._dropped):
            # A row within the page was dropped that the page may not have: read it once more.
            return NO_NOTES
        if end is None:
            self.ledger.turn(began, is_last=True)
            self._stop(again=self._is_broken or self._again)
            return NO_NOTES
        self._rows.extend(page)
        self._page_end, self._began, self._read_at = end, began, now
        self._has_page = True
        return NO_NOTES

    def fetch_failed(self) -> None:
        """Nothing came of it; the next step is the same fetch."""
        self._asked = None

    def give_up(self) -> None:
        """The rows cannot be read: go on with what comes live."""
        self._asked = None
        if self._is_reading:
            self._stop(again=False)
        self._before = None
        self._is_behind = False

"""The queue of one handler with a backfill: decides whether to handle, to read, or to wait.

The runner asks for the next ``Step``, does it and reports the result; live changes come in by
``add_live``. So events are handled one at a time and in one order:

1. the changes that came live before the feed was interrupted,
2. the missed rows, read page by page in the order of the cursor,
3. the changes that came live meanwhile, except those already read.

A live change for a place that the reading has passed is handled at once: it would be lost if the
process ended now. When the queue is full, new rows are dropped and read later.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .._protocol.channel_options import MAXBYTES
from .progress import Progress, RowPosition, SortKey, StoreUpdate, Window

__all__ = ["Backfiller", "Fetch", "Handle", "Step"]

NO_UPDATE = StoreUpdate({}, [])


@dataclass(slots=True, eq=False)
class Handle:
    """The step "call the handler": with a live change, or with a ``row`` that was read."""

    payload: Any
    position: RowPosition | None
    at: float
    row: Mapping[str, Any] | None = None
    size: int = 0
    """The bytes of the frame in which the change came."""
    is_done: bool = field(default=False, init=False)
    """True if it was handled out of turn, or must not be handled any more."""


class Fetch(NamedTuple):
    """The step "read rows": between ``fetch_started`` and ``fetch_done``."""

    window: Window


Step = Handle | Fetch | None
"""The next thing to do; None if there is nothing to do until something happens."""


class Backfiller:
    """The queue of one handler, and the readings in between. Calls no other code."""

    def __init__(self, progress: Progress, maxsize: int, maxbytes: int = MAXBYTES) -> None:
        self.progress: Progress = progress
        self._maxsize = maxsize
        self._maxbytes = maxbytes
        self._queue: deque[Handle] = deque()
        self._waiting = 0
        """The number of queued changes that are still to be handled."""
        self._bytes = 0
        """The size of their frames."""
        self._overtaken: list[tuple[SortKey, int, Handle]] = []
        """A heap, by place, of queued changes that the reading in progress may overtake."""
        self._count = 0
        self._changes_flow = self._is_closed = False
        self._losses = 0
        self._handle_first: int | None = None
        """The number of queued changes before the wanted reading; None if no reading is wanted."""
        self._must_read_dropped = False
        """True if rows were dropped that no reading in progress will bring."""
        self._is_reading = False
        self._is_interrupted = False
        """True if changes were lost since the reading began; it ends with its page."""
        self._read_again = False
        self._rows: deque[tuple[RowPosition, Mapping[str, Any]]] = deque()
        """The rows that are left of the last page."""
        self._page_end: SortKey = ()
        self._fetch: tuple[int, float] | None = None
        """The fetch in progress: the number of losses before it, and when it began."""
        self._dropped: SortKey | None = None
        """The first place of which a row was dropped during the fetch."""
        self._page_started = self._page_read = 0.0
        """The times at which the fetch of the last page began and ended."""
        self._has_page = False

    def __len__(self) -> int:
        return self._waiting

    @property
    def waiting_bytes(self) -> int:
        """The size of the frames of all changes that are still to be handled."""
        return self._bytes

    @property
    def is_reading(self) -> bool:
        """True while rows that were missed are being read."""
        return self._is_reading

    @property
    def is_idle(self) -> bool:
        """True if no reading is in progress or wanted, and nothing waits."""
        return not (self._waiting or self._is_reading or self._handle_first is not None)

    # -- reports of what happened ----------------------------------------------------------

    def add_live(
        self, payload: Any, position: RowPosition | None, at: float, size: int = 0
    ) -> bool:
        """Queues a live change; returns False if it was dropped.

        ``position`` is None for a change that no reading could bring.
        """
        is_full = self._is_full(size)
        if position is None:
            if is_full:
                return False
        elif self._is_reading:
            if is_full and self._will_be_read(position.sort_key):
                return False
            if self._is_full(size, 2):
                # The reading has passed this row, so that only the overlap of another reading
                # may bring it. A queue without a bound would be worse.
                self._read_again = True
                return False
        elif self._must_read_dropped or is_full:
            # A dropped row and all later rows are read together, which keeps their order.
            self._must_read_dropped = True
            self._request_read()
            return False
        item = Handle(payload, position, at, size=size)
        self._queue.append(item)
        self._waiting += 1
        self._bytes += size
        if self._is_reading and position is not None:
            self._add_overtaken(position, item)
        return True

    def _is_full(self, size: int, times: int = 1) -> bool:
        """Returns True if the queue with ``times`` its bounds has no room for this event."""
        if self._waiting >= times * self._maxsize:
            return True
        return self._waiting > 0 and self._bytes + size > times * self._maxbytes

    def _will_be_read(self, place: SortKey) -> bool:
        """Returns True if the reading in progress comes to this place, so it may be dropped."""
        if self._fetch is not None:
            if self.progress.is_behind(place):
                return False
            # The page may have been read before this row was there: see ``fetch_done``.
            self._dropped = place if self._dropped is None else min(self._dropped, place)
            return True
        return place > self._page_end

    def _add_overtaken(self, position: RowPosition, item: Handle) -> None:
        self._count += 1
        heapq.heappush(self._overtaken, (position.sort_key, self._count, item))

    def changes_started(self) -> None:
        """Changes flow from now on; those that were missed before must be read."""
        self._changes_flow = True
        self._request_read()

    def changes_interrupted(self) -> None:
        """Changes may be missed from now on; the reading in progress ends with its page."""
        self._changes_flow = False
        self._losses += 1
        self._is_interrupted = self._is_reading

    def channel_closed(self) -> None:
        """No changes follow: queued changes are handled without another reading before them."""
        self.changes_interrupted()
        self._is_closed = True
        self._handle_first = None

    def _request_read(self) -> None:
        if self._is_reading:
            self._read_again = True
        elif self._handle_first is None:
            self._handle_first = len(self._queue)

    # -- what to do ----------------------------------------------------------------------

    def next(self) -> Step:
        """Returns the next step; the same one until its result is reported."""
        return self._next_read() if self._is_reading else self._next_live()

    def _next_live(self) -> Step:
        while self._handle_first != 0 and self._queue:
            item = self._queue[0]
            if not self._is_duplicate(item):
                return item
            self._done(item)
        if self._handle_first != 0 or not self._changes_flow:
            return None
        if not self.progress.started:
            return Fetch(self.progress.start_window())
        self._begin()
        return self._next_read()

    def _is_duplicate(self, item: Handle) -> bool:
        return item.position is not None and self.progress.is_known(item.position)

    def _begin(self) -> None:
        self._handle_first = None
        self._is_reading = True
        self._is_interrupted = self._must_read_dropped = False
        self._read_again = self._has_page = False
        self._page_end = ()
        self.progress.begin()
        for item in self._queue:
            if item.position is not None:
                self._add_overtaken(item.position, item)

    def _next_read(self) -> Step:
        while True:
            overtaken = self._next_overtaken()
            if overtaken is not None:
                return overtaken
            if not self._rows:
                break
            position, row = self._rows[0]
            if not self.progress.is_handled(position):
                return Handle(None, position, self._page_read, row)
            self._advance(position)
        if self._has_page:
            self._has_page = False
            self.progress.page_done(self._page_started)
        if self._is_interrupted:
            self._end_reading(again=not self._is_closed)
            return self._next_live()
        return Fetch(self.progress.window())

    def _next_overtaken(self) -> Handle | None:
        """Returns a queued change whose place the reading has passed; None if there is none."""
        while self._overtaken:
            place, _, item = self._overtaken[0]
            if not item.is_done:
                if not self.progress.is_behind(place):
                    return None
                if not self._is_duplicate(item):
                    return item
                self._done(item)
            heapq.heappop(self._overtaken)
        return None

    def _advance(self, position: RowPosition) -> None:
        self._rows.popleft()
        self.progress.advance(position)

    def _end_reading(self, *, again: bool) -> None:
        self._is_reading = False
        self._overtaken.clear()
        self._rows.clear()
        self.progress.end()
        # The next reading goes before all queued changes, which may lie behind its rows.
        self._handle_first = 0 if again else None

    # -- results of steps ------------------------------------------------------------------

    def handled(self, item: Handle) -> StoreUpdate:
        """Records that an event was handled; returns the update for the store."""
        update = NO_UPDATE
        if item.position is not None:
            update = self.progress.handled(item.position, item.at, read=item.row is not None)
        self._done(item)
        return update

    def failed(self, item: Handle) -> None:
        """The handler raised. The next reading brings the event again, if it has a position."""
        self._done(item)

    def _done(self, item: Handle) -> None:
        if item.row is not None:
            assert item.position is not None
            self._advance(item.position)
            return
        item.is_done = True
        self._waiting -= 1
        self._bytes -= item.size
        while self._queue and self._queue[0].is_done:
            self._queue.popleft()
            if self._handle_first:
                self._handle_first -= 1

    def fetch_started(self, now: float) -> None:
        """A fetch begins."""
        self._fetch = (self._losses, now)
        self._dropped = None

    def fetch_done(self, rows: Sequence[Mapping[str, Any]], now: float) -> StoreUpdate:
        """Takes the rows that were read; returns the update for the store."""
        assert self._fetch is not None
        (losses, began), self._fetch = self._fetch, None
        if not self._is_reading:
            update = self.progress.set_start(rows, began)
            self._handle_first = len(self._queue) if self._must_read_dropped else None
            return update
        if losses != self._losses:
            # Changes were lost during the fetch. The rows of this page must not move the progress,
            # since earlier changes may be missing.
            return NO_UPDATE
        start = self.progress.window().after
        page: list[tuple[RowPosition, Mapping[str, Any]]] = []
        for row in rows:
            position = self.progress.position_of(row)
            if position is not None and position.values != start:
                page.append((position, row))
        end = page[-1][0].sort_key if page else None
        if self._dropped is not None and (end is None or end >= self._dropped):
            # The page may have been read before a row in it was dropped: read it once more.
            return NO_UPDATE
        if end is None:
            self.progress.page_done(began, is_last=True)
            self._end_reading(again=self._is_interrupted or self._read_again)
            return NO_UPDATE
        self._rows.extend(page)
        self._page_end, self._page_started, self._page_read = end, began, now
        self._has_page = True
        return NO_UPDATE

    def fetch_failed(self) -> None:
        """The fetch failed; the next step is the same fetch."""
        self._fetch = None

    def give_up(self) -> None:
        """The rows cannot be read: goes on with live changes only."""
        self._fetch = None
        if self._is_reading:
            self._end_reading(again=False)
        self._handle_first = None
        self._must_read_dropped = False

"""A registration that reads what it missed: the shell around ``Backfiller``.

One worker does everything in order: load what a store knows, handle, read, record. A handler
returns before its event is recorded, and it is recorded before the next one is handled: so a
program that is killed meets at most one event again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from .._handlers.handler import Registration, Reports
from .._payloads.postgres_change import BackfilledChange, PostgresChange, PostgresData
from .._payloads.row_conversion import convert_row
from .._printable import get_logger
from .._runtime.log_fields import facts
from .._runtime.outcome import Waiting
from ..errors import DecodeError, RealtimeError
from .backfill_stream import Feed, Unhandled
from .options import Backfill
from .pages import BackfillPage, ReadRow
from .planner import Backfiller, Fetch, Handle
from .postgrest import TableAccess, read_postgrest
from .progress import Mark, Notes
from .saved_progress import Memory

__all__ = ["CatchingUp", "catching_up"]

log: Final = get_logger("supabase_rt.backfill")

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0


class CatchupReports(Reports, Protocol):
    """Where one that catches up tells more than every registration does."""

    def client_event(self, name: str, *args: Any) -> None: ...
    def error(self, error: BaseException, event: Any = None, handler: Any = None) -> None: ...
    async def wait_for(self, fits: Callable[[Registration], bool]) -> None: ...


class CatchingUp(Registration):
    """A handler that also gets what its changes missed.

    ``read`` reads a page; ``page`` is the first one's pattern, ``event`` the kind of change that
    is listened to.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        reports: CatchupReports,
        *,
        backfill: Backfill,
        read: Callable[[BackfillPage], Coroutine[Any, Any, Any]],
        page: BackfillPage,
        event: str,
        name: str,
        timeout: float,
        **options: Any,
    ) -> None:
        super().__init__(handler, reports, **options)
        self.direct: Callable[[Any], Any] | None = None
        # Always by the worker: a plain function too is recorded before the next one is called.
        self._open_queue()
        assert self._maxsize is not None
        self._backfill = backfill
        self._read = read
        self._page = page
        self._event = event.upper()
        self._tell = reports
        self._memory = Memory(backfill.store, name, timeout)
        self._machine = Backfiller(backfill.ledger(), self._maxsize, self._maxbytes)
        self._is_over = False
        self._has_failed = self._is_released = self._is_followed = False
        self._feed = handler if isinstance(handler, Feed) else None
        self._failures = 0
        self._reading: asyncio.Future[Any] | None = None
        self._missed_since: float | None = None
        self.primed: Waiting = Waiting()
        self._not_primed: BaseException | None = None
        self.trouble: Exception | None = None
        """What kept it last from going on: its store, or the table."""

    @property
    def store_name(self) -> str:
        """The name under which a store knows it."""
        return self._memory.name

    @property
    def options(self) -> dict[str, Any]:
        return {**super().options, "backfill": self._backfill}

    @property
    def waiting(self) -> int:
        return len(self._machine)

    @property
    def waiting_bytes(self) -> int:
        return self._machine.waiting_bytes

    @property
    def keeps_queue(self) -> bool:
        return self._memory.is_lasting or not self._is_over

    # -- what the channel tells ----------------------------------------------------------

    @property
    def is_primed(self) -> bool:
        """Whether it is known where to begin, so that nothing that follows is missed."""
        return self._machine.ledger.started

    @property
    def not_primed(self) -> BaseException | None:
        """What stands in the way of that for good."""
        return self._not_primed

    def feed_up(self) -> None:
        """Changes flow."""
        if not self._ended:
            self._not_primed = None
            self._machine.feed_up()
            if self._stopping and self._worker is not None and not self._worker.done():
                # It is at a handler still that connected anew: another one follows it.
                self._is_followed = True
                self._worker.add_done_callback(self._follow)
            else:
                self._wake()

    def _follow(self, worker: asyncio.Task[None]) -> None:
        if self._is_followed and not (self._ended or worker.cancelled()):
            self._wake()

    def feed_lost(self) -> None:
        """Changes may be missed."""
        if self._missed_since is None:
            self._missed_since = time.time()
        self._machine.feed_lost()

    def feed_over(self) -> None:
        """Nobody listens any more, and nothing will be read.

        What came live behind a reading that was under way need not wait for it. A store would
        believe then that nothing lies before; there it comes again in the next life.
        """
        self._is_over = True
        if not self._memory.is_lasting:
            self._machine.feed_over()

    # -- on the reader's stack -----------------------------------------------------------

    def _enqueue(self, args: tuple[Any, ...]) -> None:
        change: PostgresChange = args[0]
        size = self.stopwatch.size
        if not self._machine.take(change, self._mark(change), time.time(), size):
            self._drops.add()
            if self._overflow == "close":
                self._end_overflowing()
                return
        self._wake()

    def _mark(self, change: PostgresChange) -> Mark | None:
        """Where the row stands, if reading could bring this change too."""
        data, ledger = change._data, self._machine.ledger
        if data.columns is not None and data.type != "DELETE":
            self._memory.saw(data.columns)
        if data.type == "DELETE" or (data.type == "UPDATE" and ledger.by_key):
            return None
        try:
            return ledger.mark(convert_row(data.columns, data.record, "raw"))
        except DecodeError:
            return None

    # -- in the worker -------------------------------------------------------------------

    async def work(self) -> None:
        """Do one step after the other, until told to stop and nothing is left."""
        while True:
            if not self._memory.is_loaded and not await self._load():
                return
            step = self._machine.next()
            is_ending = self._stopping or self._ended
            if is_ending and self._feed is not None:
                # Nobody may be reading the stream; what waits keeps until there is a link again.
                return
            if isinstance(step, Handle):
                await self._handle_one(step)
            elif is_ending:
                return
            elif step is None:
                await self._pause(None)
            else:
                await self._fetch(step)

    async def _pause(self, seconds: float | None) -> None:
        """Until something comes, but not longer."""
        self._wakeup = asyncio.get_running_loop().create_future()
        if self._stopping or self._ended:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wakeup

    async def _handle_one(self, step: Handle) -> None:
        change = step.payload if step.row is None else self._change(step.row)
        self._has_failed = self._is_released = False
        await self._handle((change,))
        if self._has_failed:
            if not self._is_released:
                self._machine.failed(step)
        else:
            await self._save(self._machine.handled(step))

    def failed(self, error: BaseException, event: Any) -> None:
        self._has_failed = True
        self._is_released = isinstance(error, Unhandled)
        if not self._is_released:
            super().failed(error, event)

    def _change(self, row: Any) -> BackfilledChange:
        """A row that was read, as the change that was missed."""
        # What happened to it nobody knows; a cursor that is no key says that something did.
        kind = "INSERT" if self._event == "INSERT" or self._machine.ledger.by_key else "UPDATE"
        text = row.text if isinstance(row, ReadRow) else None
        data = PostgresData(
            type=kind,
            schema=self._page.schema,
            table=self._page.table,
            columns=self._memory.columns,
            record=dict(row) if text is None else text,
            old_record={},
        )
        return BackfilledChange(data, self.types)

    # -- reading -------------------------------------------------------------------------

    async def _fetch(self, step: Fetch) -> None:
        window = step.window
        page = replace(self._page, after=window.after, limit=window.limit, newest=window.newest)
        self._machine.asked(time.time())
        # A task of its own, so that stop() can end it and nothing else.
        task = asyncio.get_running_loop().create_task(
            self._read(page), name=f"supabase_rt:backfill:{self._page.table}"
        )
        self._reading = task
        try:
            rows = await task
        except asyncio.CancelledError:
            self._machine.fetch_failed()
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                task.cancel()
                raise
            if not (self._stopping or self._ended):
                text = "the reading was cancelled by somebody else"
                await self._read_failed(RealtimeError(text, code="Cancelled", retryable=True))
        except Exception as exc:
            self._machine.fetch_failed()
            await self._read_failed(exc)
        else:
            await self._fetched(rows)
        finally:
            self._reading = None

    async def _fetched(self, rows: Any) -> None:
        self._failures = 0
        self.trouble = None
        was_reading, was_primed = self._machine.is_reading, self.is_primed
        try:
            notes = self._machine.fetched(rows, time.time())
        except (TypeError, AttributeError) as exc:
            self._machine.fetch_failed()
            await self._read_failed(exc)
            return
        await self._save(notes)
        if self.is_primed and not was_primed:
            self._missed_since = None
            self.primed.succeed()
        if was_reading and not self._machine.is_reading:
            self._tell_unreadable()

    def _tell_unreadable(self) -> None:
        """The rows are there again. What no row shows is told of."""
        since, self._missed_since = self._missed_since, None
        if since is None:
            return
        if self._event == "*":
            reason = "updates_deletes" if self._machine.ledger.by_key else "deletes"
            self._tell.client_event("gap", self.source, since, time.time(), reason)

    async def _read_failed(self, error: Exception) -> None:
        self._failures += 1
        self.trouble = error
        self._tell.error(error, None, self.handler)
        is_final = isinstance(error, RealtimeError) and not error.retryable
        if is_final:
            words = "%s: cannot read what was missed, going on without: %s"
            log.error(words, self.source, error, extra=self._facts(error))
            self._give_up(error)
            return
        words = "%s: cannot read what was missed: %s"
        log.warning(words, self.source, error, extra=self._facts(error))
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures - 1, 20))
        await self._pause_at_least(pause)

    async def _pause_at_least(self, seconds: float) -> None:
        """What comes live wakes the worker, and must not make it ask again at once."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0 and not (self._stopping or self._ended):
            await self._pause(left)

    def _facts(self, error: Exception) -> dict[str, Any]:
        table, attempt = self._page.table, self._failures or None
        return facts(error, topic=self.source, handler=self.name, table=table, attempt=attempt)

    def _give_up(self, error: Exception) -> None:
        self._machine.give_up()
        since, self._missed_since = self._missed_since, None
        now = time.time()
        self._tell.client_event(
            "gap", self.source, now if since is None else since, now, "backfill"
        )
        if not self.is_primed:
            self._not_primed = error
            self.primed.fail(error)

    # -- remembering ---------------------------------------------------------------------

    async def _load(self) -> bool:
        """Take over what the store knows; False where the worker should end."""
        await self._wait_for_predecessor()
        while not (self._stopping or self._ended):
            try:
                if not await self._interruptible(self._memory.load(self._machine.ledger), "load"):
                    continue
            except Exception as exc:
                self.trouble = exc
                self._tell.error(exc, None, self.handler)
                if isinstance(exc, RealtimeError) and not exc.retryable:
                    words = "%s: cannot load what was handled before, going on without: %s (%s)"
                    log.error(words, self.source, exc, exc.hint, extra=self._facts(exc))
                    self._memory.leave_store()
                    self._give_up(exc)
                    return True
                words = "%s: cannot load what was handled before"
                log.exception(words, self.source, extra=self._facts(exc))
                self._failures += 1
                await self._pause_at_least(min(LONGEST_PAUSE, FIRST_PAUSE * self._failures))
            else:
                self._failures = 0
                self.trouble = None
                if self.is_primed:
                    # Missed since the last life, not since this one began.
                    self._missed_since = self._machine.ledger.heard_until
                    self.primed.succeed()
                return True
        return False

    async def _wait_for_predecessor(self) -> None:
        """Of a channel that was left, one may still be handling, and noting, what it had."""

        def fits(other: Registration) -> bool:
            if not isinstance(other, CatchingUp) or other is self or not other._is_over:
                return False
            return other._memory.shares_notes(self._memory)

        await self._interruptible(self._tell.wait_for(fits), "wait")

    async def _interruptible(self, work: Coroutine[Any, Any, None], what: str) -> bool:
        """Do ``work`` in a task of its own, as for reading; False where it was cancelled."""
        name = f"supabase_rt:backfill:{what}:{self._page.table}"
        task = self._reading = asyncio.get_running_loop().create_task(work, name=name)
        try:
            await asyncio.wait([task])
        finally:
            self._reading = None
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        return not task.cancelled() and task.result() is None

    async def _save(self, notes: Notes) -> None:
        try:
            await self._memory.save(notes)
        except Exception as exc:
            self._tell.error(exc, None, self.handler)
            words = "%s: cannot record what was handled"
            log.exception(words, self.source, extra=self._facts(exc))

    # -- the end -------------------------------------------------------------------------

    def stop(self) -> asyncio.Task[None] | None:
        self._is_followed = False
        worker = super().stop()
        if self._feed is not None:
            self._feed.release()
        if self._reading is not None:
            self._reading.cancel()
        return worker

    def end(self) -> None:
        super().end()
        self.feed_over()
        if self._reading is not None:
            self._reading.cancel()

    def discard_queue(self) -> int:
        """How many wait; they stay, for the next connection or the next reading."""
        return len(self._machine)


# -- making one ----------------------------------------------------------------------------


def catching_up(
    reports: CatchupReports,
    tables: TableAccess,
    topic: str,
    filter: dict[str, Any],
    handler: Callable[..., Any],
    backfill: Backfill,
    taken: Collection[str],
    **options: Any,
) -> CatchingUp:
    """A registration for a binding; ``taken`` are the store names of the others.

    Raises ``ValueError`` where the binding or the URL leaves open what to read.
    """
    page = backfill.page(filter)
    event = str(filter["event"])
    default = f"{topic} {page.schema}.{page.table} {event.upper()} {page.filter or ''}".rstrip()
    return CatchingUp(
        handler,
        reports,
        backfill=backfill,
        read=_reader(tables, backfill),
        page=page,
        event=event,
        name=_free(backfill.name or default, taken),
        timeout=tables.timeout,
        source=topic,
        **options,
    )


def _free(name: str, taken: Collection[str]) -> str:
    """Two equal registrations remember apart, by their order."""
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name} #{count}"
    return found


def _reader(
    tables: TableAccess, backfill: Backfill
) -> Callable[[BackfillPage], Coroutine[Any, Any, Sequence[Mapping[str, Any]]]]:
    fetch = backfill.fetch
    if fetch is not None:
        own = fetch

        async def read_elsewhere(page: BackfillPage) -> Sequence[Mapping[str, Any]]:
            return await own(page)

        return read_elsewhere
    url = backfill.url or tables.client.endpoint.tables_url
    if url is None:
        raise ValueError(
            "the URL of PostgREST does not follow from that of Realtime; give Backfill(url=...)"
        )
    return functools.partial(read_postgrest, tables, url.rstrip("/"))

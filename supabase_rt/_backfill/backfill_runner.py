"""The runner of a handler with ``backfill=``: also brings the rows whose changes were missed.

One task does everything in order: it loads what a store knows, handles, reads, and records. An
event is recorded after its handler has returned, and before the next event is handled. So a
program that is killed meets at most one event again.

``Backfiller`` decides what is next; this module does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from .._handlers.handler import Handler, Reports, event_of, invoke
from .._handlers.queue_bounds import QueueLimits
from .._handlers.runners import Worker, overflow_policy
from .._payloads.postgres_change import BackfilledChange, PostgresChange
from .._payloads.postgres_data import PostgresData
from .._payloads.row_conversion import convert_row
from .._printable import get_logger
from .._protocol.channel_options import MAXBYTES
from .._runtime.log_fields import facts
from .._runtime.outcome import Waiters
from ..errors import DecodeError, RealtimeError
from .backfill_stream import StreamHandler, Unhandled
from .options import Backfill
from .pages import BackfillPage, ReadRow
from .planner import Backfiller, Fetch, Handle
from .postgrest import TableAccess, read_postgrest
from .progress import RowPosition, StoreUpdate
from .saved_progress import SavedProgress

__all__ = ["BackfillReports", "BackfillRunner", "backfill_handler"]

log: Final = get_logger("supabase_rt.backfill")

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0

Read = Callable[[BackfillPage], Coroutine[Any, Any, Any]]


class BackfillReports(Reports, Protocol):
    """The owner of handlers, with the calls that only a backfill needs."""

    def client_event(self, name: str, *args: Any) -> None: ...
    def error(self, error: BaseException, event: Any = None, handler: Any = None) -> None: ...
    async def wait_for(self, fits: Callable[[Handler], bool]) -> None: ...


class BackfillRunner:
    """Handles live changes and the rows that were missed, one at a time and each once."""

    is_inline = False

    def __init__(
        self,
        handler: Handler,
        reports: BackfillReports,
        *,
        backfill: Backfill,
        read: Read,
        page: BackfillPage,
        event: str,
        saved: SavedProgress,
    ) -> None:
        limits = handler.limits
        assert limits.maxsize is not None
        self._handler = handler
        self._reports = reports
        self._backfill = backfill
        self._read = read
        self._page = page
        """The first page to request; later pages differ only in where they begin."""
        self._event = event.upper()
        """The kind of change that is listened to."""
        self._saved = saved
        self._planner = Backfiller(backfill.new_progress(), limits.maxsize, limits.maxbytes)
        self._overflow = overflow_policy(handler)
        self._worker = Worker(handler)
        function = handler.function
        self._stream_handler = function if isinstance(function, StreamHandler) else None
        self.is_closed: bool = False
        """True if its channel was closed or its handler was removed."""
        self._restart_after_worker = False
        self._failures = 0
        self._read_task: asyncio.Future[Any] | None = None
        self._missed_since: float | None = None
        self.start_known: Waiters = Waiters()
        self._start_error: BaseException | None = None
        self.last_problem: Exception | None = None
        """The last error of its store or its table; None if all is well."""

    @property
    def store_name(self) -> str:
        """The name under which a store keeps its progress."""
        return self._saved.name

    @property
    def options(self) -> dict[str, Any]:
        return {"backfill": self._backfill}

    @property
    def waiting(self) -> int:
        return len(self._planner)

    @property
    def waiting_bytes(self) -> int:
        return self._planner.waiting_bytes

    @property
    def is_idle(self) -> bool:
        return self._worker.is_idle

    @property
    def queue_survives_shutdown(self) -> bool:
        return self._saved.has_store or not self.is_closed

    # -- reports of the channel ----------------------------------------------------------

    @property
    def is_start_known(self) -> bool:
        """True if the place to begin is known, so no later change can be missed."""
        return self._planner.progress.started

    @property
    def start_error(self) -> BaseException | None:
        """The error that keeps the place to begin unknown for ever; None without such an error."""
        return self._start_error

    def changes_started(self) -> None:
        """Changes flow from now on."""
        if self._handler.has_ended:
            return
        self._start_error = None
        self._planner.changes_started()
        task = self._worker.task
        if self._worker.is_stopping and task is not None:
            # The task was told to end and is still in a handler, which may have reconnected.
            self._restart_after_worker = True
            task.add_done_callback(self._restart)
        else:
            self._worker.start_or_wake()

    def _restart(self, task: asyncio.Task[None]) -> None:
        if self._restart_after_worker and not (self._handler.has_ended or task.cancelled()):
            self._worker.start_or_wake()

    def changes_interrupted(self) -> None:
        """Changes may be missed from now on."""
        if self._missed_since is None:
            self._missed_since = time.time()
        self._planner.changes_interrupted()

    def channel_closed(self) -> None:
        """No changes follow, and nothing will be read.

        Without a store, live changes behind the reading in progress need not wait for it. With a
        store they wait: the store would record that no row before them is missing. The next run of
        the program gets them again.
        """
        self.is_closed = True
        if not self._saved.has_store:
            self._planner.channel_closed()

    # -- on the reader's stack -----------------------------------------------------------

    def put(self, args: Any) -> None:
        change: PostgresChange = event_of(args)
        size = self._handler.stopwatch.size
        if not self._planner.add_live(change, self._position_of(change), time.time(), size):
            self._overflow.drop_newest()
            if self._handler.has_ended:
                return
        self._worker.start_or_wake()

    def _position_of(self, change: PostgresChange) -> RowPosition | None:
        """Returns where the row stands; None if reading could not bring this change."""
        data, progress = change._data, self._planner.progress
        if data.columns is not None and data.type != "DELETE":
            self._saved.columns_seen(data.columns)
        if data.type == "DELETE" or (data.type == "UPDATE" and progress.by_key):
            return None
        try:
            return progress.position_of(convert_row(data.columns, data.record, "raw"))
        except DecodeError:
            return None

    # -- in the task ---------------------------------------------------------------------

    async def work(self) -> None:
        while True:
            if not self._saved.is_loaded and not await self._load():
                return
            step = self._planner.next()
            must_end = self._worker.must_end
            if must_end and self._stream_handler is not None:
                # Perhaps nobody reads the stream; its events wait for the next connection.
                return
            if isinstance(step, Handle):
                await self._handle(step)
            elif must_end:
                return
            elif step is None:
                await self._sleep(None)
            else:
                await self._fetch(step)

    async def _sleep(self, seconds: float | None) -> None:
        """Sleeps until something happens, at most this long."""
        if self._worker.must_end:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._worker.sleep()

    async def _handle(self, step: Handle) -> None:
        change = step.payload if step.row is None else self._change_from(step.row)
        error = await invoke(self._handler, (change,))
        if error is None:
            await self._save(self._planner.handled(step))
        elif not isinstance(error, Unhandled):
            self._handler.failed(error, change)
            self._planner.failed(step)

    def _change_from(self, row: Any) -> BackfilledChange:
        """Returns a row that was read as the change that was missed."""
        # A row does not show which change was missed. If the cursor is not part of the key, the
        # change was an update.
        is_new = self._event == "INSERT" or self._planner.progress.by_key
        text = row.text if isinstance(row, ReadRow) else None
        data = PostgresData(
            type="INSERT" if is_new else "UPDATE",
            schema=self._page.schema,
            table=self._page.table,
            columns=self._saved.columns,
            record=dict(row) if text is None else text,
            old_record={},
        )
        return BackfilledChange(data, self._handler.conversion)

    # -- reading -------------------------------------------------------------------------

    async def _fetch(self, step: Fetch) -> None:
        window = step.window
        page = replace(self._page, after=window.after, limit=window.limit, newest=window.newest)
        self._planner.fetch_started(time.time())
        # A task of its own: stop() can cancel the reading without cancelling a handler.
        task = asyncio.get_running_loop().create_task(
            self._read(page), name=f"supabase_rt:backfill:{self._page.table}"
        )
        self._read_task = task
        try:
            rows = await task
        except asyncio.CancelledError:
            self._planner.fetch_failed()
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                task.cancel()
                raise
            if not self._worker.must_end:
                text = "the reading was cancelled by somebody else"
                await self._read_failed(RealtimeError(text, code="Cancelled", retryable=True))
        except Exception as exc:
            self._planner.fetch_failed()
            await self._read_failed(exc)
        else:
            await self._fetched(rows)
        finally:
            self._read_task = None

    async def _fetched(self, rows: Any) -> None:
        self._failures = 0
        self.last_problem = None
        was_reading, was_start_known = self._planner.is_reading, self.is_start_known
        try:
            update = self._planner.fetch_done(rows, time.time())
        except (TypeError, AttributeError) as exc:
            self._planner.fetch_failed()
            await self._read_failed(exc)
            return
        await self._save(update)
        if self.is_start_known and not was_start_known:
            self._missed_since = None
            self.start_known.succeed()
        if was_reading and not self._planner.is_reading:
            self._report_unreadable()

    def _report_unreadable(self) -> None:
        """All missed rows are read: reports the changes that no row shows as a gap."""
        since, self._missed_since = self._missed_since, None
        if since is None:
            return
        if self._event == "*":
            reason = "updates_deletes" if self._planner.progress.by_key else "deletes"
            self._report_gap(since, reason)

    def _report_gap(self, since: float, reason: str) -> None:
        self._reports.client_event("gap", self._handler.source, since, time.time(), reason)

    async def _read_failed(self, error: Exception) -> None:
        self._failures += 1
        self._report_problem(error)
        source = self._handler.source
        if isinstance(error, RealtimeError) and not error.retryable:
            words = "%s: cannot read what was missed, going on without: %s"
            log.error(words, source, error, extra=self._facts(error))
            self._give_up(error)
            return
        words = "%s: cannot read what was missed: %s"
        log.warning(words, source, error, extra=self._facts(error))
        await self._pause(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures - 1, 20)))

    def _report_problem(self, error: Exception) -> None:
        self.last_problem = error
        self._reports.error(error, None, self._handler.function)

    async def _pause(self, seconds: float) -> None:
        """Waits this long: live changes wake the task, and must not make it read at once."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0 and not self._worker.must_end:
            await self._sleep(left)

    def _facts(self, error: Exception) -> dict[str, Any]:
        handler, table, attempt = self._handler, self._page.table, self._failures or None
        return facts(
            error, topic=handler.source, handler=handler.name, table=table, attempt=attempt
        )

    def _give_up(self, error: Exception) -> None:
        self._planner.give_up()
        since, self._missed_since = self._missed_since, None
        self._report_gap(time.time() if since is None else since, "backfill")
        if not self.is_start_known:
            self._start_error = error
            self.start_known.fail(error)

    # -- the store -----------------------------------------------------------------------

    async def _load(self) -> bool:
        """Takes over the notes of the store; returns False if the task should end."""
        await self._wait_for_predecessor()
        source = self._handler.source
        while not self._worker.must_end:
            try:
                loading = self._saved.load(self._planner.progress)
                if not await self._interruptible(loading, "load"):
                    continue
            except Exception as exc:
                self._report_problem(exc)
                if isinstance(exc, RealtimeError) and not exc.retryable:
                    words = "%s: cannot load what was handled before, going on without: %s (%s)"
                    log.error(words, source, exc, exc.hint, extra=self._facts(exc))
                    self._saved.abandon_store()
                    self._give_up(exc)
                    return True
                words = "%s: cannot load what was handled before"
                log.exception(words, source, extra=self._facts(exc))
                self._failures += 1
                await self._pause(min(LONGEST_PAUSE, FIRST_PAUSE * self._failures))
            else:
                self._failures = 0
                self.last_problem = None
                if self.is_start_known:
                    # The gap began in the last run of the program, not at this start.
                    self._missed_since = self._planner.progress.heard_until
                    self.start_known.succeed()
                return True
        return False

    async def _wait_for_predecessor(self) -> None:
        """Waits for a handler of a closed channel that may still write the same notes."""

        def fits(other: Handler) -> bool:
            runner = other.runner
            if not isinstance(runner, BackfillRunner) or runner is self:
                return False
            return runner.is_closed and runner.shares_notes(self._saved)

        await self._interruptible(self._reports.wait_for(fits), "wait")

    def shares_notes(self, saved: SavedProgress) -> bool:
        """Returns True if its progress is kept in the same place as ``saved``."""
        return self._saved.shares_notes(saved)

    async def _interruptible(self, work: Coroutine[Any, Any, None], what: str) -> bool:
        """Does ``work`` in a task that ``stop`` may cancel; returns False if it was cancelled."""
        name = f"supabase_rt:backfill:{what}:{self._page.table}"
        task = self._read_task = asyncio.get_running_loop().create_task(work, name=name)
        try:
            await asyncio.wait([task])
        finally:
            self._read_task = None
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        return not task.cancelled() and task.result() is None

    async def _save(self, update: StoreUpdate) -> None:
        try:
            await self._saved.save(update)
        except Exception as exc:
            self._reports.error(exc, None, self._handler.function)
            words = "%s: cannot record what was handled"
            log.exception(words, self._handler.source, extra=self._facts(exc))

    # -- the end -------------------------------------------------------------------------

    def stop(self) -> asyncio.Task[None] | None:
        self._restart_after_worker = False
        task = self._worker.stop()
        if self._stream_handler is not None:
            self._stream_handler.release()
        self._cancel_reading()
        return task

    def handler_ended(self) -> None:
        self._worker.wake()
        self.channel_closed()
        self._cancel_reading()

    def _cancel_reading(self) -> None:
        if self._read_task is not None:
            self._read_task.cancel()

    def discard(self) -> int:
        """Returns the number of events that wait. They stay for the next connection."""
        return len(self._planner)

    def forget_loop(self) -> None:
        self._worker.forget_loop()


# -- making a handler ----------------------------------------------------------------------


def backfill_handler(
    reports: BackfillReports,
    tables: TableAccess,
    topic: str,
    filter: dict[str, Any],
    function: Callable[..., Any],
    backfill: Backfill,
    taken: Collection[str],
    *,
    maxsize: int = 1000,
    maxbytes: int = MAXBYTES,
    overflow: str = "drop_oldest",
    **options: Any,
) -> Handler:
    """Makes the handler of a binding; ``taken`` are the store names of the channel's others.

    Raises ``ValueError`` if the binding or the URL does not say what to read.
    """
    page = backfill.page(filter)
    event = str(filter["event"])
    default = f"{topic} {page.schema}.{page.table} {event.upper()} {page.filter or ''}".rstrip()
    name = _free_name(backfill.name or default, taken)
    make_runner = functools.partial(
        BackfillRunner,
        reports=reports,
        backfill=backfill,
        read=_reader(tables, backfill),
        page=page,
        event=event,
        saved=SavedProgress(backfill.store, name, tables.timeout),
    )
    limits = QueueLimits(maxsize, maxbytes, overflow)
    return Handler(function, reports, make_runner, source=topic, limits=limits, **options)


def _free_name(name: str, taken: Collection[str]) -> str:
    """Returns a name of its own for each of several equal handlers, by their order."""
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

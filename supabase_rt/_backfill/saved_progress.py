"""What a registration that catches up remembers in a store, across restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

from .._runtime.background_tasks import TooLong, in_time
from .._stores.protocols import BackfillStore
from .._wire.json_codec import plain
from ..errors import RealtimeError, TimedOut
from .progress import Ledger, Notes

__all__ = ["Memory"]

T = TypeVar("T")

COLUMNS: Final = "columns"
"""The note that keeps the types of the columns, for rows that are read after a restart."""


class Memory:
    """The notes of one registration in ``store``, under its ``name``; without a store nothing."""

    def __init__(self, store: BackfillStore | None, name: str, timeout: float) -> None:
        self.name = name
        # Of some it is known that they take longer before they raise.
        self._timeout = max(timeout, float(getattr(store, "patience", 0.0)))
        self.is_loaded: bool = store is None
        self._store = store
        self._unsaved = Notes({}, [])
        self._columns: Any = None
        self._seen: Any = None

    @property
    def columns(self) -> Any:
        """The types of the columns, where a change has ever told them."""
        return self._columns if self._seen is None else self._seen

    def saw(self, columns: Any) -> None:
        """A change told them; on the reader's stack, so they are looked at when notes are saved."""
        self._seen = columns

    def shares_notes(self, other: Memory) -> bool:
        """Whether the other one keeps its notes in the same place."""
        return self._store is other._store and self.name == other.name

    @property
    def is_lasting(self) -> bool:
        """Whether what is noted outlives the program."""
        return self._store is not None

    async def load(self, ledger: Ledger) -> None:
        """Give ``ledger`` what the store knows.

        Raises what the store does, ``TimedOut`` where it does nothing, and a final
        ``RealtimeError`` for notes that do not fit.
        """
        assert self._store is not None
        notes = dict(await self._in_time(self._store.load(self.name), "load"))
        try:
            columns = json.loads(notes.pop(COLUMNS, "null"))
            ledger.restore(notes)
        except (ValueError, TypeError) as exc:
            by = ", ".join(ledger.columns)
            raise RealtimeError(
                f"the notes of {self.name!r} in the store are not those of a backfill by {by}",
                code="StoredNotes",
                retryable=False,
                hint="after a change of cursor= or key= take another Backfill(name=...), or "
                "remove what the store has of the old one",
            ) from exc
        self._columns = columns
        self.is_loaded = True

    def leave_store(self) -> None:
        """Go on as without one; what it has stays as it is."""
        self._store, self.is_loaded = None, True

    async def save(self, notes: Notes) -> None:
        """Record ``notes``. What the store refuses by raising is kept for the next time."""
        if self._store is None:
            return
        put = {**self._unsaved.put, **notes.put}
        remove = [*self._unsaved.remove, *notes.remove]
        self._note_columns(put)
        if not put and not remove:
            return
        # Cancelled, too: until it is recorded a restart would bring the event again.
        self._unsaved = Notes(put, remove)
        await self._in_time(self._store.save(self.name, put, remove), "save")
        self._unsaved = Notes({}, [])

    async def _in_time(self, work: Awaitable[T], call: str) -> T:
        """What the store returns, if it does so in time; also of one that will not be cancelled."""
        try:
            task = await in_time(work, self._timeout, f"store:{call}")
        except TooLong:
            task = None
        if task is None:
            raise TimedOut(
                f"the store did not {call} the notes of {self.name!r} within {self._timeout:g} s",
                code="StoreTimedOut",
                hint="see to what the store waits for; the client tries again by itself",
            )
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            return task.result()
        if isinstance(error, Exception):
            raise error
        # Let through, it would end the worker, as if that had been meant.
        text = f"the store raised {type(error).__name__}"
        raise RealtimeError(text, code="StoreFailed", retryable=True)

    def _note_columns(self, put: dict[str, str]) -> None:
        seen, self._seen = self._seen, None
        if seen is None:
            return
        columns = plain(seen)
        if columns and columns != self._columns:
            self._columns = columns
            put[COLUMNS] = json.dumps(columns)

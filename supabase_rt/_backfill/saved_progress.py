"""The progress of one handler in a store, which outlives the program."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

from .._runtime.background_tasks import TooLong, in_time
from .._stores.protocols import BackfillStore
from .._wire.json_codec import loads, plain
from ..errors import DecodeError, RealtimeError, TimedOut
from .progress import Progress, StoreUpdate

__all__ = ["SavedProgress"]

T = TypeVar("T")

COLUMNS: Final = "columns"
"""The key of the column types, which are needed for rows that are read after a restart."""


class SavedProgress:
    """The notes of one handler in ``store``, under ``name``; does nothing without a store."""

    def __init__(self, store: BackfillStore | None, name: str, timeout: float) -> None:
        self.name: str = name
        # Some stores say that they may take longer before they raise.
        self._timeout = max(timeout, float(getattr(store, "patience", 0.0)))
        self.is_loaded: bool = store is None
        self._store = store
        self._unsaved = StoreUpdate({}, [])
        self._columns: Any = None
        self._new_columns: Any = None

    @property
    def columns(self) -> Any:
        """The types of the columns; None until a change has brought them."""
        return self._columns if self._new_columns is None else self._new_columns

    def columns_seen(self, columns: Any) -> None:
        """A change brought these column types.

        This runs on the reader's stack, so they are only compared when notes are saved.
        """
        self._new_columns = columns

    def shares_notes(self, other: SavedProgress) -> bool:
        """Returns True if ``other`` keeps its notes in the same place."""
        return self._store is other._store and self.name == other.name

    @property
    def has_store(self) -> bool:
        """True if the progress outlives the program."""
        return self._store is not None

    async def load(self, progress: Progress) -> None:
        """Gives ``progress`` the notes of the store.

        Raises the error of the store, ``TimedOut`` without an answer, or a final ``RealtimeError``
        for unsuitable notes.
        """
        assert self._store is not None
        notes = dict(await self._in_time(self._store.load(self.name), "load"))
        try:
            columns = _restore(progress, notes)
        except (ValueError, TypeError) as exc:
            by = ", ".join(progress.columns)
            raise RealtimeError(
                f"the notes of {self.name!r} in the store are not those of a backfill by {by}",
                code="StoredNotes",
                retryable=False,
                hint="after a change of cursor= or key= take another Backfill(name=...), or "
                "remove what the store has of the old one",
            ) from exc
        self._columns = columns
        self.is_loaded = True

    def abandon_store(self) -> None:
        """Goes on without the store, whose notes stay as they are."""
        self._store, self.is_loaded = None, True

    async def save(self, update: StoreUpdate) -> None:
        """Records ``update``. Raises the error of the store; the next call saves it then."""
        if self._store is None:
            return
        put = {**self._unsaved.put, **update.put}
        remove = [*self._unsaved.remove, *update.remove]
        self._put_columns(put)
        if not put and not remove:
            return
        # Kept even when the call is cancelled: otherwise a restart would bring the event again.
        self._unsaved = StoreUpdate(put, remove)
        await self._in_time(self._store.save(self.name, put, remove), "save")
        self._unsaved = StoreUpdate({}, [])

    async def _in_time(self, work: Awaitable[T], call: str) -> T:
        """Returns the result of a store's call; bounded even if the call ignores cancellation."""
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
        # A CancelledError raised by the store would end the worker as if the worker were cancelled.
        text = f"the store raised {type(error).__name__}"
        raise RealtimeError(text, code="StoreFailed", retryable=True)

    def _put_columns(self, put: dict[str, str]) -> None:
        new, self._new_columns = self._new_columns, None
        if new is None:
            return
        columns = plain(new)
        if columns and columns != self._columns:
            self._columns = columns
            put[COLUMNS] = json.dumps(columns)


def _restore(progress: Progress, notes: dict[str, str]) -> Any:
    """Gives the notes to ``progress`` and returns the column types.

    Raises ``ValueError`` or ``TypeError`` for notes that are not those of this progress.
    """
    for key, note in notes.items():
        if not (isinstance(key, str) and isinstance(note, str)):
            raise TypeError("a note in the store is not text")
    try:
        columns = loads(notes.pop(COLUMNS, "null"))
    except DecodeError as exc:
        raise ValueError("the column types in the store are not JSON") from exc
    progress.restore(notes)
    return columns

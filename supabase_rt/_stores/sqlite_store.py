"""Where a backfill remembers, across restarts of the program, what was handled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import threading
import time
import weakref
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from .._runtime.log_fields import facts

if TYPE_CHECKING:
    import sqlite3
from .._printable import get_logger

__all__ = ["SqliteStore"]

log: Final = get_logger("supabase_rt.backfill")

PRIVATE: Final = 0o600
OTHERS: Final = 0o077
"""The rights of all but the owner."""

_making: Final = threading.Lock()
"""Held while a file is made, so that no other store has it open by then."""

TIMEOUT = 30.0
"""Seconds that somebody else may hold the file."""
SCHEMA = """
create table if not exists notes (
    name text not null, note text not null, value text not null, primary key (name, note)
) without rowid
"""


class SqliteStore:
    """Notes in an SQLite file, written in worker threads; may serve any number of channels.

    What was saved survives the end of the process, also by a kill. ``path`` is created where it is
    missing, and only its owner may read it; a file that others may read is closed to them, which
    the log says. Close it with ``close()``, or leave that to the end of the program.
    """

    patience: Final = TIMEOUT + 5.0
    """Seconds after which it is certain that a call does not end by itself."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._closing: weakref.finalize[[], SqliteStore]

    def __repr__(self) -> str:
        return f"SqliteStore({self._path!r})"

    async def load(self, name: str) -> dict[str, str]:
        """All notes of a name."""
        return await asyncio.to_thread(self._load, name)

    async def save(self, name: str, put: Mapping[str, str], remove: Collection[str]) -> None:
        """Put and remove notes in one transaction."""
        await asyncio.to_thread(self._save, name, dict(put), list(remove))

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                self._closing.detach()
                connection.close()

    def _open(self) -> sqlite3.Connection:
        """The connection; the lock is held."""
        if self._connection is None:
            import sqlite3

            with _making:
                _keep_private(self._path)
                found = sqlite3.connect(self._path, timeout=TIMEOUT, check_same_thread=False)
            try:
                _log_ahead(found)
                found.execute("pragma synchronous = normal")
                with found:
                    found.execute(SCHEMA)
            except BaseException:
                found.close()
                raise
            self._connection = found
            # Not __del__: at the end of a program Python 3.13 may take the connection first.
            self._closing = weakref.finalize(self, found.close)
        return self._connection

    def _load(self, name: str) -> dict[str, str]:
        with self._lock:
            rows = self._open().execute("select note, value from notes where name = ?", (name,))
            return dict(rows.fetchall())

    def _save(self, name: str, put: dict[str, str], remove: list[str]) -> None:
        with self._lock, self._open() as connection:
            connection.executemany(
                "delete from notes where name = ? and note = ?", [(name, note) for note in remove]
            )
            connection.executemany(
                "insert into notes values (?, ?, ?)"
                " on conflict (name, note) do update set value = excluded.value",
                [(name, note, value) for note, value in put.items()],
            )


def _keep_private(path: str) -> None:
    """Have nobody but the owner read the file, and the ones that SQLite puts beside it.

    SQLite gives these the rights of the file itself, so it has to be right before it is opened.
    """
    if path in ("", ":memory:") or os.name != "posix":
        return
    # Where it cannot be made, SQLite says why. One that is there is never opened and closed
    # here: that would take the locks of every other connection of this process from it.
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
    for suffix in ("", "-wal", "-shm", "-journal"):
        _close_to_others(path + suffix)


def _close_to_others(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode) or not mode & OTHERS:
        return
    try:
        os.chmod(path, stat.S_IMODE(mode) & ~OTHERS)
    except OSError as exc:
        words = "%s is open to other users of this machine, and not ours to close to them"
        log.warning(words, path, extra=facts(exc))
    else:
        log.warning("%s was open to other users of this machine; no longer", path, extra=facts())


def _log_ahead(connection: sqlite3.Connection) -> None:
    """A commit then costs no wait for the disk, and still outlives the process.

    SQLite does not wait where two begin with it at once, so that is done here.
    """
    import sqlite3

    end = time.monotonic() + TIMEOUT
    while True:
        try:
            connection.execute("pragma journal_mode = wal")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return

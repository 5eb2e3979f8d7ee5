"""The store in an SQLite file."""

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
"""The permissions of all users but the owner."""

_making: Final = threading.Lock()
"""Held while a file is made and opened, so that no other store opens it in between."""

TIMEOUT = 30.0
"""Seconds for which another process may lock the file."""
SCHEMA = """
create table if not exists notes (
    name text not null, note text not null, value text not null, primary key (name, note)
) without rowid
"""


class SqliteStore:
    """Keeps notes in an SQLite file; serves any number of channels.

    Saved notes survive the end of the process, even by a kill. The file at ``path`` is created if
    it is missing, and only its owner may read it. If others may read an existing file, that right
    is taken from them and logged. ``close()`` closes it, or the end of the program does.
    """

    patience: Final = TIMEOUT + 5.0
    """Seconds after which a call will not end by itself any more."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._closing: weakref.finalize[[], SqliteStore]

    def __repr__(self) -> str:
        return f"SqliteStore({self._path!r})"

    async def load(self, name: str) -> dict[str, str]:
        """Returns all notes of a name."""
        return await asyncio.to_thread(self._load, name)

    async def save(self, name: str, put: Mapping[str, str], remove: Collection[str]) -> None:
        """Puts and removes notes in one transaction."""
        await asyncio.to_thread(self._save, name, dict(put), list(remove))

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                self._closing.detach()
                connection.close()

    def _open(self) -> sqlite3.Connection:
        """Returns the connection, opened if need be; the caller holds the lock."""
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
            # This is not done in __del__: when a program ends, Python 3.13 may destroy the
            # connection first.
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
    """Makes the file, and those that SQLite puts beside it, readable for their owner only.

    SQLite gives the other files the permissions of the first, so they must be right before it is
    opened.
    """
    if path in ("", ":memory:") or os.name != "posix":
        return
    # If the file cannot be made, SQLite raises an error that says why. An existing file is not
    # opened here: closing it would drop the locks of all other connections of this process.
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
    """Turns on the write-ahead log: a commit outlives the process without a wait for the disk.

    If two connections turn it on at once, SQLite raises instead of waiting; so this waits.
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
